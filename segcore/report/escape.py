"""One escaping function for each medium; writers apply it last, to every text that they print.

Names, reasons and paths come from run files and YAML of other people's branches. Terminals are also the logs of CI
services, which run some lines as commands: GitHub a line that begins with ``::error::``, and both GitHub and Azure
Pipelines ``##[error]`` and ``##vso[...]`` anywhere in a line.
"""

from __future__ import annotations

import html
import re

from segcore.core.text import printable

# A folded line may begin anywhere in a text, so the commands that GitHub's runner knows are broken everywhere, and
# unknown ones where a line is likely to begin; `test_x.py::test_y` stays as it is.
_COMMANDS = (
    "add-mask|add-matcher|remove-matcher|add-path|debug|echo|group|endgroup|error|warning|notice|save-state|set-env|"
    "set-output|stop-commands|internal-set-repo-path"
)
_COMMAND = re.compile(rf"(?<!\S):(?=:)|:(?=:({_COMMANDS})(\s|::))|##(?=\w*\[)", re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001 - spreadsheets read the full-width ones, too


def plain_text(text: str) -> str:
    """Return text for a terminal, a log or a drawing: one line without control characters or commands of CI."""
    return _COMMAND.sub(lambda found: f"{found[0]} ", printable(text))


def csv_text(text: str) -> str:
    """Return text for a cell of CSV: with a leading apostrophe if a spreadsheet would take it for a formula.

    Source: OWASP, "CSV Injection".
    """
    plain = plain_text(text)
    return f"'{plain}" if plain.lstrip().startswith(_FORMULA) else plain


def html_text(text: str) -> str:
    """Return text for an HTML element or a quoted attribute."""
    return html.escape(plain_text(text))


def markdown_text(text: str) -> str:
    """Return text for a markdown paragraph or table cell: no markup, HTML, mention, reference or link survives."""
    flat = re.sub(r"\s+", " ", plain_text(text))
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = re.sub(r"([\\`*_{}\[\]()!|~$])", r"\\\1", flat)
    return re.sub(r"(?<=[@#])(?=\w)|(?<=\b[Gg][Hh]-)(?=\d)|(?<=://)(?=\w)|(?<=www)(?=\.)", "<!-- -->", flat)


def command_data(text: str) -> str:
    """Return text for the message of a GitHub workflow command (as ``escapeData`` of @actions/core does)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """Return text for a property of a GitHub workflow command (as ``escapeProperty`` of @actions/core does)."""
    return command_data(text).replace(":", "%3A").replace(",", "%2C")
