"""Accuracy, latency, throughput and load of one run as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from segcore.core.records import AccuracyRecord, Benchmark, BenchmarkRecord, LoadRecord, Run, Validity
from segcore.report.backends import backends_tables
from segcore.report.int8 import int8_table
from segcore.report.table import Cell, Row, Table, Tone
from segcore.report.tables import percentile
from segcore.report.wording import identity, number

_FORMATS: dict[str, Callable[[float], str]] = {
    "%": lambda share: f"{100 * share:.1f}",
    "mIoU %": lambda share: f"{100 * share:.1f}",
    "forward %": lambda share: f"{100 * share:.0f}",
    **dict.fromkeys(("p50", "p90", "p99", "p50, ms", "p90, ms", "p99, ms"), lambda seconds: number(1e3 * seconds)),
}
_COLUMNS = ("case", "model", "runtime", "precision", "device", "size", "threads")
_TONES: dict[Validity, Tone] = {"valid": "good", "invalid": "bad", "undecided": "warn"}
_ALWAYS = ("case", "model", "size")
"""Columns of a table with a single row."""

LAYERS = 5
"""Layers in int8 that the table of a run shows beside those that stay in fp32."""

Figures = tuple[tuple[str, ...], list[Row]]
"""Columns and rows without those that identify the item."""


def run_tables(run: Run) -> list[Table]:
    """Return a table for each kind of item in the run; what is the same in all rows is in its title."""
    items = {kind: [b for b in run.benchmarks if b.info.kind == kind] for kind in ("accuracy", "latency", "throughput")}
    batches: dict[tuple[str, ...], list[Benchmark]] = defaultdict(list)
    for benchmark in items["throughput"]:
        batches[tuple(identity(benchmark.info)[name] for name in _COLUMNS)].append(benchmark)
    found = (
        ("Accuracy", items["accuracy"], _accuracy(items["accuracy"])),
        ("Latency, ms", items["latency"], _latency(items["latency"])),
        ("Throughput, images per second", [same[0] for same in batches.values()], _throughput(list(batches.values()))),
    )
    load = load_table(run)
    tables = [_table(title, [b.info for b in shown], *figures) for title, shown, figures in found if shown]
    return [
        *tables,
        *backends_tables(run),
        *([load] if load else []),
        *(int8_table(record, LAYERS, brief=True) for record in run.record.int8),
    ]


def load_table(run: Run) -> Table | None:
    """Return the load items with bounds on their percentiles; None if there are none."""
    infos = [b.info for b in run.benchmarks if b.info.load]
    if not infos:
        return None
    note = "Percentiles are upper bounds at 99 % confidence. The rate of a search is the highest that keeps the limit."
    return replace(_table("Load", infos, *_load(infos)), notes=(note,))


def _table(title: str, infos: Sequence[BenchmarkRecord], columns: tuple[str, ...], rows: list[Row]) -> Table:
    parts = {name: [identity(info)[name] for info in infos] for name in _COLUMNS}
    varying = [name for name in parts if len(set(parts[name])) > 1 or (name in _ALWAYS and len(infos) == 1)]
    common = ", ".join(f"{name} {parts[name][0]}" for name in parts if name not in varying and parts[name][0])
    return Table(
        (*varying, *columns),
        tuple((*(parts[name][n] for name in varying), *row) for n, row in enumerate(rows)),
        f"{title} ({common})" if common else title,
        right=("size", "threads", "checks"),
        formats=_FORMATS,
    ).without_unknown("mIoU %", "p90", "p99", "J/image")


def _accuracy(benchmarks: Sequence[Benchmark]) -> Figures:
    rows: list[Row] = []
    for record in (b.info.accuracy or AccuracyRecord(dominant="", fractions={}) for b in benchmarks):
        checks = f"{sum(check.passed for check in record.checks)}/{len(record.checks)}"
        result = Cell("passed", "good") if record.passed else Cell("FAILED", "bad")
        rows.append((record.dominant, record.fractions.get(record.dominant), record.miou, checks, result))
    return ("dominant", "%", "mIoU %", "checks", "result"), rows


def _latency(benchmarks: Sequence[Benchmark]) -> Figures:
    rows: list[Row] = []
    for benchmark in benchmarks:
        p50, p90, p99 = (percentile(benchmark, q) for q in (0.5, 0.9, 0.99))
        forward = benchmark.info.stages.get("forward")
        share = median(forward) / median(benchmark.samples) if forward and p50 else None  # of the main process
        rows.append((p50, p90, p99, share, len(benchmark.all_samples), benchmark.info.joules_per_image))
    return ("p50", "p90", "p99", "forward %", "rounds", "J/image"), rows


def _throughput(groups: Sequence[Sequence[Benchmark]]) -> Figures:
    sizes = sorted({benchmark.info.batch for same in groups for benchmark in same})
    rows: list[Row] = []
    for same in groups:
        seconds = {b.info.batch: percentile(b, 0.5) for b in same}
        rows.append(tuple(size / s if (s := seconds.get(size)) else None for size in sizes))
    return tuple(f"batch {size}" for size in sizes), rows


def _load(infos: Sequence[BenchmarkRecord]) -> Figures:
    rows: list[Row] = []
    for info in infos:
        load = info.load or LoadRecord(seed=0, queries=0)
        limit = f"{load.validity}: p99 within {number(load.max_p99_ms)} ms" if load.max_p99_ms else ""
        rows.append(
            (
                f"{info.scenario} {info.batch}" if info.batch > 1 else str(info.scenario),
                load.queries,
                load.bounds_s.get("p50"),
                load.bounds_s.get("p90"),
                load.bounds_s.get("p99"),
                load.images_per_s,
                load.highest_rate if load.rate is None else load.rate,
                Cell(limit, _TONES[load.validity] if load.validity else ""),
            )
        )
    return ("scenario", "queries", "p50, ms", "p90, ms", "p99, ms", "images/s", "queries/s", "limit"), rows
