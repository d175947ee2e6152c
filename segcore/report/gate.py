"""Verdicts of a gate as table, markdown, annotations and step summary of GitHub Actions, and JSON."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.text import Text

from segcore.judgement.gate.verdict import EXIT_CODES, VERDICTS, GateResult, Row
from segcore.judgement.statistics import CONFIDENCE
from segcore.report.escape import command_data, command_property, markdown_text, plain_text
from segcore.report.markdown import MAX_MARKDOWN, Section, document
from segcore.report.table import ICONS, MAX_ROWS, STYLES, Cell, Table, print_table, terminal_text, to_markdown
from segcore.report.wording import change_text, value_text

HeadlineTone = Literal["good", "warn", "bad"]
TONES: dict[str, HeadlineTone] = {
    "pass": "good",
    "improved": "good",
    "inconclusive": "warn",
    "incomparable": "warn",
    "regressed": "bad",
    "missing": "bad",
}
_WORDS: dict[int, tuple[str, HeadlineTone]] = {0: ("Passed", "good"), 1: ("Failed", "bad"), 3: ("Undecided", "warn")}
INTERVAL = f"change [{CONFIDENCE:.0%} interval]"


@dataclass(frozen=True)
class Headline:
    """The verdict in one word, and in one line with counts."""

    word: str
    line: str
    tone: HeadlineTone

    @property
    def log_line(self) -> str:
        """Return the line for logs, with a failure in capitals: ``gate FAILED: ...``."""
        word = self.word.upper() if self.tone == "bad" else self.word.lower()
        return f"gate {word}{self.line.removeprefix(self.word)}"


def headline(result: GateResult) -> Headline:
    """Return the verdict of a gate."""
    word, tone = _WORDS[result.exit_code]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in result.counts.items()) or "nothing was judged"
    return Headline(word, f"{word}: {result.current} against {result.baseline}: {counts}", tone)


def worst_first(rows: Sequence[Row]) -> tuple[Row, ...]:
    """Return rows sorted by verdict."""
    return tuple(sorted(rows, key=lambda row: VERDICTS.index(row.verdict)))


def gate_table(rows: Sequence[Row], *, footnotes: bool = False) -> Table:
    """Return a row per judged aspect of an item, with a column of reasons.

    With `footnotes`, for narrow terminals, each reason for not passing is in the notes instead, once.
    """
    reasons = dict.fromkeys(row.reason for row in rows if EXIT_CODES[row.verdict])
    numbers = {reason: f" [{n}]" for n, reason in enumerate(reasons, 1)} if footnotes else {}
    cells = tuple(
        (
            row.item,
            row.aspect,
            value_text(row.old, row.unit),
            value_text(row.new, row.unit),
            change_text(row.change, row.unit),
            row.limit,
            Cell(row.verdict + (numbers.get(row.reason, "") if EXIT_CODES[row.verdict] else ""), TONES[row.verdict]),
            Cell(row.reason, "soft"),
        )
        for row in rows
    )
    notes = tuple(f"{number.strip()} {reason}" for reason, number in numbers.items())
    columns = ("item", "what", "old", "new", INTERVAL, "limit", "verdict", "why")
    table = Table(columns, cells, notes=notes, right=("old", "new", INTERVAL, "limit"))
    return table.without("why") if footnotes else table


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print rows of a gate under a heading per item."""
    order = {item: n for n, item in enumerate(dict.fromkeys(row.item for row in rows))}
    print_table(gate_table(sorted(rows, key=lambda row: order[row.item]), footnotes=True), console, grouped=True)


def print_result(result: GateResult, console: Console) -> None:
    """Print the verdicts, worst first, and the headline last."""
    print_rows(worst_first(result.rows)[:MAX_ROWS], console)
    if len(result.rows) > MAX_ROWS:
        console.print(f"note: {len(result.rows) - MAX_ROWS:,} more rows are left out; see `--json`")
    for note in result.notes[:MAX_ROWS]:
        console.print(Text(plain_text(f"note: {note}")))
    for command in result.commands:
        console.print(Text(plain_text(f"to decide: {command}")), soft_wrap=True)
    console.print(Text(plain_text(headline(result).log_line), f"bold {STYLES[headline(result).tone]}"))


def render(result: GateResult, *, width: int | None = None, color: bool = False) -> str:
    """Return what `print_result` prints; see `terminal_text`."""
    return terminal_text(lambda console: print_result(result, console), width=width, color=color)


def markdown(result: GateResult, room: int = MAX_MARKDOWN) -> str:
    """Return GitHub markdown of at most `room` characters: verdict, what did not just pass, the rest folded."""
    rows = worst_first(result.rows)
    changed = [row for row in rows if row.verdict != "pass"]
    passed = [row for row in rows if row.verdict == "pass"]
    table = to_markdown(gate_table(changed)) + "\n" if changed else ""
    notes = "".join(f"- {markdown_text(note)}\n" for note in result.notes)
    notes += "".join(f"- to decide: {_code(command)}\n" for command in result.commands)
    foot = (
        f"\n<sub>Change: estimate [{CONFIDENCE:.0%} interval], noise between processes included; slower and worse are "
        "judged against the limit.</sub>\n"
    )
    sections = [Section("", table + notes)]
    sections += [Section(f"{len(passed)} passed", to_markdown(gate_table(passed)))] if passed else []
    title = f"### {ICONS[headline(result).tone]}segcore {markdown_text(headline(result).log_line)}\n"
    return title + document(sections, room - len(title) - len(foot)) + foot


def _code(command: str) -> str:
    """Return a command as inline code; one with a backtick, which could end that, as text."""
    return markdown_text(command) if "`" in command else f"`{plain_text(command)}`"


def workflow_commands(result: GateResult) -> str:
    """Return a GitHub workflow command for each row that did not pass: an error, or a warning if undecided."""
    lines = []
    for row in worst_first(result.rows):
        if code := EXIT_CODES[row.verdict]:
            title = command_property(f"segcore: {row.verdict}: {row.item} {row.aspect}")
            limit = f"(limit {row.limit})" if row.limit else ""
            text = " ".join(filter(None, (change_text(row.change, row.unit), limit, row.reason)))
            lines.append(f"::{'error' if code == 1 else 'warning'} title={title}::{command_data(text)}\n")
    return "".join(lines)


def annotate(result: GateResult, *, err: bool = False) -> None:
    """In GitHub Actions, print annotations (to stderr if `err`) and append to the step summary."""
    if os.environ.get("GITHUB_ACTIONS"):
        print(workflow_commands(result), end="", file=sys.stderr if err else sys.stdout, flush=True)
    append_summary(markdown(result))


def append_summary(text: str) -> None:
    """Append markdown to the step summary, if there is one; if it cannot be written, print one line to stderr."""
    path = os.environ.get("GITHUB_STEP_SUMMARY")
    if path:
        try:
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(text + "\n")
        except OSError as error:
            sys.stderr.write(f"segcore: GITHUB_STEP_SUMMARY {path}: cannot be written: {error.strerror}\n")


def as_json(result: GateResult) -> dict[str, Any]:
    """Return the result as JSON values; an infinite bound is null."""
    rows = [
        {
            **asdict(row),
            "old": finite(row.old),
            "new": finite(row.new),
            "change": finite(row.change.value) if row.change else None,
            "interval": [finite(row.change.low), finite(row.change.high)] if row.change else None,
        }
        for row in result.rows
    ]
    verdict = {0: "pass", 1: "fail", 3: "undecided"}[result.exit_code]
    about = {"verdict": verdict, "exit_code": result.exit_code, "confidence": CONFIDENCE, "counts": result.counts}
    return {**about, **asdict(result), "rows": rows}


def finite(value: float | None) -> float | None:
    """Return the value, or None if it is NaN or infinite, which JSON cannot hold."""
    return value if value is not None and math.isfinite(value) else None
