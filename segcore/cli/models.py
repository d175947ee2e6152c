"""``segcore models``: the models, their cost and their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcore.cli.options import PATH, fetch_settings, json_option, offline_option

if TYPE_CHECKING:
    from segcore.inference.catalog import Listed
    from segcore.inputs.model_files import ModelFiles


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
        from segcore.cli.inspection import inspect

        inspect(path, models, as_json)
        return
    from segcore.cli.output import show_json
    from segcore.core.errors import EXIT_BAD_INPUT
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
        show_json({"models": list(files.names), "problems": _problems(files)}, "models_check")
    elif not files.problems:
        click.echo(f"{len(files.specs)} model files, no problems")
    if files.problems:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _problems(files: ModelFiles) -> list[dict[str, Any]]:
    return [{**vars(each), "file": str(each.file)} for each in files.problems]


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
                "path": str(path) if path else None,
            }
            for name, listed, path in found
        ]
        own_models = [
            {"model": spec.name, "file": str(spec.file), "source": {spec.source.kind: spec.source.location}}
            for spec in files.specs
        ]
        about = {"gmacs_shape": [LISTED_SIZE] * 2, "models": rows}
        show_json({**about, "model_files": own_models, "problems": _problems(files)})
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
