"""``segcore history``: the runs of a directory over time."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from segcore.cli import completion
from segcore.cli.completion import completes
from segcore.cli.options import json_option, storage_option
from segcore.core.errors import RecordError


@click.command()
@click.argument("name", required=False, shell_complete=completes(completion.cases_and_runs))
@storage_option
@json_option
def history(name: str | None, storage: Path, as_json: bool) -> None:
    """Show runs over time, item by item, with change points; NAME selects runs or items."""
    from segcore.cli.output import print_errors, show, show_json
    from segcore.judgement.history import history as series_of
    from segcore.report.comparison import history_table
    from segcore.results.store import find_runs, load_readable

    runs, unreadable = load_readable(find_runs(storage))
    if not runs and unreadable:
        raise unreadable[0]
    print_errors([f"left out: {error}" for error in unreadable])
    found = series_of(runs, name)
    if not found:
        what = f" named {name!r}, nor items of that name" if name else ""
        raise RecordError(f"{storage}: no runs{what}; record one: pytest bench/ --benchmark-save")
    if as_json:
        show_json({"series": [asdict(series) for series in found]})
    else:
        show(*map(history_table, found))
