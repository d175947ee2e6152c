"""``segcore cases``: listing and checking case files."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segcore.cli.options import PATH, json_option

if TYPE_CHECKING:
    from segcore.core.labels import LabelSet
    from segcore.inputs.cases import Case
    from segcore.report.table import Row


@click.command()
@click.argument("cases", metavar="[PATH]", default="cases", type=PATH)
@click.option("--check", is_flag=True, help="Only validate; exit code 2 if there is a problem.")
@click.option(
    "--models", default="models", type=PATH, help="Directory of model files, for the classes of their models."
)
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a case, for completion in editors.")
@json_option
def cases(cases: Path, check: bool, models: Path, schema: bool, as_json: bool) -> None:
    """List the cases in PATH (a file or a directory), and every problem found in them.

    Names of classes are checked against the labels of the models that a case lists: those of a model file, if it has
    any, or for built-in models those of VOC.
    """
    from segcore.cli.output import show, show_json
    from segcore.core.errors import EXIT_BAD_INPUT
    from segcore.inputs.cases import check_cases, json_schema
    from segcore.report.table import Table

    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    found, problems = check_cases(cases, partial(_labels_of, models))
    if as_json:
        listed = [case.model_dump(mode="json", exclude_defaults=True) for case in found]
        show_json({"cases": listed, "problems": list(map(vars, problems))})
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        if not check:
            show(Table(("case", "photo", "expected", "sizes", "tags"), tuple(map(_row, found))))
        elif not problems:
            click.echo(f"{len(found)} cases, no problems")
    if problems:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _labels_of(directory: Path, listed: tuple[str, ...]) -> tuple[LabelSet, ...]:
    """Return the labels of models, by name; nothing if one has them in files of its own, or is named by a path."""
    from segcore.core.labels import VOC
    from segcore.inputs.model_files import is_path, open_model_files

    known = {spec.name: spec.labels for spec in open_model_files(directory).specs}
    found = [None if is_path(name) else known.get(name, VOC) for name in listed]
    return tuple(labels for labels in found if labels is not None) if None not in found else ()


def _row(case: Case) -> Row:
    image = case.image
    expected = case.expect.dominant or ", ".join(case.expect.classes)
    return (
        case.name,
        image.resource or image.path or (image.url or "").rpartition("/")[2],
        f"skipped: {case.skip_reason}" if case.skip_reason else expected,
        ", ".join(map(str, case.sizes)),
        ", ".join(case.tags),
    )
