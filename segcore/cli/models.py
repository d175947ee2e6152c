"""``segcore models``: the models, their cost and their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcore.cli.options import PATH, fetch_settings, json_option, offline_option
from segcore.core.errors import EXIT_BAD_INPUT, UsageError

if TYPE_CHECKING:
    from segcore.inference.catalog import Listed
    from segcore.inputs.model_files import ModelFiles
    from segcore.inputs.self_description import ModelHeader
    from segcore.report.table import Table


@click.command()
@click.argument("models", metavar="[DIRECTORY]", default="models", type=PATH)
@click.option("--check", is_flag=True, help="Only validate the model files; exit code 2 if there is a problem.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a model file, for completion in editors.")
@click.option("--inspect", "path", metavar="FILE", help="Print what the file of a model says about itself.")
@json_option
@offline_option
def models(models: Path, check: bool, schema: bool, path: str | None, as_json: bool, offline: bool) -> None:
    """List every model: parameters, multiply-accumulates of one 520x520 photo, and whether its weights are here.

    Those of the model files in DIRECTORY are listed too, and every problem that is found in a file.

    With --inspect, read an ONNX, OpenVINO or TFLite file (.onnx, .xml, .tflite), or a model file that names one. Prints
    what it says about itself and what is assumed where it says nothing on standard error, and the model file that says
    both, to be saved in DIRECTORY, on standard output.
    """
    if path is not None:
        _inspect(path, models, as_json)
        return
    from segcore.cli.output import show_json
    from segcore.inputs.model_files import json_schema, open_model_files

    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    files = open_model_files(models)
    for problem in files.problems if not as_json else ():
        click.echo(str(problem), err=True)
    if not check:
        _list(files, as_json, offline)
    elif as_json:
        show_json({"models": list(files.names), "problems": list(map(vars, files.problems))}, "models_check")
    elif not files.problems:
        click.echo(f"{len(files.specs)} model files, no problems")
    if files.problems:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _size(listed: Listed, path: Path | None) -> int:
    return path.stat().st_size if path else round(listed.size_mib * (1 << 20))


def _list(files: ModelFiles, as_json: bool, offline: bool) -> None:
    from segcore.cli.output import NO, YES, show, show_json
    from segcore.inference.catalog import LISTED_SIZE, listed_models, weights_path
    from segcore.report.table import Table

    settings = fetch_settings(offline)
    found = [(name, listed, weights_path(listed, settings)) for name, listed in listed_models().items()]
    if as_json:
        rows = [
            {
                "model": name,
                "parameters": listed.parameters,
                "gmacs": listed.gmacs,
                "weights": listed.weights,
                "size_bytes": _size(listed, path),
                "url": listed.url,
                "published": listed.published,
                "path": path,
            }
            for name, listed, path in found
        ]
        own_models = [
            {"model": spec.name, "file": spec.file, "source": {spec.source.kind: spec.source.location}}
            for spec in files.specs
        ]
        about = {"gmacs_shape": [LISTED_SIZE] * 2, "models": rows}
        show_json({**about, "model_files": own_models, "problems": list(map(vars, files.problems))})
        return
    notes = ["GMACs are of one 520x520 photo, without the auxiliary head."]
    if any(path is None for *_, path in found):
        notes.append("`segcore fetch --model NAME` downloads the weights that are not here.")
    table_rows = tuple(
        (name, listed.parameters / 1e6, listed.gmacs, _size(listed, path) / 1e6, YES if path else NO)
        for name, listed, path in found
    )
    tables = [Table(("model", "parameters, M", "GMACs", "weights, MB", "here"), table_rows, notes=tuple(notes))]
    if files.specs:
        sources = [(spec.source.kind, Path(spec.source.location).name) for spec in files.specs]
        own = [(s.name, *source, s.file.name if s.file else "") for s, source in zip(files.specs, sources, strict=True)]
        tables.append(Table(("model", "source", "of", "model file"), tuple(own)))
    show(*tables)


def _inspect(path: str, directory: Path, as_json: bool) -> None:
    """Print what the file of a model, or the one that a model file names, says about the model."""
    from segcore.cli.output import show, show_json
    from segcore.inputs.model_files import spec_of_path
    from segcore.inputs.model_files.writing import model_file_text
    from segcore.inputs.self_description import FILE_KINDS, describe, read_header, unused
    from segcore.report.escape import plain_text

    spec = spec_of_path(Path(path))
    if spec.source.kind not in FILE_KINDS:
        raise UsageError(f"{path} is of kind {spec.source.kind}; --inspect reads files of {', '.join(FILE_KINDS)}")
    header = read_header(spec)
    found = describe(header, spec)
    complete = spec.completed(found)
    assumed = {about: text for about, text in found.assumptions.items() if text in complete.assumptions}
    text = model_file_text(complete, assumed, directory)
    others = unused(header.metadata)
    if as_json:
        show_json(_header_json(header, assumed, others, text), "inspect")
        return
    show(_header_table(header, others), err=True)
    if assumed:
        show("Assumed, because the file does not say it; check each:", err=True)
        show(*(f"  {about}: {sentence}" for about, sentence in assumed.items()), err=True)
    else:
        show("Nothing is assumed.", err=True)
    show("", f"The model file that says the same, to be saved in {directory}/:", "", err=True)
    click.echo("\n".join(map(plain_text, text.splitlines())))


def _header_table(header: ModelHeader, others: dict[str, str]) -> Table:
    from segcore.report.table import Row, Table

    rows: list[Row] = [("input", each.name, str(each)) for each in header.inputs]
    for each in header.outputs:
        by = f", by {each.operator}" if each.operator else ""
        rows.append(("output", each.name, f"{each}{by}{f' of {each.choices} classes' if each.choices else ''}"))
    rows += [("not used" if key in others else "metadata", key, value) for key, value in header.metadata.items()]
    title = f"{header.path} ({header.kind}, sha256 {header.sha256()[:12]})"
    return Table(("found", "name", "value"), tuple(rows), title=title)


def _header_json(header: ModelHeader, assumed: dict[str, str], others: dict[str, str], text: str) -> dict[str, Any]:
    tensors = {
        name: [
            {
                "name": each.name,
                "dtype": each.dtype,
                "shape": each.shape,
                "scale": each.scale or None,
                "zero_point": each.zero_point if each.scale else None,
                "operator": each.operator or None,
                "classes": each.choices,
            }
            for each in found
        ]
        for name, found in (("inputs", header.inputs), ("outputs", header.outputs))
    }
    return {
        "file": header.path,
        "kind": header.kind,
        "sha256": header.sha256(),
        **tensors,
        "metadata": dict(header.metadata),
        "not_used": others,
        "assumed": assumed,
        "model_file": text,
    }
