"""What the speed of the machine, as the reference task shows it, does to the times of items.

A machine whose speed changes makes all items slower at once, but not by the factor of the reference task: on a virtual
machine whose processors share cores with others, `embedded` took 1.26 times as long while the task took 1.21 times as
long, and 1.53 times while it took 1.9 times. In batches of four it took 1.03 times as long while single photos took 1.2
times as long. So a curve is fitted to all items of a model and batch size that two runs have in common.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import fdtri

from segcore.core.records import Benchmark, BenchmarkRecord
from segcore.judgement.statistics import MIN_COMMON, Floats, ProcessNoise, common_noise, measured_noise, usable

ALPHA = 0.05
"""Significance level at which a curve explains the differences between processes."""
HUBER = 1.5
"""Residuals beyond so many standard deviations count less: interrupted rounds."""
MIN_DF = 2

Rounds = tuple[Floats, Floats]
"""Of one process: logarithms of the times of its rounds, and of the reference task around each."""


@dataclass(frozen=True)
class SpeedCurve:
    """Log time of an item as a polynomial of the log time of the reference task, up to a level of its own."""

    centre: float
    """Log seconds of the task at which adjusted times are equal to measured ones."""
    coefficients: Floats
    """Of the first power, and of the second if that explains more."""
    covariance: Floats
    df: int
    noise: ProcessNoise | None = None
    """What the adjusted times of all items have in common in their noise between processes."""

    def adjusted(self, rounds: Rounds) -> float:
        """Return the log median time of a process, as it would be with the task at its centre."""
        times, reference = rounds
        return float(np.median(times - self._basis(reference) @ self.coefficients))

    def error(self, old: Sequence[Rounds], new: Sequence[Rounds]) -> float:
        """Return the standard error of an adjusted change that the curve's own coefficients cause."""
        shift = self._middle(new) - self._middle(old)
        return math.sqrt(float(shift @ self.covariance @ shift))

    def _middle(self, arm: Sequence[Rounds]) -> Floats:
        found: Floats = np.mean([np.median(self._basis(reference), axis=0) for _, reference in arm], axis=0)
        return found

    def _basis(self, reference: Floats) -> Floats:
        return _powers(_bounded(reference - self.centre, self.coefficients), len(self.coefficients))


def rounds_of(item: Benchmark) -> list[Rounds]:
    """Return the rounds of each process of an item; empty if the reference was not measured in all of them."""
    pairs = zip(item.processes, item.references, strict=False) if item.references else ()
    found = [(np.log(samples), np.log(reference)) for samples, reference in pairs]
    return found if all(len(times) == len(reference) for times, reference in found) else []


def curves_of(pairs: Mapping[str, tuple[Benchmark, Benchmark]]) -> dict[str, SpeedCurve]:
    """Return, by key, the curve of each item in two runs that has one; those of `_alike` share it."""
    infos = {key: pair[0].info for key, pair in pairs.items() if all(usable(item.all_samples) for item in pair)}
    found: dict[str, SpeedCurve] = {}
    for keys in _alike(infos):
        items = [[rounds_of(item.quiet()) for item in pairs[key]] for key in keys]
        if curve := fit_curve(rounds for item in items for rounds in item):
            medians = ([[curve.adjusted(each) for each in run] for run in item] for item in items if all(item))
            noises = (measured_noise(runs, least_df=1) for runs in medians)
            noise = common_noise([each for each in noises if each])
            found |= dict.fromkeys(keys, replace(curve, noise=noise))
    return found


def _alike(infos: Mapping[str, BenchmarkRecord]) -> Iterator[list[str]]:
    """Yield the items of each model on a backend in a batch size; sizes with fewer than `MIN_COMMON` items together."""
    kinds: dict[tuple[object, ...], dict[int, list[str]]] = {}
    for key, info in infos.items():
        batches = kinds.setdefault((info.model, info.runtime, info.precision, info.device, info.threads), {})
        batches.setdefault(info.batch, []).append(key)
    for batches in kinds.values():
        yield from (keys for keys in batches.values() if len(keys) >= MIN_COMMON)
        yield [key for keys in batches.values() if len(keys) < MIN_COMMON for key in keys]


def fit_curve(items: Iterable[Sequence[Rounds]]) -> SpeedCurve | None:
    """Return the curve that explains the differences between processes; None if none does.

    Robust regression of the rounds (Huber 1964, by iterated weights), with a level for each item in each run, each
    process counting as much as another. Whether it explains anything is tested on the medians of the processes, which
    are independent: the F-test of the sum of squares around the levels, for a parabola and then for a line.

    Args:
        items: rounds of the processes of each item in each run, of one model, backend and batch size.
    """
    groups = [rounds for rounds in items if len(rounds) > 1]
    if not groups:
        return None
    centre = float(np.median(np.concatenate([reference for rounds in groups for _, reference in rounds])))
    for degree in (2, 1):
        coefficients = _fit(groups, centre, degree)
        if coefficients[0] > 0 and (curve := _tested(groups, centre, coefficients)):
            return curve
    return None


def _fit(groups: Sequence[Sequence[Rounds]], centre: float, degree: int) -> Floats:
    times = np.concatenate([y for rounds in groups for y, _ in rounds])
    powers = _powers(np.concatenate([x for rounds in groups for _, x in rounds]) - centre, degree)
    sizes = [[len(y) for y, _ in rounds] for rounds in groups]
    group = np.repeat(np.arange(len(groups)), [sum(size) for size in sizes])
    weights = np.concatenate([np.full(n, 1 / n) for size in sizes for n in size])
    robust = np.ones_like(weights)
    coefficients = np.zeros(degree)
    for _ in range(10):
        w = weights * robust
        y, x = (values - _level(values, w, group) for values in (times[:, None], powers))
        coefficients = np.linalg.lstsq(x * np.sqrt(w)[:, None], y[:, 0] * np.sqrt(w), rcond=None)[0]
        residuals = np.abs(y[:, 0] - x @ coefficients)
        spread = 1.4826 * float(np.median(residuals))
        robust = np.minimum(1.0, HUBER * spread / np.maximum(residuals, 1e-12)) if spread else robust
    return coefficients


def _level(values: Floats, weights: Floats, group: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Floats:
    """Return the weighted mean of its group for each row of `values`."""
    total = np.bincount(group, weights)
    means = np.stack([np.bincount(group, weights * column) / total for column in values.T], axis=1)
    found: Floats = means[group]
    return found


def _tested(groups: Sequence[Sequence[Rounds]], centre: float, coefficients: Floats) -> SpeedCurve | None:
    """Return a curve if it explains the differences between the processes of the groups."""
    degree = len(coefficients)
    draft = SpeedCurve(centre, coefficients, np.zeros((degree, degree)), 0)
    plain = [_around_mean([float(np.median(y)) for y, _ in rounds]) for rounds in groups]
    adjusted = [_around_mean([draft.adjusted(each) for each in rounds]) for rounds in groups]
    before, after = (float(sum(values @ values for values in found)) for found in (plain, adjusted))
    df = sum(len(rounds) - 1 for rounds in groups) - degree
    if df < MIN_DF or before - after <= float(fdtri(degree, df, 1 - ALPHA)) * degree * after / df:
        return None
    x = np.concatenate([_around_mean([np.median(draft._basis(r), axis=0) for _, r in rounds]) for rounds in groups])
    return SpeedCurve(centre, coefficients, after / df * np.linalg.pinv(x.T @ x), df)


def _around_mean(values: Sequence[float] | Sequence[Floats]) -> Floats:
    found: Floats = np.asarray(values) - np.mean(values, axis=0)
    return found


def _powers(x: Floats, degree: int) -> Floats:
    found: Floats = np.stack([x**power for power in range(1, degree + 1)], axis=1)
    return found


def _bounded(x: Floats, coefficients: Floats) -> Floats:
    """Return `x` up to the vertex of a parabola: a slower machine makes no item faster."""
    if len(coefficients) == 1 or not coefficients[1]:
        return x
    vertex = -coefficients[0] / (2 * coefficients[1])
    found: Floats = np.minimum(x, vertex) if vertex > 0 else np.maximum(x, vertex)
    return found
