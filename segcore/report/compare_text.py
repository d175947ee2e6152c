"""Comparisons and histories as text: terminal table, markdown, CSV and JSON. Pure: results in, text out."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from segcore.judgement.compare import Cell, Comparison, Line, ScoreCell, ScoreLine
from segcore.judgement.history import Series
from segcore.report.wording import md_text, plain_text, score_words

WIDTH = 120


def table(comparison: Comparison) -> str:
    """Return the table for a terminal: a column per device and run, the best of each line marked with a star."""
    legend = [f"{column.label}: {column.machine}" for column in comparison.columns]
    rows = [["", *(column.label for column in comparison.columns)]]
    rows += _rows(comparison)
    return _drawn(rows) + "\n".join(plain_text(line) for line in [*legend, _foot(comparison)]) + "\n"


def markdown(comparison: Comparison) -> str:
    """Return a GitHub table."""
    rows = [["", *(f"{column.label}<br>{column.machine}" for column in comparison.columns)]]
    rows += _rows(comparison)
    lines = ["| " + " | ".join("<br>".join(map(md_text, cell.split("<br>"))) for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join([*lines, "", md_text(_foot(comparison)), ""])


def as_csv(comparison: Comparison) -> str:
    """Return one line per cell; what does not apply is empty."""
    names = ["seconds", "images_per_s", "ratio", "gmacs_per_s", "efficiency", "best"]
    scores = ["what", "share", "low", "high", "difference", "best"]
    work = ["kind", "model", "runtime", "size", "batch", "cases", "dataset", "images", "protocol", "score"]
    out = io.StringIO()
    writer = csv.DictWriter(
        out, [*work, "column", "machine", *names[:-1], *scores], restval="", extrasaction="ignore", lineterminator="\n"
    )
    writer.writeheader()
    lines: list[Line | ScoreLine] = [*comparison.lines, *comparison.scores]
    for line in lines:
        for column in comparison.columns:
            if cell := line.cells.get(column.label):
                place = {"column": column.label, "machine": column.machine}
                fields = {"kind": "dataset"} | vars(line) | vars(cell) | place
                writer.writerow(fields | ({"cases": " ".join(line.cases)} if isinstance(line, Line) else {}))
    return out.getvalue()


def as_json(comparison: Comparison) -> str:
    """Return everything."""
    return json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n"


def history_table(found: Sequence[Series]) -> str:
    """Return each item's runs over time, change points marked."""
    parts = []
    for series in found:
        parts.append(plain_text(f"{series.item} on {series.machine}"))
        rows = [["started", "run", "commit", "median", "change point"]]
        for point in series.points:
            change = "" if point.change is None else f"<- {point.change:+.1%} from here on"
            rows.append([point.started[:16], point.run, point.commit, f"{1e3 * point.seconds:.4g} ms", change])
        parts.append(_drawn(rows))
    return "\n".join(parts)


def history_json(found: Sequence[Series]) -> str:
    """Return everything."""
    return json.dumps([asdict(series) for series in found], indent=2, allow_nan=False) + "\n"


FORMS: dict[str, Callable[[Comparison], str]] = {"table": table, "markdown": markdown, "csv": as_csv, "json": as_json}


def _rows(comparison: Comparison) -> list[list[str]]:
    """One row per line of work, and per mean score of a dataset; IoU per class is in CSV and JSON."""
    labels = [column.label for column in comparison.columns]
    timed = [
        [_title(line), *(_cell(line.kind, line.cells.get(label)) for label in labels)] for line in comparison.lines
    ]
    means = [line for line in comparison.scores if not line.score.startswith("iou ")]
    return timed + [[_score_title(line), *(_score_cell(line.cells.get(label)) for label in labels)] for line in means]


def _score_title(line: ScoreLine) -> str:
    return f"{score_words(line.score)} on {line.dataset} ({line.images} images), {line.protocol}"


def _score_cell(cell: ScoreCell | None) -> str:
    if cell is None:
        return "-"
    difference = "" if cell.difference is None else f" {100 * cell.difference:+.2f}"
    share = f"{cell.share:.2%} ({100 * cell.low:.1f} to {100 * cell.high:.1f})"
    return f"{cell.what}: {share}{difference}{' *' if cell.best else ''}"


def _title(line: Line) -> str:
    cases = len(line.cases)
    return f"{line.title} ({cases} case{'s' * (cases != 1)})" if cases else f"{line.title} (no common case)"


def _cell(kind: str, cell: Cell | None) -> str:
    if cell is None:
        return "-"
    value = f"{cell.images_per_s:.4g} images/s" if kind == "throughput" else f"{1e3 * cell.seconds:.4g} ms"
    ratio = "" if cell.ratio is None else f" {cell.ratio:.2f}x"
    efficiency = "" if cell.efficiency is None else f" {cell.efficiency:.0%}"
    return f"{value}{ratio}{efficiency}{' *' if cell.best else ''}"


def _foot(comparison: Comparison) -> str:
    timed = (
        f"Medians; x: speed relative to {comparison.reference}; %: forward pass as a share of the matrix product that "
        "this machine reached in the same session; *: best."
    )
    scored = (
        f"Scores with 95 % confidence intervals over images, and the difference to {comparison.reference} in points."
    )
    return " ".join([timed] * bool(comparison.lines) + [scored] * bool(comparison.scores))


def _drawn(rows: Sequence[Sequence[str]]) -> str:
    drawn = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for n, name in enumerate(rows[0]):
        drawn.add_column(Text(plain_text(name)), justify="left" if n == 0 else "right", overflow="fold")
    for row in rows[1:]:
        drawn.add_row(*(Text(plain_text(cell)) for cell in row))
    out = io.StringIO()
    Console(file=out, width=WIDTH).print(drawn)
    return out.getvalue()
