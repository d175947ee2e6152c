"""The change of a timed item between two arms, or the time of one, with an interval and what it rests on.

An arm is one run or several, and a run has one process or several. Three cases:

* *several runs on both sides*: the noise between runs is measured over them;
* *runs of several processes*: the noise between processes is measured over them, and what runs differ by beyond that is
  learned from earlier runs, given or assumed. The reference task, which ran between the rounds, is used in two ways: if
  it explains the differences between processes, the change is that of the adjusted times (`SpeedCurve`); if it does
  not, but was itself faster in one run than in the other, the runs are assumed to differ by as much;
* *runs of one process*: their noise is learned, given or assumed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segcore.core.records import Benchmark
from segcore.judgement.reference import SpeedCurve, rounds_of
from segcore.judgement.statistics import (
    Interval,
    ProcessNoise,
    arm_interval,
    assumed_noise,
    assumed_run_noise,
    log_quantile,
    measured_noise,
    median_error,
    moderated,
    mover_difference,
    quantile_interval,
    t_quantile,
)

Arm = Sequence[Benchmark]
"""One item in each run of an arm."""
NO_NOISE = ProcessNoise(sd=0.0, df=math.inf, source="none")


@dataclass(frozen=True)
class Estimate:
    """An interval on the logarithm, and what it rests on."""

    interval: Interval
    within: Interval
    """Without the noise between processes and runs."""
    noise: ProcessNoise
    """Between processes, or between runs of one process."""
    run_noise: ProcessNoise | None = None
    """What runs differ by beyond their processes; None if that is part of `noise`."""
    unadjusted: Interval | None = None
    """Of the plain change, if `interval` is relative to the reference."""

    @property
    def reason(self) -> str:
        """What the interval rests on, in words."""
        words = f"noise between processes {self.noise.sd:.1%}, {self.noise.source}"
        if self.run_noise:
            words += f"; between runs {self.run_noise.sd:.1%}, {self.run_noise.source}"
        if self.unadjusted:
            low, value, high = (math.expm1(bound) for bound in self.unadjusted.bounds)
            words += f"; relative to the reference, without it {value:+.1%} [{low:+.1%}, {high:+.1%}]"
        return words


def run_log_quantile(item: Benchmark, q: float) -> float:
    """Return the log q-quantile of an item in one run: the median of its processes' medians, or over all rounds.

    A few rounds of one process have a median, but no percentile, so percentiles are those of all rounds together.
    Disturbed processes are left out if enough others remain.
    """
    item = item.quiet()
    if q == 0.5:
        return float(np.median([log_quantile(samples, q) for samples in item.processes]))
    return log_quantile(item.all_samples, q)


def own_interval(item: Benchmark) -> Interval:
    """Return the interval of the log median of an item in one run, without what it may differ by from other runs."""
    if len(item.processes) == 1:
        return quantile_interval(item.samples, 0.5)
    noise = measured_noise([[log_quantile(samples, 0.5) for samples in item.processes]], least_df=1)
    assert noise is not None
    half = t_quantile(noise.df) * noise.sd * median_error(len(item.processes))
    return _around(run_log_quantile(item, 0.5), half)


def estimate(
    arms: Sequence[Arm],
    q: float,
    known: ProcessNoise | None,
    curve: SpeedCurve | None = None,
    apart_s: float = 0.0,
) -> Estimate:
    """Return the estimate of the log q-quantile of one arm, or of the log ratio of the second of two to the first.

    Args:
        arms: one or two; all samples finite and positive.
        q: quantile.
        known: noise from one run to the next, learned or given; assumed if None.
        curve: explains the differences between the processes of two runs; None if there is none.
        apart_s: seconds between the arms.
    """
    device = arms[0][0].info.device
    arms = [[item.quiet() for item in arm] for arm in arms]
    between_runs = measured_noise([[run_log_quantile(item, q) for item in arm] for arm in arms])
    if between_runs or any(len(item.processes) == 1 for arm in arms for item in arm):
        noise = between_runs or known or assumed_noise(device)
        pooled = [[item.all_samples for item in arm] for arm in arms]
        full, within = ([arm_interval(arm, q, n) for arm in pooled] for n in (noise, NO_NOISE))
        if between_runs and any(len(item.processes) > 1 for arm in arms for item in arm):
            full = [_of_runs(arm, q, noise) for arm in arms]
        return Estimate(_combined(full), _combined(within), noise)
    return _of_processes(arms, q, known or assumed_run_noise(device, apart_s), curve)


def _combined(intervals: Sequence[Interval]) -> Interval:
    return intervals[0] if len(intervals) == 1 else mover_difference(*intervals)


def _of_runs(arm: Arm, q: float, noise: ProcessNoise) -> Interval:
    """Return the interval of an arm of runs of several processes, whose noise shows in the differences of runs."""
    value = float(np.mean([run_log_quantile(item, q) for item in arm]))
    return _around(value, t_quantile(noise.df) * noise.sd / math.sqrt(len(arm)))


def _of_processes(arms: Sequence[Arm], q: float, known: ProcessNoise, curve: SpeedCurve | None) -> Estimate:
    """Return the estimate from runs of several processes each.

    The interval of a median is Student's t on the medians of the processes, which contain the noise between rounds.
    """
    logs = [[[log_quantile(samples, 0.5) for samples in item.processes] for item in arm] for arm in arms]
    noise = measured_noise([medians for arm in logs for medians in arm], least_df=1)
    assert noise is not None  # every run has two processes
    runs = run_noise(known, noise, [len(medians) for arm in logs for medians in arm])
    relative = _relative_to_reference(arms, noise.source, runs, curve) if q == 0.5 and curve else None
    shift = _reference_shift(arms)
    if abs(shift) / math.sqrt(2) > runs.sd:
        runs = ProcessNoise(abs(shift) / math.sqrt(2), math.inf, f"as the reference moved by {math.expm1(shift):+.1%}")
    full: list[Interval] = []
    within: list[Interval] = []
    for arm, medians in zip(arms, logs, strict=True):
        value = float(np.mean([run_log_quantile(item, q) for item in arm]))
        errors = math.hypot(*(median_error(len(run)) for run in medians)) / len(arm)
        half = math.hypot(t_quantile(noise.df) * noise.sd * errors, _run_half(runs, len(arm)))
        inside = _around(value, 0.0)
        if q != 0.5:
            found = quantile_interval([seconds for item in arm for seconds in item.all_samples], q)
            inside = Interval(value - (found.value - found.low), value, value + (found.high - found.value))
        within.append(inside)
        full.append(
            Interval(value - math.hypot(value - inside.low, half), value, value + math.hypot(inside.high - value, half))
        )
    plain = Estimate(_combined(full), _combined(within), noise, runs)
    return replace(relative, unadjusted=plain.interval) if relative else plain


def run_noise(known: ProcessNoise, processes: ProcessNoise, counts: Sequence[int]) -> ProcessNoise:
    """Return what runs differ by beyond the noise of their processes.

    Noise that is learned or given is of whole runs, so the part of their processes is subtracted (the analysis of
    variance estimator, Searle, Casella and McCulloch 1992, section 3.5).

    Args:
        known: assumed (beyond the processes), or from run to run.
        processes: between the processes of one run.
        counts: how many processes the runs have.
    """
    if known.source.startswith("assumed"):
        return known
    part = processes.sd * max(median_error(count) for count in counts)
    return ProcessNoise(math.sqrt(max(0.0, known.sd**2 - part**2)), known.df, known.source)


def _run_half(noise: ProcessNoise, runs: int) -> float:
    return t_quantile(noise.df) * noise.sd / math.sqrt(runs)


def _around(value: float, half: float) -> Interval:
    return Interval(value - half, value, value + half)


def _references(arm: Arm) -> list[float]:
    """Return the log median of the reference in each process of an arm of one run; empty if it was not measured."""
    return [log_quantile(seconds, 0.5) for seconds in arm[0].references] if len(arm) == 1 else []


def _reference_shift(arms: Sequence[Arm]) -> float:
    """Return the log ratio of the reference of two arms; 0.0 if it is unknown."""
    found = [_references(arm) for arm in arms]
    return float(np.median(found[1]) - np.median(found[0])) if len(found) == 2 and all(found) else 0.0


def _relative_to_reference(arms: Sequence[Arm], source: str, runs: ProcessNoise, curve: SpeedCurve) -> Estimate | None:
    """Return the change of the times as they would be at one speed of the machine; None if that is not known.

    Args:
        arms: one item in two runs.
        source: of the noise between processes.
        runs: what runs differ by beyond the noise of their processes.
        curve: of the runs.
    """
    rounds = [rounds_of(arm[0]) for arm in arms if len(arm) == 1]
    if len(rounds) != 2 or not all(rounds):
        return None
    medians = [[curve.adjusted(process) for process in run] for run in rounds]
    noise = measured_noise(medians, least_df=1)
    assert noise is not None  # every run has two processes
    noise = moderated(noise, curve.noise) if curve.noise else noise
    value = float(np.median(medians[1]) - np.median(medians[0]))
    error = noise.sd * math.hypot(*(median_error(len(run)) for run in medians))
    half = math.hypot(
        t_quantile(noise.df) * error, t_quantile(curve.df) * curve.error(*rounds), math.sqrt(2) * _run_half(runs, 1)
    )
    noise = replace(noise, source=f"{source} relative to the reference")
    return Estimate(_around(value, half), _around(value, 0.0), noise, runs)
