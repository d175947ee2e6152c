"""What commands print: tables and JSON on standard output, errors and progress on standard error."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
from rich.text import Text

from segcore.core.errors import EXIT_BAD_INPUT
from segcore.core.streams import progress_console
from segcore.report.escape import plain_text
from segcore.report.table import Cell, open_console, print_table

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from segcore.report.table import Table

YES, NO = Cell("yes", "good"), Cell("no", "soft")
SCHEMA_VERSION = 1
"""Of all documents that ``--json`` prints; higher if a key is renamed or removed, or changes its meaning."""


def show(*parts: Table | str, err: bool = False) -> None:
    """Print tables and lines of text, on standard error with `err`."""
    console = open_console(stderr=err)
    for part in parts:
        console.print(Text(plain_text(part))) if isinstance(part, str) else print_table(part, console)


def show_json(fields: Mapping[str, object], document: str | None = None) -> None:
    """Print a JSON document: its name, by default the command's, the schema version, and its own keys in snake_case."""
    about = {"document": document or click.get_current_context().command.name, "schema_version": SCHEMA_VERSION}
    click.echo(json.dumps({**about, **fields}, indent=2, allow_nan=False, default=os.fspath))


def print_errors(errors: Sequence[object]) -> None:
    """Print each error as one line on standard error."""
    for error in errors:
        click.echo(plain_text(f"segcore: {error}"), err=True)


def exit_if_any(errors: Sequence[object]) -> None:
    """Print errors, and exit as for bad input if there are any."""
    print_errors(errors)
    if errors:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def progress_bar(*columns: ProgressColumn, disable: bool = False) -> Progress:
    """Return a bar that is drawn on standard error if that is a terminal, and erased at the end."""
    from rich.progress import Progress

    console = progress_console()
    return Progress(*columns, console=console, transient=True, disable=disable or not console.is_terminal)
