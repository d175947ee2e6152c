"""Accuracy, latency, throughput, load, backends and layers in int8 of one run as tables."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from statistics import fmean, median

from segcore.core.record_accuracy import ParityRecord
from segcore.core.record_int8 import Int8Record, LayerRecord
from segcore.core.records import AccuracyRecord, Benchmark, BenchmarkRecord, LoadRecord, Run, Validity
from segcore.judgement.estimate import run_log_quantile
from segcore.judgement.statistics import usable
from segcore.report.table import Cell, Row, Table, Tone
from segcore.report.tables import percentile
from segcore.report.wording import identity, model_name, number

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

_BACKEND_FORMATS: dict[str, Callable[[float], str]] = {
    "ms": "{:.1f}".format,
    "speedup": "{:.2f}".format,
    "memory, MB": "{:.0f}".format,
    "build, s": "{:.1f}".format,
    "changed": "{:.3%}".format,
    "logit error": "{:.2%}".format,
}
_DETAILS = ("margin halved %", "classes")
"""Columns of the table of layers that narrow terminals have no room for."""
NAMED = 3
"""Classes that are named of each layer."""
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
    tables = [_table(title, [b.info for b in shown], *figures) for title, shown, figures in found if shown]
    return [
        *tables,
        *backends_tables(run),
        *load_tables(run),
        *(int8_table(record, LAYERS, brief=True) for record in run.record.int8),
    ]


def load_tables(run: Run) -> list[Table]:
    """Return a table of the load items with bounds on their percentiles; none if there are no such items."""
    infos = [b.info for b in run.benchmarks if b.info.load]
    note = "Percentiles are upper bounds at 99 % confidence. The rate of a search is the highest that keeps the limit."
    return [replace(_table("Load", infos, *_load(infos)), notes=(note,))] if infos else []


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


def backends_tables(run: Run) -> list[Table]:
    """Return a table for each model, device and size of a run whose latency was measured on two backends or more."""
    groups: dict[tuple[str, str, int], list[Benchmark]] = defaultdict(list)
    for benchmark in run.benchmarks:
        groups[model_name(benchmark.info), benchmark.info.device, benchmark.info.size].append(benchmark)
    return [table for group, items in groups.items() for table in _backends(*group, items)]


def _backends(model: str, device: str, size: int, items: Sequence[Benchmark]) -> list[Table]:
    timed: dict[tuple[str, str], dict[str, Benchmark]] = defaultdict(dict)
    parities: dict[tuple[str, str], list[ParityRecord]] = defaultdict(list)
    for item in items:
        info = item.info
        if info.kind == "latency" and usable(item.all_samples):
            timed[info.runtime, info.precision][info.case] = item
        if info.accuracy and info.accuracy.parity:
            parities[info.runtime, info.precision].append(info.accuracy.parity)
    if len(timed) < 2:
        return []
    shared = set.intersection(*map(set, timed.values()))
    base = ("torch", "fp32") if ("torch", "fp32") in timed else next(iter(timed))
    seconds = {}
    for backend, by_case in timed.items() if shared else ():
        seconds[backend] = math.exp(fmean(run_log_quantile(by_case[case], 0.5) for case in shared))
    rows: list[Row] = []
    for backend, by_case in timed.items():
        own = seconds.get(backend)
        tone: Tone = "good" if own and own == min(seconds.values()) else ""
        times = (1e3 * own, seconds[base] / own) if own else (None, None)
        figures = _costs([item.info for item in by_case.values()]), _parity(parities[backend])
        rows.append((*(Cell(name, tone) for name in backend), *times, *chain(*figures)))
    cases = f"{len(shared)} case{'s' * (len(shared) != 1)}" if shared else "no common case"
    on_cpu, on_gpu = "largest resident set of the process, with all else in it", "most that torch's allocator held"
    notes = (
        f"ms: median latency, geometric mean of {cases}; speedup: over {' '.join(base)}.",
        f"memory: {on_cpu if device == 'cpu' else f'{on_gpu}, unknown for graphs'}; "
        "build: export, quantisation and compiling.",
        "changed: pixels of another class where the reference was sure, largest of all cases; logit error: largest, as "
        "a share of the largest logit. Both are unknown without accuracy items.",
    )
    title = f"Backends (model {model}, device {device}, size {size})"
    columns = ("runtime", "precision", *_BACKEND_FORMATS)
    return [Table(columns, tuple(rows), title, notes, formats=_BACKEND_FORMATS)]


def _costs(infos: Sequence[BenchmarkRecord]) -> tuple[float | None, float | None]:
    """Return megabytes of memory and seconds of building."""
    memory = max(info.peak_memory_bytes or 0 for info in infos)
    build_s = None if infos[0].runtime == "torch" else max(info.build_s or 0.0 for info in infos)
    return memory / 1e6 or None, build_s


def _parity(found: Sequence[ParityRecord]) -> tuple[float | None, float | None]:
    errors = [parity.logit_error for parity in found if parity.logit_error is not None]
    return max((parity.unlike for parity in found), default=None), max(errors, default=None)


def int8_table(record: Int8Record, most: int | None = None, *, brief: bool = False) -> Table:
    """Return the layers of a network, those that stay in fp32 first and then those that change most.

    Of those in int8, at most `most` are shown; `brief`, for narrow terminals, is without margins and classes.
    """
    order = sorted(record.layers, key=lambda layer: (not layer.kept, -layer.changed))
    shown = order if most is None else order[: len(record.kept) + most]
    left_out = len(order) - len(shown)
    more = (f"{left_out} more layers in int8 change fewer pixels.",) if left_out else ()
    table = Table(
        ("layer", "kind", "time %", "changed %", "margin halved %", "mIoU drop", "classes", "stays in"),
        tuple(map(_layer_row, shown)),
        f"int8 of {record.model}: {len(record.kept)} of {len(record.layers)} layers stay in fp32",
        notes=(
            *more,
            "changed, margin halved, mIoU drop: what the layer does alone in int8, against fp32.",
            f"time: share of the operators' time in int8, {record.runtime}.",
            f"mIoU drop by {record.truth}: {record.plain_drop:.4f} all in int8, {record.drop:.4f} like this; "
            f"limit {record.limit:g}; {record.evaluations} mixtures measured.",
        ),
        formats={
            **dict.fromkeys(("time %", "changed %", "margin halved %"), lambda share: f"{100 * share:.2f}"),
            "mIoU drop": "{:.4f}".format,
        },
    )
    return table.without(*_DETAILS) if brief else table


def _layer_row(layer: LayerRecord) -> Row:
    named = ", ".join(f"{name} {loss:.3f}" for name, loss in list(layer.classes.items())[:NAMED])
    stays = Cell("fp32", "warn") if layer.kept else Cell("int8")
    name = layer.module or layer.name
    return (name, layer.kind, layer.time, layer.changed, layer.halved, layer.damage, named, stays)
