"""One escaping function for each medium; writers apply it last, to every text that they print.

Names, reasons and paths come from run files and YAML of other people's branches.
"""

from __future__ import annotations

import html
import re

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]+")


def plain_text(text: str) -> str:
    """Return text for a terminal or a drawing: control characters, line breaks and lone surrogates become spaces."""
    return _CONTROLS.sub(" ", text)


def html_text(text: str) -> str:
    """Return text for an HTML element or a quoted attribute."""
    return html.escape(plain_text(text))


def markdown_text(text: str) -> str:
    """Return text for a markdown paragraph or table cell: no markup, HTML, mention, reference or link survives."""
    flat = re.sub(r"\s+", " ", plain_text(text))
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = re.sub(r"([\\`*_{}\[\]()!|~$])", r"\\\1", flat)
    return re.sub(r"(?<=[@#])(?=\w)|(?<=://)(?=\w)|(?<=www)(?=\.)", "<!-- -->", flat)


def command_data(text: str) -> str:
    """Return text for the message of a GitHub workflow command (as ``escapeData`` of @actions/core does)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """Return text for a property of a GitHub workflow command (as ``escapeProperty`` of @actions/core does)."""
    return command_data(text).replace(":", "%3A").replace(",", "%2C")
