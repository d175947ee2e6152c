"""``segcore cases``: listing and checking case files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from segcore.cli.options import PATH, json_option

if TYPE_CHECKING:
    from segcore.inputs.cases import Case
    from segcore.report.table import Row


@click.command()
@click.argument("path", default="cases", type=PATH)
@click.option("--check", is_flag=True, help="Only validate; exit code 2 if there is a problem.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema of a case, for completion in editors.")
@json_option
def cases(path: Path, check: bool, schema: bool, as_json: bool) -> None:
    """List the cases in PATH (a file or a directory), and every problem found in them."""
    from segcore.cli.output import show, show_json
    from segcore.core.errors import EXIT_BAD_INPUT
    from segcore.inputs.cases import check_cases, json_schema
    from segcore.report.table import Table

    if schema:
        show_json(json_schema())
        return
    found, problems = check_cases(path)
    if as_json:
        listed = [case.model_dump(mode="json", exclude_defaults=True) for case in found]
        show_json({"cases": listed, "problems": [{**vars(each), "file": str(each.file)} for each in problems]})
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        if not check:
            show(Table(("case", "photo", "expected", "sizes", "tags"), tuple(map(_row, found))))
        elif not problems:
            click.echo(f"{len(found)} cases, no problems")
    if problems:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


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
