"""What commands print: tables and JSON on standard output, errors on standard error."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click
from rich.text import Text

from segcore.core.errors import EXIT_BAD_INPUT
from segcore.report.escape import plain_text
from segcore.report.table import Cell, open_console, print_table

if TYPE_CHECKING:
    from segcore.report.table import Table

YES, NO = Cell("yes", "good"), Cell("no", "soft")


def show(*parts: Table | str, err: bool = False) -> None:
    """Print tables and lines of text, on standard error with `err`."""
    console = open_console(stderr=err)
    for part in parts:
        console.print(Text(plain_text(part))) if isinstance(part, str) else print_table(part, console)


SCHEMA_VERSION = 1
"""Of all documents that ``--json`` prints; higher if a key is renamed or removed, or changes its meaning."""


def show_json(fields: Mapping[str, object], document: str | None = None) -> None:
    """Print a JSON document, with its name and the version of its schema before its own keys; see docs/json.md.

    Args:
        fields: the keys, in snake_case, and values.
        document: its name; that of the command that runs if None.
    """
    about = {"document": document or click.get_current_context().command.name, "schema_version": SCHEMA_VERSION}
    click.echo(json.dumps({**about, **fields}, indent=2, allow_nan=False))


def print_errors(errors: Sequence[str]) -> None:
    """Print each error as one line on standard error."""
    for error in errors:
        click.echo(plain_text(f"segcore: {error}"), err=True)


def exit_if_any(errors: Sequence[str]) -> None:
    """Print errors, and exit as for bad input if there are any."""
    print_errors(errors)
    if errors:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)
