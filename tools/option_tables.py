"""Write the table of options in docs/configuration.md from their declarations: ``python -m tools.option_tables``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from segcore.core.bench_options import BENCH_OPTIONS
from segcore.core.files import write_file
from segcore.plugin.options import add_options

PAGE = Path(__file__).parents[1] / "docs" / "configuration.md"
BLOCK = re.compile(r"(?<=<!-- options -->\n\n).*?(?=\n<!-- end -->\n)", re.DOTALL)


def bench_table() -> str:
    """Return the options of the plugin, as pytest knows them, as a Markdown table."""
    parser = pytest.Parser(_ispytest=True)
    add_options(parser)
    keys = {option.flag: f"`{option.name}`" for option in BENCH_OPTIONS}
    lines = ["| option | key | meaning |", "|---|---|---|"]
    for option in parser.getgroup("segcore").options:
        (flag,) = option.names()
        typed = " ".join(filter(None, (flag, option.attrs().get("metavar"))))
        lines.append(f"| `{typed}` | {keys.get(flag, '')} | {option.attrs()['help']} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """Return the page with its table made anew."""
    return BLOCK.sub(lambda _: bench_table(), page)


if __name__ == "__main__":
    write_file(PAGE, with_table(PAGE.read_text(encoding="utf-8")).encode())
