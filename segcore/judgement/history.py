"""The runs of a store over time, item by item, and where their latency changed for good."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segcore.core.records import BenchmarkRecord, MachineRecord, Run
from segcore.judgement.statistics import Floats, ProcessNoise, log_quantile, noise_of_history, usable

TIMED = ("latency", "throughput")
MIN_SEGMENT = 3
"""Runs on each side of a change point: fewer are an outlier, not a change."""


@dataclass(frozen=True)
class Point:
    """One run of one item."""

    run: str
    started: str
    commit: str
    seconds: float
    """Median."""
    change: float | None
    """Where a change point lies before this run: the ratio of the level from here on to that before, minus one."""


@dataclass(frozen=True)
class Series:
    """One item on one machine over time, oldest first."""

    item: str
    machine: str
    points: tuple[Point, ...]


def history(runs: Sequence[Run], name: str | None = None) -> tuple[Series, ...]:
    """Return the timed items of the runs over time, each machine and set of weights apart, with change points.

    Args:
        runs: in any order; they are put in that of their start.
        name: only runs saved under this name, or items whose key contains it; all when None.
    """
    ordered = sorted(runs, key=lambda run: (run.record.started, str(run.path)))
    found: dict[tuple[str, str, str], list[tuple[Run, float]]] = {}
    for run in ordered:
        for benchmark in run.benchmarks:
            info = benchmark.info
            wanted = name is None or name == run.name or name in info.key
            if wanted and info.kind in TIMED and usable(benchmark.samples):
                key = (info.key, run.record.machine.model_dump_json(), info.weights.sha256)
                found.setdefault(key, []).append((run, log_quantile(benchmark.samples, 0.5)))
    return tuple(_series(key[0], entries[0][0].record.machine, entries) for key, entries in sorted(found.items()))


def learned_noise(runs: Sequence[Run], machine: MachineRecord, info: BenchmarkRecord) -> ProcessNoise | None:
    """Return the noise between processes that the runs of one item on one machine show, None where they are too few."""
    logs = [
        log_quantile(benchmark.samples, 0.5)
        for run in sorted(runs, key=lambda run: (run.record.started, str(run.path)))
        if run.record.machine == machine
        for benchmark in run.benchmarks
        if benchmark.info.key == info.key and benchmark.info.weights == info.weights and usable(benchmark.samples)
    ]
    return noise_of_history(logs)


def change_points(values: Sequence[float]) -> list[int]:
    """Return the indices at which a series steps to another level, in order.

    Least squares by optimal partitioning (Jackson et al. 2005, IEEE Signal Processing Letters 12:105): the cheapest
    cut into pieces of constant mean, where a piece costs its squared deviations and each cut a penalty of
    4 * sigma^2 * log n (Yao 1988, Statistics & Probability Letters 6:181, has 2 as the least that is consistent; 4
    allows for tails). Sigma is estimated from the median of |successive differences|, which steps hardly move. Single
    outliers are taken out first by a running median of three (Tukey 1977), which leaves steps where they are.
    """
    x: Floats = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2 * MIN_SEGMENT:
        return []
    sigma = float(np.median(np.abs(np.diff(x)))) / (0.6745 * math.sqrt(2))
    triples = np.stack([x[:-2], x[1:-1], x[2:]])
    x = np.pad(np.median(triples, axis=0), 1, mode="edge")
    penalty = 4 * max(sigma, 1e-3) ** 2 * math.log(n)  # a run is not repeatable to better than 0.1 %
    sums, squares = np.concatenate([[0.0], np.cumsum(x)]), np.concatenate([[0.0], np.cumsum(x * x)])
    cost = np.full(n + 1, math.inf)
    cost[0] = -penalty
    last = np.zeros(n + 1, dtype=int)
    for end in range(MIN_SEGMENT, n + 1):
        starts = np.arange(0, end - MIN_SEGMENT + 1)
        total = sums[end] - sums[starts]
        piece = squares[end] - squares[starts] - total * total / (end - starts)
        candidates = cost[starts] + piece + penalty
        last[end] = int(starts[int(np.argmin(candidates))])
        cost[end] = float(candidates.min())
    cuts: list[int] = []
    while (n := int(last[n])) > 0:
        cuts.append(n)
    return cuts[::-1]


def _series(item: str, machine: MachineRecord, entries: Sequence[tuple[Run, float]]) -> Series:
    logs = np.array([value for _, value in entries])
    cuts = [0, *change_points(logs.tolist()), len(logs)]
    changes: dict[int, float] = {}
    for before, here, after in zip(cuts, cuts[1:], cuts[2:], strict=False):
        changes[here] = math.expm1(float(logs[here:after].mean() - logs[before:here].mean()))
    points = tuple(
        Point(
            run=run.name,
            started=run.record.started,
            commit=run.record.git.commit[:10] if run.record.git else "",
            seconds=math.exp(value),
            change=changes.get(index),
        )
        for index, (run, value) in enumerate(entries)
    )
    accelerators = " + ".join(gpu.name for gpu in machine.gpus)
    return Series(item, f"{accelerators or machine.cpu}, {machine.intra_op_threads} threads", points)
