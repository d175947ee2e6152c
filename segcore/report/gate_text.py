"""The gate's verdicts as text: terminal table, GitHub markdown and annotations, JSON. Pure: results in, text out.

Names come from YAML and run files of other people's branches: everything is escaped for the medium that it goes to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from segcore.judgement.gate.verdict import EXIT_CODES, VERDICTS, GateResult, Row
from segcore.judgement.statistics import CONFIDENCE, Interval
from segcore.report.wording import md_text, plain_text

STYLES = {
    "regressed": "bold red",
    "missing": "bold red",
    "inconclusive": "yellow",
    "incomparable": "yellow",
    "improved": "bold green",
    "pass": "green",
}
ICONS = {
    "regressed": "❌",
    "missing": "❌",
    "inconclusive": "❔",
    "incomparable": "❔",
    "improved": "🚀",
    "pass": "✅",
}
MAX_MARKDOWN = 60_000
"""Characters; a pull-request comment may have 65,536."""


def headline(result: GateResult) -> str:
    """Return the verdict in one line, with counts."""
    outcome = {0: "passed", 1: "FAILED", 3: "undecided"}[result.exit_code]
    counts = ", ".join(f"{count} {verdict}" for verdict, count in result.counts.items()) or "nothing was judged"
    return f"gate {outcome}: {result.current} against {result.baseline}: {counts}"


def render(result: GateResult, *, color: bool = False) -> str:
    """Return the table for a terminal: item by item, worst first, the reasons as footnotes; 80 columns mostly do."""
    paint = _painter(color)
    reasons: dict[str, int] = {}
    cells: list[tuple[Row, tuple[str, ...], str]] = []
    for row in _worst_first(result):
        note = f"[{reasons.setdefault(row.reason, len(reasons) + 1)}]" if EXIT_CODES[row.verdict] else ""
        texts = (row.aspect, _value(row, row.old), _value(row, row.new), change_text(row), row.limit)
        cells.append((row, tuple(plain_text(text) for text in texts), note))
    widths = [max((len(texts[n]) for _, texts, _ in cells), default=0) for n in range(5)]
    lines: list[str] = []
    for item in dict.fromkeys(row.item for row, _, _ in cells):
        lines.append(paint(plain_text(item), "bold"))
        for row, columns, note in cells:
            if row.item == item:
                figures = (text.rjust(width) for text, width in zip(columns[1:], widths[1:], strict=True))
                verdict = paint(row.verdict, STYLES[row.verdict])
                lines.append(f"  {'  '.join((columns[0].ljust(widths[0]), *figures))}  {verdict} {note}".rstrip())
    if cells:
        names = ("what", "old", "new", f"change [{CONFIDENCE:.0%} interval]", "limit")
        head = [names[0].ljust(widths[0]), *(n.rjust(w) for n, w in zip(names[1:], widths[1:], strict=True))]
        lines.insert(0, f"  {'  '.join(head)}  verdict")
    lines += [f"[{number}] {plain_text(reason)}" for reason, number in reasons.items()]
    lines += [f"note: {plain_text(note)}" for note in result.notes]
    return "\n".join([*lines, paint(plain_text(headline(result)), "bold")]) + "\n"


def _painter(color: bool) -> Callable[[str, str], str]:
    codes = {"bold": "1", "bold red": "1;31", "yellow": "33", "bold green": "1;32", "green": "32"}
    return lambda text, style: f"\x1b[{codes[style]}m{text}\x1b[0m" if color else text


def markdown(result: GateResult) -> str:
    """Return GitHub markdown under `MAX_MARKDOWN` characters: verdict, what needs a look, the rest folded."""
    rows = _worst_first(result)
    bad = [row for row in rows if EXIT_CODES[row.verdict] or row.verdict == "improved"]
    rest = [row for row in rows if row not in bad]
    icon = {0: "✅", 1: "❌", 3: "❔"}[result.exit_code]
    parts = [f"### {icon} segcore {md_text(headline(result))}", ""]
    parts += _md_table(bad, reasons=True) if bad else []
    parts += [f"- {md_text(note)}" for note in result.notes]
    foot = [
        "",
        f"<sub>Change: estimate [{CONFIDENCE:.0%} interval], noise between processes included; "
        "slower and worse are judged against the limit.</sub>",
        "",
    ]
    folded = [
        "",
        f"<details><summary>{len(rest)} passed</summary>",
        "",
        *_md_table(rest, reasons=False),
        "",
        "</details>",
    ]
    room = MAX_MARKDOWN - sum(len(line) + 1 for line in (*parts, *folded[:4], *folded[-2:], *foot)) - 200
    return "\n".join(_fit(parts, MAX_MARKDOWN - 1000) + (_fit(folded, room) if rest and room > 0 else []) + foot)


def workflow_commands(result: GateResult) -> str:
    """Return GitHub workflow commands, one for each row that did not pass: errors, or warnings where undecided."""
    lines = []
    for row in _worst_first(result):
        if EXIT_CODES[row.verdict]:
            level = "error" if EXIT_CODES[row.verdict] == 1 else "warning"
            title = command_property(f"segcore: {row.verdict}: {row.item} {row.aspect}")
            told = " ".join(filter(None, (change_text(row), f"(limit {row.limit})" if row.limit else "", row.reason)))
            lines.append(f"::{level} title={title}::{command_data(told)}\n")
    return "".join(lines)


def as_json(result: GateResult) -> dict[str, Any]:
    """Return the result as JSON values; a bound that is infinite is null."""
    return {
        "verdict": {0: "pass", 1: "fail", 3: "undecided"}[result.exit_code],
        "exit_code": result.exit_code,
        "baseline": result.baseline,
        "current": result.current,
        "confidence": CONFIDENCE,
        "counts": dict(result.counts),
        "rows": [
            {
                "item": row.item,
                "aspect": row.aspect,
                "verdict": row.verdict,
                "unit": row.unit,
                "old": _finite(row.old),
                "new": _finite(row.new),
                "change": _finite(row.change.value) if row.change else None,
                "interval": [_finite(row.change.low), _finite(row.change.high)] if row.change else None,
                "limit": row.limit,
                "reason": row.reason,
            }
            for row in result.rows
        ],
        "notes": list(result.notes),
    }


def change_text(row: Row) -> str:
    """Return ``+3.1% [+1.0%, +5.2%]`` for times, ``-0.0123`` for scores, nothing where nothing was compared."""
    if row.change is None:
        return ""
    if row.unit == "share":
        return f"{row.change.value:+.4f}"
    return f"{row.change.value:+.1%} {_bounds(row.change)}"


def command_data(text: str) -> str:
    """Escape the message of a GitHub workflow command (as ``escapeData`` of @actions/core does)."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def command_property(text: str) -> str:
    """Escape a property of a GitHub workflow command (as ``escapeProperty`` of @actions/core does)."""
    return command_data(text).replace(":", "%3A").replace(",", "%2C")


def _worst_first(result: GateResult) -> list[Row]:
    return sorted(result.rows, key=lambda row: VERDICTS.index(row.verdict))


def _value(row: Row, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if row.unit == "share" else f"{value:#.4g}".rstrip(".") + f" {row.unit}"


def _bounds(interval: Interval) -> str:
    low, high = (f"{x:+.1%}" if math.isfinite(x) else "?" for x in (interval.low, interval.high))
    return f"[{low}, {high}]"


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _md_table(rows: list[Row], *, reasons: bool) -> list[str]:
    names = ["", "item", "what", "old", "new", "change", "limit", *(["why"] if reasons else [])]
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    for row in rows:
        cells = [row.item, row.aspect, _value(row, row.old), _value(row, row.new), change_text(row), row.limit]
        cells = [
            f"{ICONS[row.verdict]} {row.verdict}",
            *map(md_text, cells),
            *([md_text(row.reason)] if reasons else []),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _fit(lines: list[str], room: int) -> list[str]:
    """Return as many lines as fit, and say how many are left out."""
    total = 0
    for n, line in enumerate(lines):
        total += len(line) + 1
        if total > room:
            closing = lines[-1:] if lines[-1] == "</details>" else []
            return [*lines[:n], "", f"({len(lines) - n} more lines are left out; see the run's own report)", *closing]
    return lines
