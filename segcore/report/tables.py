"""Tables of a report: every item, failures, checks, datasets, runs side by side, machine and settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np

from segcore.core.errors import UsageError
from segcore.core.records import TIMED, Benchmark, BenchmarkRecord, DatasetRecord, Run
from segcore.core.scores import score_words
from segcore.judgement.compare import achieved, compare
from segcore.judgement.gate.verdict import VERDICTS
from segcore.judgement.statistics import rounds_needed, usable
from segcore.report.comparison import comparison_table
from segcore.report.model import CaseReport, Failure, ReportModel
from segcore.report.table import Cell, Row, Table, Value
from segcore.report.wording import number, run_labels

ITEM_KEYS = {
    "item": "item",
    "median, ms": "median_ms",
    "score, %": "score_percent",
    "verdict": "verdict",
    "run": "run",
    "p95, ms": "p95_ms",
    "images/s": "images_per_s",
    "of peak, %": "of_peak_percent",
    "GMAC/s": "gmacs_per_s",
    "memory, MB": "memory_mb",
    "J/image": "joules_per_image",
    "built, s": "build_s",
    "model, MB": "model_mb",
    "cold start, ms": "cold_start_ms",
    "rounds": "rounds",
}
"""Keys of JSON by column of the table of items, which matter most first: a narrow screen shows three or four."""
ITEM_COLUMNS = tuple(ITEM_KEYS)
OPTIONAL_COLUMNS = ("J/image", "built, s", "model, MB", "cold start, ms")
"""Left out if no item has a value."""


def items_table(report: ReportModel) -> Table:
    """Return a row per item and run."""
    judged = sorted(report.gate.rows if report.gate else (), key=lambda row: -VERDICTS.index(row.verdict))
    worst = {row.item: row.verdict for row in judged}
    rows: list[Row] = []
    for run, name in zip(report.all_runs, run_labels(report.all_runs), strict=True):
        outcomes = {o.key: o.outcome for o in run.record.outcomes if o.key}
        for b in run.benchmarks:
            ended: str = outcomes.get(b.info.key, "")
            verdict: str = worst.get(b.info.key, ended) if run is report.current else ended
            item = f"{b.info.key}{b.info.weights.warning}"
            cells: dict[str, Value] = {"item": item, "run": name, "verdict": verdict, **_figures(run, b)}
            rows.append(tuple(cells[column] for column in ITEM_COLUMNS))
    return Table(ITEM_COLUMNS, tuple(rows)).without_unknown(*OPTIONAL_COLUMNS)


def _figures(run: Run, benchmark: Benchmark) -> dict[str, float | None]:
    info, samples, score = benchmark.info, benchmark.all_samples, accuracy_score(benchmark)
    timed = info.kind in TIMED
    median, p95 = (percentile(benchmark, q) if timed else None for q in (0.5, 0.95))
    reached = achieved(run, benchmark) if median and not info.load else None
    return {
        "median, ms": _times(1e3, median),
        "p95, ms": _times(1e3, p95),
        "images/s": info.load.images_per_s if info.load else info.batch / median if median else None,
        "rounds": float(len(samples)),
        "GMAC/s": reached.gmacs_per_s if reached else None,
        "of peak, %": _times(100, reached.share if reached else None),
        "memory, MB": _times(1e-6, info.peak_memory_bytes or None),
        "J/image": info.joules_per_image,
        "built, s": None if info.runtime == "torch" else info.build_s,
        "model, MB": _times(1e-6, info.model_bytes),
        "cold start, ms": _times(1e3, cold_start_s(info)),
        "score, %": _times(100, score),
    }


def cold_start_s(info: BenchmarkRecord) -> float | None:
    """Return the median seconds of a cold start over the processes in which this item was the first of its model."""
    found = [info.cold_start_s, *(process.cold_start_s for process in info.processes)]
    known = [seconds for seconds in found if seconds is not None]
    return float(np.median(known)) if known else None


def percentile(benchmark: Benchmark, q: float) -> float | None:
    """Return seconds, or None if a percentile other than the median has too few rounds to be bounded on both sides.

    The median is that of the medians of the processes; percentiles are of all their rounds together.
    """
    samples = benchmark.all_samples
    if not usable(samples) or (q != 0.5 and len(samples) < rounds_needed(q)):
        return None
    if q == 0.5:
        return float(np.median([np.quantile(process, q, method="hazen") for process in benchmark.processes]))
    return float(np.quantile(samples, q, method="hazen"))


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value


def accuracy_score(benchmark: Benchmark) -> float | None:
    """Return mIoU (0 to 1) if there is ground truth, else the share of checks that passed; None without either."""
    accuracy = benchmark.info.accuracy
    if accuracy is None:
        return None
    if accuracy.miou is not None:
        return accuracy.miou
    return fmean(check.passed for check in accuracy.checks) if accuracy.checks else None


def failures_table(failures: Sequence[Failure]) -> Table:
    """Return what failed, ended in an error or was skipped, by reason."""
    rows = tuple(
        (
            Cell(failure.outcome, "warn" if failure.outcome == "skipped" else "bad"),
            ", ".join(failure.items),
            failure.reason,
        )
        for failure in failures
    )
    return Table(("outcome", "items", "reason"), rows)


def warnings_table(report: ReportModel) -> Table:
    """Return the warnings about items."""
    return Table(("item", "warning"), report.item_warnings)


def checks_table(cases: Sequence[CaseReport], *, named: bool = True) -> Table:
    """Return what was expected of cases and what was found; `named` adds a column with the case."""
    rows = tuple(
        (
            f"{case.title}, {case.subtitle}",
            check.name,
            check.wanted,
            check.found,
            Cell("passed", "good") if check.passed else Cell("failed", "bad"),
        )
        for case in cases
        for check in case.accuracy.checks
    )
    table = Table(("case", "check", "expected", "found", "result"), rows)
    return table if named else table.without("case")


def side_by_side(runs: Sequence[Run]) -> list[Table]:
    """Return a table of latency and throughput per device and run; none for one device, or if nothing was timed."""
    try:
        comparison = compare(runs)
    except UsageError:  # nothing was timed
        return []
    several = len(comparison.columns) > 1 and comparison.lines
    return [comparison_table(replace(comparison, scores=()))] if several else []


DIFFERENCE = "to published, pp"


def dataset_tables(run: Run, baseline: Run | None) -> tuple[Table, ...]:
    """Return the scores of each dataset with their intervals, beside the baseline's and the published ones."""
    old = {b.info.key: b.info.dataset for b in baseline.benchmarks} if baseline else {}
    found = [(b.info, b.info.dataset) for b in run.benchmarks]
    return tuple(
        _dataset_table(f"{info.model} at {info.size} on {info.device}", dataset, old.get(info.key))
        for info, dataset in found
        if dataset
    )


def _dataset_table(scored: str, dataset: DatasetRecord, before: DatasetRecord | None) -> Table:
    comparable = before if before and (before.protocol, before.sha256) == (dataset.protocol, dataset.sha256) else None
    extra = [("baseline", comparable.scores)] if comparable else []
    extra += [("published", dataset.published)] if dataset.published else []
    rows: list[Row] = []
    for name, value in dataset.scores.items():
        low, high = dataset.intervals[name]
        others = [100 * scores.get(name, math.nan) for _, scores in extra]
        others += [100 * value - others[-1]] if dataset.published else []
        rows.append((score_words(name), 100 * value, 100 * low, 100 * high, *others))
    columns = ["score", "%", "low, %", "high, %", *(f"{name}, %" for name, _ in extra)]
    columns += [DIFFERENCE] if dataset.published else []
    formats = dict.fromkeys(columns, "{:.2f}".format) | {DIFFERENCE: "{:+.2f}".format}
    notes = tuple(f"not scored: {name}: {reason}" for name, reason in dataset.failed.items())
    title = f"{dataset.name}, {dataset.images:,} images, {scored}, protocol {dataset.protocol}"
    return Table(tuple(columns), tuple(rows), title, notes, formats=formats)


def facts(run: Run) -> tuple[tuple[str, str], ...]:
    """Return the machine and settings of a run as names and values."""
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
        *(("labels", f"{labels.name}: {len(labels.names)} classes") for labels in record.labels),
    ]
    for c in record.calibration:
        product = f"matrix product {number(c.matmul_gmacs_per_s)}"
        products = f"{product}, convolution {number(c.conv_gmacs_per_s)}" if c.conv_gmacs_per_s else product
        tf32 = "" if c.tf32 is None else f", TF32 {'on' if c.tf32 else 'off'}"
        value = f"{products} GMAC/s{tf32}, copy {number(c.copy_gbytes_per_s)} GB/s"
        found.append((f"peak of {c.device} in {c.precision}", value))
    found += [*record.conditions.items(), *record.versions.items()]
    if record.git:
        found.append(("commit", record.git.commit + (", with local changes" if record.git.dirty else "")))
        found.append(("branch", record.git.branch or "detached"))
    return tuple(found)
