"""``segcore history``: the runs of a directory over time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segcore.cli.options import json_option, storage_option
from segcore.core.errors import RecordError

if TYPE_CHECKING:
    from segcore.core.records import Run


@click.command()
@click.argument("name", required=False)
@storage_option
@json_option
def history(name: str | None, storage: Path, as_json: bool) -> None:
    """Show runs over time, item by item, with change points; NAME selects runs or items."""
    from segcore.judgement.history import history as series_of
    from segcore.report.comparison import history_table
    from segcore.report.table import open_console, print_table
    from segcore.results.store import find_runs

    found = series_of(_readable(find_runs(storage)), name)
    if not found:
        what = f" named {name!r}, nor items of that name" if name else ""
        raise RecordError(f"{storage}: no runs{what}; record one: pytest bench/ --benchmark-save")
    if as_json:
        click.echo(json.dumps([asdict(series) for series in found], indent=2, allow_nan=False))
        return
    console = open_console()
    for series in found:
        print_table(history_table(series), console)


def _readable(paths: tuple[Path, ...]) -> list[Run]:
    """Return the runs that can be read, and name the others on stderr."""
    from segcore.results.store import load_run

    runs = []
    for path in paths:
        try:
            runs.append(load_run(path))
        except RecordError as error:
            click.echo(f"segcore: left out: {error}", err=True)
    return runs
