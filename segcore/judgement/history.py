"""The runs of a store over time, item by item, with the points where latency changed for good."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from segcore.core.records import TIMED, BenchmarkRecord, MachineRecord, Run
from segcore.judgement.estimate import run_log_quantile
from segcore.judgement.statistics import Floats, ProcessNoise, noise_of_history, successive_sd, usable
from segcore.results.machines import machine_labels
from segcore.results.naming import pulled_from

LEARN_FROM = 15
"""Number of latest runs of an item from which the noise between processes is learned."""
MIN_SEGMENT = 3
"""Fewest runs on each side of a change point: fewer are an outlier, not a change."""


@dataclass(frozen=True)
class Point:
    """One run of one item."""

    run: str
    started: str
    commit: str
    seconds: float
    """Median."""
    change: float | None
    """At a change point, the ratio of the level from this run on to that before, minus one."""


@dataclass(frozen=True)
class Series:
    """One item on one machine over time, oldest first."""

    item: str
    machine: str
    points: tuple[Point, ...]


def history(runs: Sequence[Run], name: str | None = None) -> tuple[Series, ...]:
    """Return the timed items of the runs over time with change points, one series per machine and set of weights.

    `name` restricts them to runs saved under it, and to items whose key contains it.
    """
    machines = dict(zip(map(id, runs), _machines(runs), strict=True))
    found: dict[tuple[str, str, str, str], list[tuple[Run, float]]] = {}
    for run, info, log_median in _log_medians(runs):
        if info.kind in TIMED and (name is None or name == run.name or name in info.key):
            key = (info.key, machines[id(run)], run.record.machine.model_dump_json(), info.weights.sha256)
            found.setdefault(key, []).append((run, log_median))
    ordered = sorted(found.items(), key=lambda entry: entry[0])
    return tuple(_series(item, machine, entries) for (item, machine, *_), entries in ordered)


def _machines(runs: Sequence[Run]) -> list[str]:
    """Return the machine of each run, with its threads: by name if runs of other machines are among them."""
    if any(pulled_from(run.path) for run in runs):
        named = machine_labels(runs)
    else:
        machines = [run.record.machine for run in runs]
        named = tuple(" + ".join(gpu.name for gpu in machine.gpus) or machine.cpu for machine in machines)
    return [f"{name}, {run.record.machine.intra_op_threads} threads" for name, run in zip(named, runs, strict=True)]


def learned_noise(runs: Sequence[Run], machine: MachineRecord, info: BenchmarkRecord) -> ProcessNoise | None:
    """Return the noise between processes in the latest runs of an item on a machine, or None if there are too few."""
    found = [
        log_median
        for run, other, log_median in _log_medians(runs)
        if run.record.machine == machine and other.key == info.key
    ]
    return noise_of_history(found[-LEARN_FROM:])


def _log_medians(runs: Sequence[Run]) -> Iterator[tuple[Run, BenchmarkRecord, float]]:
    """Yield the log median of every item with usable samples, runs in the order of their start."""
    for run in sorted(runs, key=lambda run: (run.record.started, str(run.path))):
        for benchmark in run.benchmarks:
            if usable(benchmark.all_samples):
                yield run, benchmark.info, run_log_quantile(benchmark, 0.5)


def change_points(values: Sequence[float]) -> list[int]:
    """Return the indices at which a series steps to another level, in order.

    Least squares by optimal partitioning (Jackson et al. 2005, IEEE Signal Processing Letters 12:105): the cheapest
    partition into segments of constant mean, where a segment costs its squared deviations and each cut a penalty of
    4 * sigma^2 * log n (Yao 1988, Statistics & Probability Letters 6:181, has 2 as the least that is consistent; 4
    allows for tails). Sigma is estimated from the median of |successive differences|, which steps hardly affect. Single
    outliers are removed first by a running median of three (Tukey 1977), which preserves steps.
    """
    x: Floats = np.asarray(values, dtype=np.float64)
    n = len(x)
    if n < 2 * MIN_SEGMENT:
        return []
    sigma = successive_sd(x)
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
        segment = squares[end] - squares[starts] - total * total / (end - starts)
        candidates = cost[starts] + segment + penalty
        last[end] = int(starts[int(np.argmin(candidates))])
        cost[end] = float(candidates.min())
    cuts: list[int] = []
    while (n := int(last[n])) > 0:
        cuts.append(n)
    return cuts[::-1]


def _series(item: str, machine: str, entries: Sequence[tuple[Run, float]]) -> Series:
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
    return Series(item, machine, points)
