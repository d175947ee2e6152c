"""``segcore models --inspect``: what a model says about itself, what is assumed, and the model file of both."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcore.core.errors import UsageError

if TYPE_CHECKING:
    from segcore.inputs.self_description import ModelHeader
    from segcore.report.table import Table


def inspect(path: str, directory: Path, as_json: bool) -> None:
    """Print what a model file, or the file of a model, says about itself.

    Args:
        path: of the file.
        directory: that the printed model file is for: paths are relative to it.
        as_json: print JSON.

    Raises:
        ModelError: it cannot be read.
        UsageError: it is of a kind whose files say nothing about the model.
    """
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
        show_json(_as_json(header, assumed, others, text), "inspect")
        return
    show(_table(header, others), err=True)
    if assumed:
        show("Assumed, because the file does not say it; check each:", err=True)
        show(*(f"  {about}: {sentence}" for about, sentence in assumed.items()), err=True)
    else:
        show("Nothing is assumed.", err=True)
    show("", f"The model file that says the same, to be saved in {directory}/:", "", err=True)
    click.echo("\n".join(map(plain_text, text.splitlines())))


def _table(header: ModelHeader, others: dict[str, str]) -> Table:
    from segcore.report.table import Row, Table

    rows: list[Row] = [("input", each.name, str(each)) for each in header.inputs]
    for each in header.outputs:
        by = f", by {each.operator}" if each.operator else ""
        rows.append(("output", each.name, f"{each}{by}{f' of {each.choices} classes' if each.choices else ''}"))
    rows += [("not used" if key in others else "metadata", key, value) for key, value in header.metadata.items()]
    title = f"{header.path} ({header.kind}, sha256 {header.sha256()[:12]})"
    return Table(("found", "name", "value"), tuple(rows), title=title)


def _as_json(header: ModelHeader, assumed: dict[str, str], others: dict[str, str], text: str) -> dict[str, Any]:
    tensors = {
        name: [
            {
                "name": each.name,
                "dtype": each.dtype,
                "shape": None if each.shape is None else list(each.shape),
                "scale": each.scale or None,
                "zero_point": each.zero_point if each.scale else None,
                "operator": each.operator or None,
                "classes": each.choices,
            }
            for each in found
        ]
        for name, found in (("inputs", header.inputs), ("outputs", header.outputs))
    }
    about = {"file": str(header.path), "kind": header.kind, "sha256": header.sha256()}
    return {
        **about,
        **tensors,
        "metadata": dict(header.metadata),
        "not_used": others,
        "assumed": assumed,
        "model_file": text,
    }
