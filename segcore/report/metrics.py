"""The figures of a run as services that keep histories want them: one number each, and which way is better."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

from segcore.core.records import TIMED, AccuracyRecord, Benchmark, DatasetRecord, LoadRecord, Run
from segcore.core.scores import score_words
from segcore.judgement.estimate import own_interval
from segcore.judgement.statistics import usable
from segcore.report.tables import cold_start_s, percentile

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
    about: str = ""
    """What the figure rests on."""
    low: float | None = None
    """Lower bound at 95 % confidence, None if there is none."""
    high: float | None = None

    @property
    def smaller_is_better(self) -> bool:
        """Whether it is a time, a size or an energy, rather than a rate or a share."""
        return self.unit in ("s", "bytes", "J")

    @property
    def shown(self) -> Shown:
        """The figure in the unit that people read."""
        unit, factor = _SHOWN.get(self.unit, (self.unit, 1.0))
        low, high = (None if bound is None else rounded(factor * bound) for bound in (self.low, self.high))
        return Shown(rounded(factor * self.value), unit, low, high)


def metrics(run: Run) -> tuple[Metric, ...]:
    """Return every figure of a run that a service can draw over time, in the order of the items."""
    return tuple(metric for benchmark in run.benchmarks for metric in item_metrics(benchmark))


def item_metrics(benchmark: Benchmark) -> tuple[Metric, ...]:
    """Return the figures of one item."""
    metric = partial(Metric, benchmark.info.key + benchmark.info.weights.warning)
    return tuple(found for found in _of_item(benchmark, metric) if math.isfinite(found.value))


def _of_item(benchmark: Benchmark, metric: partial[Metric]) -> Iterator[Metric]:
    info = benchmark.info
    if info.kind in TIMED and usable(benchmark.all_samples):
        yield from _speed(benchmark, metric)
    if info.load:
        yield from _load(info.load, metric)
    if info.dataset:
        yield from _dataset(info.dataset, metric)
    elif info.accuracy:
        yield from _accuracy(info.accuracy, metric)
    if info.peak_memory_bytes:
        yield metric("peak memory", info.peak_memory_bytes, "bytes")
    if info.joules_per_image is not None and info.energy:
        yield metric("energy per image", info.joules_per_image, "J", info.energy.counter)
    if info.model_bytes:
        yield metric("model size", info.model_bytes, "bytes")
    if build_s := info.first_build_s:
        yield metric("build time", build_s, "s")
    if cold_s := cold_start_s(info):
        yield metric("cold start", cold_s, "s")


def _speed(benchmark: Benchmark, metric: partial[Metric]) -> Iterator[Metric]:
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
        yield metric("throughput", batch / seconds, "images/s", about, fewest, most)
        return
    yield metric("latency", seconds, "s", about, low, high)
    p95 = None if benchmark.info.load else percentile(benchmark, 0.95)
    if p95 is not None:
        yield metric("latency p95", p95, "s", f"of {rounds} rounds")


def _load(load: LoadRecord, metric: partial[Metric]) -> Iterator[Metric]:
    about = f"{load.queries} queries"
    if "p99" in load.bounds_s:
        yield metric("latency p99", load.bounds_s["p99"], "s", f"upper bound, {about}")
    if load.images_per_s:
        yield metric("throughput", load.images_per_s, "images/s", about)
    if load.highest_rate:
        yield metric("highest rate", load.highest_rate, "queries/s", f"p99 within {load.max_p99_ms} ms")


def _accuracy(accuracy: AccuracyRecord, metric: partial[Metric]) -> Iterator[Metric]:
    if accuracy.checks:
        passed = [check.passed for check in accuracy.checks]
        yield metric("expectations met", sum(passed) / len(passed), "share", f"{sum(passed)} of {len(passed)}")
    for name, value in accuracy.scores.items():
        yield metric(name, value, "share", accuracy.metric or "")


def _dataset(dataset: DatasetRecord, metric: partial[Metric]) -> Iterator[Metric]:
    for name, value in dataset.scores.items():
        yield metric(score_words(name), value, "share", f"{dataset.images} images", *dataset.intervals[name])


def rounded(value: float) -> float:
    """Return a figure with six significant digits, as it is written for others."""
    return float(f"{value:.6g}")
