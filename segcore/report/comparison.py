"""Comparisons and histories as tables."""

from __future__ import annotations

from collections import defaultdict

from segcore.core.scores import score_words
from segcore.judgement.compare import Cell, Comparison, Line, ScoreCell, ScoreLine
from segcore.judgement.history import Series
from segcore.report import table
from segcore.report.table import Table
from segcore.report.wording import milliseconds, number

_WORK = ("kind", "model", "runtime", "size", "batch", "cases", "dataset", "images", "protocol", "score")
_FIGURES = ("seconds", "images_per_s", "ratio", "gmacs_per_s", "efficiency", "disturbed")
_SCORES = ("what", "share", "low", "high", "difference", "difference_low", "difference_high", "best")


def comparison_table(comparison: Comparison) -> Table:
    """Return a row per kind of work and per mean score of a dataset, a column per device and run."""
    labels = [column.label for column in comparison.columns]
    means = [line for line in comparison.scores if not line.score.startswith("iou ")]
    timed = []
    for line in comparison.lines:
        cases = f"{len(line.cases)} case{'s' * (len(line.cases) != 1)}" if line.cases else "no common case"
        times = (_time(line.kind, line.cells.get(label), label == comparison.reference) for label in labels)
        timed.append((f"{line.title} ({cases})", *times))
    scored = [
        (
            f"{score_words(line.score)} on {line.dataset} ({line.images} images), {line.protocol}",
            *(_score(line.cells.get(label)) for label in labels),
        )
        for line in means
    ]
    machines: dict[str, list[str]] = defaultdict(list)
    for column in comparison.columns:
        machines[column.machine].append(column.label)
    notes = [f"{', '.join(on)}: {machine}" for machine, on in machines.items()]
    if comparison.without:
        notes.append(f"not shown, has no times and no dataset scores: {', '.join(comparison.without)}")
    if timed:
        notes.append(
            f"Medians; x: speed relative to {comparison.reference}; of peak: the forward pass "
            "as a share of the fastest product that this machine reached in the same session and precision; *: best."
        )
    if scored:
        notes.append(
            f"Scores with 95% confidence intervals over images, and the difference to {comparison.reference} in "
            "percentage points [with its interval, image by image]; *: best."
        )
    return Table(("work", *labels), (*timed, *scored), notes=tuple(notes), right=tuple(labels))


def cells_table(comparison: Comparison) -> Table:
    """Return a row per cell, with every figure, for CSV; what does not apply is unknown."""
    columns = (*_WORK, "column", "machine", *_FIGURES, *_SCORES)
    rows: list[table.Row] = []
    lines: list[Line | ScoreLine] = [*comparison.lines, *comparison.scores]
    for line in lines:
        for column in comparison.columns:
            if cell := line.cells.get(column.label):
                fields = {"kind": "dataset", **vars(line), **vars(cell)}
                fields |= {"column": column.label, "machine": column.machine}
                fields |= {"cases": " ".join(line.cases)} if isinstance(line, Line) else {}
                rows.append(tuple(fields.get(name) for name in columns))
    return Table(columns, tuple(rows))


def history_table(series: Series) -> Table:
    """Return the runs of one item over time, change points marked."""
    rows = tuple(
        (
            point.started[:16],
            point.run,
            point.commit,
            milliseconds(point.seconds),
            "" if point.change is None else f"<- {point.change:+.1%} from here on",
        )
        for point in series.points
    )
    columns = ("started", "run", "commit", "median", "change point")
    return Table(columns, rows, f"{series.item} on {series.machine}", right=("median",))


def _time(kind: str, cell: Cell | None, reference: bool) -> str | None:
    if cell is None:
        return None
    parts = [f"{number(cell.images_per_s)} images/s" if kind == "throughput" else milliseconds(cell.seconds)]
    parts += [f"{cell.ratio:.2f}x"] if cell.ratio is not None and not reference else []
    parts += [f"{cell.efficiency:.0%} of peak"] if cell.efficiency is not None else []
    parts += ["calibration disturbed"] if cell.disturbed else []
    return ", ".join(parts) + " *" * cell.best


def _score(cell: ScoreCell | None) -> str | None:
    if cell is None:
        return None
    difference = "" if cell.difference is None else f" {100 * cell.difference:+.2f}"
    if cell.difference_low is not None and cell.difference_high is not None:
        difference += f" [{100 * cell.difference_low:+.2f}, {100 * cell.difference_high:+.2f}]"
    return (
        f"{cell.what}: {cell.share:.2%} ({100 * cell.low:.1f} to {100 * cell.high:.1f}){difference}{' *' * cell.best}"
    )
