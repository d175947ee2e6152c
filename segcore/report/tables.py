"""The tables of a report: every item, runs side by side, datasets, and where it all took place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segcore.core.errors import UsageError
from segcore.core.records import Benchmark, DatasetRecord, Run
from segcore.judgement.compare import achieved, compare
from segcore.judgement.gate.verdict import VERDICTS
from segcore.judgement.statistics import rounds_needed, usable
from segcore.report.charts import Cells, accuracy_score, run_labels
from segcore.report.model import ReportModel
from segcore.report.wording import milliseconds, number


@dataclass(frozen=True)
class Table:
    """Columns and rows; floats are numbers in the column's unit, NaN where there is none."""

    columns: tuple[str, ...]
    rows: tuple[Cells, ...]
    title: str = ""
    notes: tuple[str, ...] = ()


ITEM_COLUMNS = (
    "item",
    "run",
    "verdict",
    "median, ms",
    "p95, ms",
    "images/s",
    "rounds",
    "GMAC/s",
    "of peak, %",
    "memory, MB",
    "J/image",
    "built, s",
    "score, %",
)
SOMETIMES = ("J/image", "built, s")
"""Columns that are left out where no item has a figure."""


def items_table(story: ReportModel) -> Table:
    """Return one row per item and run; columns of `SOMETIMES` only where there is something in them."""
    gate_rows = sorted(story.gate.rows if story.gate else (), key=lambda row: -VERDICTS.index(row.verdict))
    worst = {row.item: row.verdict for row in gate_rows}
    rows: list[Cells] = []
    for run, name in zip(story.all_runs, run_labels(story.all_runs), strict=True):
        outcomes = {o.key: o.outcome for o in run.record.outcomes if o.key}
        for b in run.benchmarks:
            ended: str = outcomes.get(b.info.key, "")
            verdict: str = worst.get(b.info.key, ended) if run is story.current else ended
            rows.append((f"{b.info.key}{b.info.weights.warning}", name, verdict, *_figures(run, b)))
    kept = [
        place
        for place, name in enumerate(ITEM_COLUMNS)
        if name not in SOMETIMES or not all(math.isnan(float(row[place])) for row in rows)
    ]
    return Table(tuple(ITEM_COLUMNS[k] for k in kept), tuple(tuple(row[k] for k in kept) for row in rows))


def _figures(run: Run, benchmark: Benchmark) -> tuple[float, ...]:
    info, samples, score = benchmark.info, benchmark.samples, accuracy_score(benchmark)
    memory = info.peak_memory_bytes / 1e6 if info.peak_memory_bytes else math.nan
    median = p95 = images = rate = share = math.nan
    if info.kind in ("latency", "throughput") and usable(samples):
        median = float(np.median(samples))
        images = info.batch / median
        p95 = float(np.quantile(samples, 0.95, method="hazen")) if len(samples) >= rounds_needed(0.95) else math.nan
        rate, share = achieved(run, benchmark) or (math.nan, math.nan)
    joules = math.nan if info.joules_per_image is None else info.joules_per_image
    built = math.nan if info.build_s is None or info.runtime == "torch" else info.build_s
    shown_score = math.nan if score is None else 100 * score
    return median * 1e3, p95 * 1e3, images, float(len(samples)), rate, 100 * share, memory, joules, built, shown_score


def side_by_side(runs: Sequence[Run]) -> Table | None:
    """Return latency, speed ratio and share of the calibrated peak per device and run; None where there is only one."""
    try:
        comparison = compare(runs)
    except UsageError:  # nothing was timed
        return None
    if len(comparison.columns) < 2 or not comparison.lines:
        return None
    rows: list[Cells] = []
    for line in comparison.lines:
        cells: list[str] = []
        for column in comparison.columns:
            cell = line.cells.get(column.label)
            if cell is None:
                cells.append("")
                continue
            throughput = line.kind == "throughput"
            parts = [f"{number(cell.images_per_s)} images/s" if throughput else milliseconds(cell.seconds)]
            parts += [f"{cell.ratio:.2f}x"] if cell.ratio is not None and column.label != comparison.reference else []
            parts += [f"{cell.efficiency:.0%} of peak"] if cell.efficiency is not None else []
            cells.append(("★ " if cell.best else "") + ", ".join(parts))
        rows.append((line.title, *cells))
    machines: dict[str, list[str]] = {}
    for column in comparison.columns:
        machines.setdefault(column.machine, []).append(column.label)
    notes = tuple(f"{', '.join(labels)}: {machine}" for machine, labels in machines.items())
    return Table(("work", *(column.label for column in comparison.columns)), tuple(rows), notes=notes)


def dataset_tables(run: Run, baseline: Run | None) -> tuple[Table, ...]:
    """Return the scores of each dataset with their intervals, beside the baseline's and the published ones."""
    old = {b.info.key: b.info.dataset for b in baseline.benchmarks} if baseline else {}
    found = [(b.info, b.info.dataset) for b in run.benchmarks]
    return tuple(
        _dataset_table(f"{info.model} at {info.size} on {info.device}", dataset, old.get(info.key))
        for info, dataset in found
        if dataset
    )


def _dataset_table(who: str, dataset: DatasetRecord, before: DatasetRecord | None) -> Table:
    comparable = before if before and (before.protocol, before.sha256) == (dataset.protocol, dataset.sha256) else None
    extra = [("baseline", comparable.scores)] if comparable else []
    extra += [("published", dataset.published)] if dataset.published else []
    rows: list[Cells] = []
    for name, value in dataset.scores.items():
        low, high = dataset.intervals.get(name, (math.nan, math.nan))
        others = (100 * scores.get(name, math.nan) for _, scores in extra)
        rows.append((name.replace("_", " "), 100 * value, 100 * low, 100 * high, *others))
    columns = ("score", "%", "low, %", "high, %", *(f"{name}, %" for name, _ in extra))
    notes = tuple(f"not scored: {name}: {reason}" for name, reason in dataset.failed.items())
    title = f"{dataset.name}, {dataset.images:,} images, {who}, protocol {dataset.protocol}"
    return Table(columns, tuple(rows), title, notes)


def facts(run: Run) -> tuple[tuple[str, str], ...]:
    """Return where and with what a run took place, as names and values."""
    record, machine = run.record, run.record.machine
    found = [
        ("started", record.started),
        ("took", f"{number(record.duration_s)} s"),
        ("command", " ".join(record.command)),
        ("processor", machine.cpu),
        ("cores", f"{machine.cores_usable} usable of {machine.cores_physical or 'unknown'} physical"),
        ("CPU quota", "none" if machine.cgroup_cpus is None else f"{machine.cgroup_cpus:g} processors"),
        ("memory", f"{machine.memory_bytes / 2**30:.1f} GiB"),
        ("instruction sets", " ".join(machine.instruction_sets)),
        *(("accelerator", f"{gpu.name}, driver {gpu.driver}") for gpu in machine.gpus),
        ("system", f"{machine.system}, {machine.python}"),
        ("threads", f"{machine.intra_op_threads} within, {machine.inter_op_threads} between operators"),
        *machine.thread_settings.items(),
        ("torch build", machine.torch_build),
        *(
            (f"peak of {c.device}", _peak(c.matmul_gmacs_per_s, c.conv_gmacs_per_s, c.copy_gbytes_per_s))
            for c in record.calibration
        ),
        *record.conditions.items(),
        *record.versions.items(),
    ]
    if record.git:
        found.append(("commit", record.git.commit + (", with local changes" if record.git.dirty else "")))
        found.append(("branch", record.git.branch or "detached"))
    return tuple(found)


def _peak(matmul: float, conv: float, copy: float) -> str:
    return f"matrix product {number(matmul)}, convolution {number(conv)} GMAC/s, copy {number(copy)} GB/s"
