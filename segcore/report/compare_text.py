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

from segcore.compare import Cell, Comparison, Line
from segcore.history import Series
from segcore.report.wording import md_text, plain_text

WIDTH = 120


def table(comparison: Comparison) -> str:
    """Return the table for a terminal: a column per device and run, the best of each line marked with a star."""
    legend = [f"{column.label}: {column.machine}" for column in comparison.columns]
    rows = [["", *(column.label for column in comparison.columns)]]
    rows += [[_title(line), *_cells(comparison, line)] for line in comparison.lines]
    return _drawn(rows) + "\n".join(plain_text(line) for line in [*legend, _foot(comparison)]) + "\n"


def markdown(comparison: Comparison) -> str:
    """Return a GitHub table."""
    rows = [["", *(f"{column.label}<br>{column.machine}" for column in comparison.columns)]]
    rows += [[_title(line), *_cells(comparison, line)] for line in comparison.lines]
    lines = ["| " + " | ".join("<br>".join(map(md_text, cell.split("<br>"))) for cell in row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" * len(rows[0]))
    return "\n".join([*lines, "", md_text(_foot(comparison)), ""])


def as_csv(comparison: Comparison) -> str:
    """Return one line per cell."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ["seconds", "images_per_s", "ratio", "gmacs_per_s", "efficiency", "best"]
    writer.writerow(["kind", "model", "runtime", "size", "batch", "cases", "column", "machine", *names])
    for line in comparison.lines:
        for column in comparison.columns:
            cell = line.cells.get(column.label)
            if cell:
                work = [line.kind, line.model, line.runtime, line.size, line.batch, " ".join(line.cases)]
                writer.writerow([*work, column.label, column.machine, *(getattr(cell, name) for name in names)])
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


def _title(line: Line) -> str:
    cases = len(line.cases)
    return f"{line.title} ({cases} case{'s' * (cases != 1)})" if cases else f"{line.title} (no common case)"


def _cells(comparison: Comparison, line: Line) -> list[str]:
    return [_cell(line.kind, line.cells.get(column.label)) for column in comparison.columns]


def _cell(kind: str, cell: Cell | None) -> str:
    if cell is None:
        return "-"
    value = f"{cell.images_per_s:.4g} images/s" if kind == "throughput" else f"{1e3 * cell.seconds:.4g} ms"
    ratio = "" if cell.ratio is None else f" {cell.ratio:.2f}x"
    efficiency = "" if cell.efficiency is None else f" {cell.efficiency:.0%}"
    return f"{value}{ratio}{efficiency}{' *' if cell.best else ''}"


def _foot(comparison: Comparison) -> str:
    return (
        f"Medians; x: speed relative to {comparison.reference}; %: forward pass as a share of the matrix product that "
        "this machine reached in the same session; *: best."
    )


def _drawn(rows: Sequence[Sequence[str]]) -> str:
    drawn = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
    for n, name in enumerate(rows[0]):
        drawn.add_column(Text(plain_text(name)), justify="left" if n == 0 else "right", overflow="fold")
    for row in rows[1:]:
        drawn.add_row(*(Text(plain_text(cell)) for cell in row))
    out = io.StringIO()
    Console(file=out, width=WIDTH).print(drawn)
    return out.getvalue()
