"""Write the tables of options in docs/configuration.md from the declarations: ``python -m tools.option_tables``."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from segcore.cli import COMMANDS, cli
from segcore.cli.configured import settable
from segcore.core.bench_options import BENCH_OPTIONS
from segcore.core.files import write_file
from segcore.plugin.options import add_options

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
BLOCK = re.compile(r"(<!-- (options|commands) -->\n)(?:.*?)(<!-- end -->\n)", re.DOTALL)


def table(rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table whose first row is its head."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]) + "\n"


def bench_table() -> str:
    """Return the table of the plugin's options, as pytest knows them."""
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    keys = {option.flag: f"`{option.name}`" for option in BENCH_OPTIONS}
    rows: list[tuple[str, ...]] = [("option", "key", "meaning")]
    for option in parser.getgroup("segcore").options:
        (flag,) = option.names()
        metavar = option.attrs().get("metavar")
        rows.append((f"`{flag} {metavar}`" if metavar else f"`{flag}`", keys.get(flag, ""), option.attrs()["help"]))
    return table(rows)


def command_tables() -> str:
    """Return a heading and the table of options of each command."""
    return "\n".join(f"### segcore {name}\n\n{_command_table(name)}" for name in COMMANDS)


def _command_table(name: str) -> str:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    keys = {parameter: key for key, parameter in settable(command).items()}
    context = click.Context(command, info_name=name, show_default=True)
    rows: list[tuple[str, ...]] = [("option or argument", "key", "meaning")]
    for parameter in command.params:
        key = f"`{keys[parameter]}`" if parameter in keys else ""
        if isinstance(parameter, click.Option):
            written, meaning = parameter.get_help_record(context) or ("", "")
            rows.append((f"`{written}`", key, meaning))
        else:
            rows.append((f"`{parameter.make_metavar(context)}`", key, f"[default: {parameter.default}]" if key else ""))
    return table(rows)


def with_tables(page: str) -> str:
    """Return the page with its tables made anew."""
    made = {"options": bench_table, "commands": command_tables}
    return BLOCK.sub(lambda found: f"{found[1]}\n{made[found[2]]()}\n{found[3]}", page)


if __name__ == "__main__":
    write_file(PAGE, with_tables(PAGE.read_text(encoding="utf-8")).encode())
