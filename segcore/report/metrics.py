"""The figures of a run as services that keep histories want them: one number each, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from segcore.core.records import TIMED, AccuracyRecord, Benchmark, DatasetRecord, LoadRecord, Run
from segcore.judgement.estimate import own_interval
from segcore.judgement.statistics import usable
from segcore.report.tables import cold_start_s, percentile
from segcore.report.wording import score_words

Unit = Literal["s", "images/s", "queries/s", "share", "bytes", "J"]
_SHOWN: dict[Unit, tuple[str, float]] = {"s": ("ms", 1e3), "share": ("%", 1e2), "bytes": ("MB", 1e-6)}
"""Unit that is shown, and how many of it are in one."""


@dataclass(frozen=True)
class Shown:
    """A figure with its bounds in the unit that is shown."""

    value: float
    unit: str
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Metric:
    """One figure of one item."""

    item: str
    """`BenchmarkRecord.key`, with a note if the weights are random."""
    name: str
    """For example ``latency``, ``mIoU`` or ``peak memory``."""
    value: float
    unit: Unit
    smaller_is_better: bool
    low: float | None = None
    """Lower bound at 95 % confidence, None if there is none."""
    high: float | None = None
    about: str = ""
    """What the figure rests on."""

    @property
    def shown(self) -> Shown:
        """The figure in the unit that people read."""
        unit, factor = _SHOWN.get(self.unit, (self.unit, 1.0))
        value, low, high = (None if v is None else rounded(factor * v) for v in (self.value, self.low, self.high))
        assert value is not None
        return Shown(value, unit, low, high)


def metrics(run: Run) -> tuple[Metric, ...]:
    """Return every figure of a run that a service can draw over time, in the order of the items."""
    return tuple(metric for benchmark in run.benchmarks for metric in item_metrics(benchmark))


def item_metrics(benchmark: Benchmark) -> tuple[Metric, ...]:
    """Return the figures of one item."""
    item = benchmark.info.key + benchmark.info.weights.warning
    return tuple(replace(metric, item=item) for metric in _of_item(benchmark) if math.isfinite(metric.value))


def _of_item(benchmark: Benchmark) -> Iterator[Metric]:
    info = benchmark.info
    if info.kind in TIMED and usable(benchmark.all_samples):
        yield from _speed(benchmark)
    if info.load:
        yield from _load(info.load)
    if info.dataset:
        yield from _dataset(info.dataset)
    elif info.accuracy:
        yield from _accuracy(info.accuracy)
    if info.peak_memory_bytes:
        yield Metric("", "peak memory", info.peak_memory_bytes, "bytes", True)
    if info.joules_per_image is not None and info.energy:
        yield Metric("", "energy per image", info.joules_per_image, "J", True, about=info.energy.counter)
    if info.model_bytes:
        yield Metric("", "model size", info.model_bytes, "bytes", True)
    if build_s := info.first_build_s:
        yield Metric("", "build time", build_s, "s", True)
    if cold_s := cold_start_s(info):
        yield Metric("", "cold start", cold_s, "s", True)


def _speed(benchmark: Benchmark) -> Iterator[Metric]:
    seconds = percentile(benchmark, 0.5)
    if seconds is None:
        return
    rounds, processes = len(benchmark.all_samples), len(benchmark.processes)
    about = f"median of {rounds} rounds in {processes} process{'es' * (processes > 1)}"
    interval = own_interval(benchmark).exp() if rounds > 1 else None
    low, high = (interval.low, interval.high) if interval and math.isfinite(interval.high) else (None, None)
    if benchmark.info.kind == "throughput":
        batch = benchmark.info.batch
        fewest, most = (batch / high, batch / low) if low and high else (None, None)
        yield Metric("", "throughput", batch / seconds, "images/s", False, fewest, most, about)
        return
    yield Metric("", "latency", seconds, "s", True, low, high, about)
    p95 = None if benchmark.info.load else percentile(benchmark, 0.95)
    if p95 is not None:
        yield Metric("", "latency p95", p95, "s", True, about=f"of {rounds} rounds")


def _load(load: LoadRecord) -> Iterator[Metric]:
    about = f"{load.queries} queries"
    if "p99" in load.bounds_s:
        yield Metric("", "latency p99", load.bounds_s["p99"], "s", True, about=f"upper bound, {about}")
    if load.images_per_s:
        yield Metric("", "throughput", load.images_per_s, "images/s", False, about=about)
    if load.highest_rate:
        yield Metric(
            "", "highest rate", load.highest_rate, "queries/s", False, about=f"p99 within {load.max_p99_ms} ms"
        )


def _accuracy(accuracy: AccuracyRecord) -> Iterator[Metric]:
    if accuracy.checks:
        passed = [check.passed for check in accuracy.checks]
        about = f"{sum(passed)} of {len(passed)}"
        yield Metric("", "expectations met", sum(passed) / len(passed), "share", False, about=about)
    for name, value in accuracy.scores.items():
        yield Metric("", name, value, "share", False, about=accuracy.metric or "")


def _dataset(dataset: DatasetRecord) -> Iterator[Metric]:
    for name, value in dataset.scores.items():
        low, high = dataset.intervals[name]
        yield Metric("", score_words(name), value, "share", False, low, high, f"{dataset.images} images")


def rounded(value: float) -> float:
    """Return a figure with six significant digits, as it is written for others."""
    return float(f"{value:.6g}")
