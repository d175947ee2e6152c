"""Markdown documents that stay below GitHub's limit of a comment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from segcore.report.escape import markdown_text

MAX_MARKDOWN = 60_000
"""Characters; a pull-request comment may have 65,536."""
_NOTICE = 120
"""Characters reserved for a line about what is left out."""


@dataclass(frozen=True)
class Section:
    """Lines of markdown, folded under a title unless that is empty."""

    title: str
    body: str


def document(sections: Iterable[Section], room: int = MAX_MARKDOWN) -> str:
    """Return the sections in at most `room` characters: bodies are cut at a line, and what is left out counted."""
    text = ""
    for section in sections:
        opening, closing = "\n", ""
        if section.title:
            opening = f"\n<details><summary>{markdown_text(section.title[:100])}</summary>\n\n"
            closing = "\n</details>\n"
        space = room - len(text) - len(opening) - len(closing) - 2 * _NOTICE
        if space <= 0:
            return f"{text}\n(more is left out; see the HTML report)\n" if room > _NOTICE else ""
        text += opening + _cut(section.body, space) + closing
    return text


def _cut(body: str, space: int) -> str:
    if len(body) <= space:
        return body
    end = body.rfind("\n", 0, space) + 1
    return f"{body[:end]}\n({body.count(chr(10), end)} more lines are left out; see the HTML report)\n"
