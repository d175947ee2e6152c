"""A pull-request comment or step summary: the verdict, what changed, and the rest folded; below GitHub's size limit.

Names, reasons and paths are other people's: they are escaped so that no markup, HTML, mention or link survives.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from segcore.core.files import write_file
from segcore.report import gate_text
from segcore.report.gate_text import MAX_MARKDOWN
from segcore.report.model import ReportModel
from segcore.report.tables import dataset_tables, facts, items_table, side_by_side
from segcore.report.wording import md_text, number

_ROOM_FOR_LAST_LINE, _ROOM_FOR_WARNINGS = 1000, 5000
ICONS = {"good": "✅", "bad": "❌", "warn": "❔"}


def write_markdown(story: ReportModel, path: Path) -> None:
    """Write the comment.

    Raises:
        OutputError: the file cannot be written.
    """
    write_file(path, render_markdown(story).encode())


def render_markdown(story: ReportModel) -> str:
    """Return the comment, at most `MAX_MARKDOWN` characters; what does not fit is counted in its last line."""
    record = story.current.record
    commit = f", commit {record.git.commit[:10]}" if record.git else ""
    about = md_text(f"{story.current.name}{commit}, {record.machine.cpu}") + "\n"
    if story.gate is not None:
        text = gate_text.markdown(story.gate)
        text += about if len(text) + len(about) <= MAX_MARKDOWN else ""
    else:
        text = f"### {ICONS[story.headline.tone]} segcore: {md_text(story.headline.line)}\n\n{about}"
        text += "".join(f"\n> {md_text(sentence)}\n" for sentence in story.warnings)[:_ROOM_FOR_WARNINGS]
    return text + render_folded(story, MAX_MARKDOWN - len(text))


def render_folded(story: ReportModel, room: int = MAX_MARKDOWN) -> str:
    """Return all but the verdict and what changed, each part folded, in at most `room` characters."""
    text = ""
    left_out = []
    for title, lines in _sections(story):
        section = f"\n<details><summary>{md_text(title)}</summary>\n\n" + "\n".join(lines) + "\n\n</details>\n"
        if len(text) + len(section) > room - _ROOM_FOR_LAST_LINE:
            left_out.append(md_text(title)[:60])
        else:
            text += section
    if left_out:
        text += f"\nToo long for here: {', '.join(left_out)}; see the HTML report.\n"
    return text if len(text) <= room else ""


def _sections(story: ReportModel) -> Iterable[tuple[str, list[str]]]:
    """Titles and lines of what is folded, most wanted first."""
    if story.failures:
        rows = [(trouble.outcome, ", ".join(trouble.items), trouble.reason) for trouble in story.failures]
        count = sum(trouble.count for trouble in story.failures)
        yield f"{count} not measured or failed", _table(("outcome", "items", "reason"), rows)
    if story.cases:
        cells = [
            (
                ICONS["good" if check.passed else "bad"],
                f"{case.title}, {case.subtitle}",
                check.name,
                check.wanted,
                check.found,
            )
            for case in story.cases
            for check in case.accuracy.checks
        ]
        yield f"{len(story.cases)} cases: expected and found", _table(("", "case", "", "expected", "found"), cells)
    for dataset in dataset_tables(story.current, story.baseline):
        yield dataset.title, _table(dataset.columns, dataset.rows)
    compared = side_by_side(story.all_runs)
    if compared:
        yield "Side by side", _table(compared.columns, compared.rows)
    items = items_table(story)
    yield f"{len(items.rows)} items", _table(items.columns, items.rows)
    if story.warnings:
        yield f"{len(story.item_warnings)} warnings about items", _table(("item", "warning"), story.item_warnings)
    yield "Where and with what", _table(("", ""), facts(story.current))


def _table(columns: Sequence[str], rows: Sequence[Sequence[str | float]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return lines + ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]


def _cell(cell: str | float) -> str:
    if isinstance(cell, str):
        return md_text(cell)
    return "" if math.isnan(cell) else number(cell)
