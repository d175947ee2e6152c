"""The curve from the speed of the machine to the times of items."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from segcore.core.records import Benchmark, ProcessRecord
from segcore.judgement.estimate import estimate
from segcore.judgement.reference import Rounds, curves_of, fit_curve
from segcore.judgement.statistics import ProcessNoise
from tests.support.judged_runs import an_item

STATES = (0.0, 0.18, 0.60)
"""Log of how much slower the reference task is in each state of a machine."""
SLOWER = (0.0, 0.24, 0.42)
"""And the items."""


def processes(rng: np.random.Generator, level: float, count: int = 4, rounds: int = 8) -> list[Rounds]:
    """Rounds of processes of an item whose machine changes its state now and then."""
    found = []
    for _ in range(count):
        state = np.repeat(rng.integers(0, 3, 2), rounds // 2)
        reference = np.log(0.0013) + np.take(STATES, state) + rng.normal(0, 0.01, rounds)
        times = level + np.take(SLOWER, state) + rng.normal(0, 0.015, rounds)
        found.append((times, reference))
    return found


def test_a_curve_of_many_items_finds_the_states_of_the_machine() -> None:
    rng = np.random.default_rng(0)
    items = [processes(rng, math.log(0.05 * (1 + n))) for n in range(12)]
    curve = fit_curve(items)
    assert curve is not None
    assert curve.coefficients[0] > 0 > curve.coefficients[1]
    adjusted = [np.std([curve.adjusted(process) for process in rounds], ddof=1) for rounds in items]
    plain = [np.std([np.median(times) for times, _ in rounds], ddof=1) for rounds in items]
    assert np.median(adjusted) < 0.02 < 0.08 < np.median(plain)


def test_interrupted_rounds_do_not_move_it() -> None:
    rng = np.random.default_rng(1)
    items = [processes(rng, -3.0) for _ in range(8)]
    undisturbed = fit_curve(items)
    for rounds in items:
        for times, _ in rounds:
            times[0] += 0.7
    curve = fit_curve(items)
    assert curve is not None
    assert undisturbed is not None
    slow = [np.array([0.0]), np.log([0.0013 * math.exp(0.4)])]
    assert curve.adjusted((slow[0], slow[1])) == pytest.approx(undisturbed.adjusted((slow[0], slow[1])), abs=0.03)


def test_a_slower_machine_makes_no_item_faster() -> None:
    rng = np.random.default_rng(2)
    curve = fit_curve([processes(rng, -3.0) for _ in range(8)])
    assert curve is not None
    times = [curve.adjusted((np.zeros(1), np.log([seconds]))) for seconds in np.geomspace(0.001, 0.02, 50)]
    assert np.all(np.diff(times) <= 1e-12)


def test_times_that_do_not_follow_the_machine_have_no_curve() -> None:
    rng = np.random.default_rng(3)
    items = [[(rng.normal(-3, 0.02, 8), reference) for _, reference in processes(rng, 0.0)] for _ in range(4)]
    assert fit_curve(items) is None
    assert fit_curve([]) is None
    assert fit_curve([processes(rng, -3.0, count=1)]) is None


def test_the_error_of_a_curve_grows_with_the_distance_of_the_runs() -> None:
    rng = np.random.default_rng(4)
    items = [processes(rng, -3.0) for _ in range(6)]
    curve = fit_curve(items)
    assert curve is not None
    far = [(times, reference + 0.3) for times, reference in items[0]]
    assert curve.error(items[0], items[0]) == 0
    assert 0 < curve.error(items[0], items[1]) < curve.error(items[0], far)


def test_batches_follow_the_machine_by_curves_of_their_own() -> None:
    rng = np.random.default_rng(6)

    def batched(batch: int, share: float, seed: int) -> Benchmark:
        return a_benchmark(rng, seed, share, kind="throughput", batch=batch, input_shape=(batch, 3, 320, 320))

    pairs = {
        f"{batch} {k}": (batched(batch, share, k), batched(batch, share, k))
        for batch, share in ((1, 1.0), (4, 0.3))
        for k in range(4)
    }
    curves = curves_of(pairs)
    one, four = curves["1 0"], curves["4 0"]
    assert all(curves[f"1 {k}"] is one and curves[f"4 {k}"] is four for k in range(4))
    assert four.coefficients[0] == pytest.approx(0.3 * one.coefficients[0], rel=0.2)


@pytest.mark.slow
def test_intervals_with_the_noise_of_all_items_cover_the_truth() -> None:
    rng = np.random.default_rng(5)
    inside = trials = 0
    for n in range(60):
        pairs = {f"item {k}": (a_benchmark(rng, n), a_benchmark(rng, n)) for k in range(6)}
        curves = curves_of(pairs)
        for key, (old, new) in pairs.items():
            found = estimate([[old], [new]], 0.5, ProcessNoise(0.0, math.inf, "as given"), curves.get(key))
            trials += 1
            inside += found.interval.low <= 0 <= found.interval.high
            assert found.noise.df > 6
    assert 0.92 <= inside / trials <= 0.985


def a_benchmark(rng: np.random.Generator, seed: int, follows: float = 1.0, **fields: Any) -> Benchmark:
    """An item in a run, with noise of 2 % between processes."""
    main, *further = (
        ProcessRecord(
            samples=tuple(0.05 * np.exp(follows * times + rng.normal(0, 0.02))), reference=tuple(np.exp(task))
        )
        for times, task in processes(rng, 0.0)
    )
    return an_item(main.samples, reference=main.reference, processes=tuple(further), order=seed, **fields)
