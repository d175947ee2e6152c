from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from segcore.core.limits import Limits
from segcore.core.records import Benchmark, ProcessRecord
from segcore.judgement.estimate import Estimate, estimate, own_interval, run_log_quantile, run_noise
from segcore.judgement.gate import judge
from segcore.judgement.reference import curves_of
from segcore.judgement.statistics import ASSUMED_RUN_SD, ASSUMED_RUN_SD_LATER, MEDIAN_ERRORS, ProcessNoise, median_error
from tests.support.judged_runs import a_run, an_item, steady

NONE = ProcessNoise(0.0, math.inf, "as given")


def with_processes(
    medians: Sequence[float], references: Sequence[float] = (), rounds: int = 12, seed: int = 0, **fields: Any
) -> Benchmark:
    """An item whose processes have the given medians in seconds, and those of the reference."""
    samples = [steady(median, rounds, 100 * seed + n, sd=0.001) for n, median in enumerate(medians)]
    times = [(seconds,) * rounds for seconds in references] or [()] * len(medians)
    further = tuple(ProcessRecord(samples=s, reference=t) for s, t in zip(samples[1:], times[1:], strict=True))
    return an_item(samples[0], reference=times[0], processes=further, **fields)


def drawn(rng: np.random.Generator, seconds: float, sd: float, count: int = 4, seed: int = 0) -> Benchmark:
    return with_processes((seconds * np.exp(rng.normal(0, sd, count))).tolist(), seed=seed)


def test_errors_of_medians() -> None:
    rng = np.random.default_rng(0)
    for n, error in enumerate(MEDIAN_ERRORS, start=1):
        assert np.median(rng.standard_normal((50_000, n)), axis=1).std() == pytest.approx(error, rel=0.015)
    for n in (11, 12, 31):
        assert np.median(rng.standard_normal((50_000, n)), axis=1).std() < median_error(n) * 1.01


def test_the_value_of_a_run_is_the_median_of_the_medians_of_its_processes() -> None:
    item = with_processes([0.05, 0.051, 0.09, 0.052])
    assert math.exp(run_log_quantile(item, 0.5)) == pytest.approx(0.0515, rel=0.002)
    assert len(item.all_samples) == 48
    interval = own_interval(item).exp()
    assert interval.low < 0.05 < 0.0515 < interval.high


@pytest.mark.parametrize(("apart_s", "sd"), [(600.0, ASSUMED_RUN_SD), (7200.0, ASSUMED_RUN_SD_LATER)])
def test_runs_that_are_further_apart_differ_by_more(apart_s: float, sd: float) -> None:
    arms = [[with_processes([0.05, 0.051, 0.0505, 0.0495], seed=n)] for n in range(2)]
    found = estimate(arms, 0.5, None, apart_s=apart_s)
    assert found.run_noise is not None
    assert found.run_noise.sd == sd
    assert found.interval.high - found.interval.value > 1.9 * math.sqrt(2) * sd


def test_copies_of_a_process_count_once() -> None:
    item = an_item(steady(), processes=(ProcessRecord(samples=steady()),) * 3)
    assert len(item.processes) == 1
    assert "assumed" in estimate([[item], [item]], 0.5, None).reason


@pytest.mark.slow
def test_the_interval_of_two_runs_covers_the_truth() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for n in range(400):
        runs = [drawn(rng, 0.05 * math.exp(rng.normal(0, ASSUMED_RUN_SD)), 0.02, seed=2 * n + k) for k in range(2)]
        found = estimate([[runs[0]], [runs[1]]], 0.5, None)
        assert (found.noise.df, found.noise.source) == (6, "measured over 8 processes")
        covered += found.interval.low <= 0 <= found.interval.high
    assert 0.93 <= covered / 400 <= 0.995


@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, "pass"), (0.8, "improved"), (1.2, "regressed"), (1.1, "inconclusive")]
)
def test_two_runs_of_four_processes_have_a_verdict(factor: float, verdict: str) -> None:
    rng = np.random.default_rng(5)
    old, new = (a_run(drawn(rng, seconds, 0.01, seed=n)) for n, seconds in enumerate((0.05, 0.05 * factor)))
    (row,) = judge([old], [new], Limits(max_slowdown={"p50": 0.10})).rows
    assert row.verdict == verdict
    assert "measured over 8 processes" in row.reason


@pytest.mark.parametrize(
    ("known", "beyond"),
    [
        (ProcessNoise(0.03, math.inf, "assumed for cpu"), 0.03),
        (ProcessNoise(0.03, math.inf, "as given"), math.sqrt(0.03**2 - (0.02 * 0.5461) ** 2)),
        (ProcessNoise(0.001, 8, "learned from 9 runs of this machine"), 0.0),
    ],
)
def test_noise_of_whole_runs_contains_that_of_their_processes(known: ProcessNoise, beyond: float) -> None:
    found = run_noise(known, ProcessNoise(0.02, 6, "measured"), [4, 4])
    assert found.sd == pytest.approx(beyond)
    assert found.df == known.df


def test_a_run_of_one_process_falls_back_on_what_is_known_of_runs() -> None:
    old, new = an_item(steady()), with_processes([0.05, 0.051, 0.0505, 0.0502])
    assert estimate([[old], [new]], 0.5, None).noise.source == "assumed for cpu"
    assert estimate([[old], [new]], 0.5, NONE).noise == NONE


def test_several_runs_of_several_processes_show_how_runs_differ() -> None:
    rng = np.random.default_rng(3)
    arms = [[drawn(rng, 0.05, 0.01, seed=10 * k + n) for n in range(3)] for k in range(2)]
    found = estimate(arms, 0.5, None)
    assert (found.noise.df, found.run_noise) == (4, None)
    values = [[run_log_quantile(item, 0.5) for item in arm] for arm in arms]
    assert found.interval.value == pytest.approx(np.mean(values[1]) - np.mean(values[0]))


def test_percentiles_are_those_of_all_rounds() -> None:
    item = with_processes([0.05, 0.0501, 0.0502, 0.0501], rounds=30)
    limits = Limits(max_slowdown={"p90": 0.2}, max_latency_ms={"p90": 70})
    rows = judge([a_run(item)], [a_run(with_processes([0.05] * 4, rounds=30, seed=9))], limits).rows
    assert {row.aspect: row.verdict for row in rows} == {"p90": "pass", "p90 latency": "pass"}
    few = judge([a_run(with_processes([0.05] * 4, rounds=2))], [a_run(with_processes([0.05] * 4, rounds=2))], limits)
    assert {row.verdict for row in few.rows} == {"inconclusive"}


@pytest.mark.parametrize(
    ("loads", "left"),
    [
        ((0.0, 0.0, 0.0, 0.0), 4),
        ((0.0, 0.5, 0.1, None), 3),
        ((0.5, 0.0, 0.0, 0.0), 3),
        ((0.5, 0.5, 0.0, 0.0), 4),  # two would be too few
        ((None,) * 4, 4),
    ],
)
def test_disturbed_processes_are_left_out_if_three_others_remain(loads: Sequence[float | None], left: int) -> None:
    item = with_processes([0.09 if (load or 0) > 0.1 else 0.05 for load in loads], [0.002] * 4)
    further = tuple(p.model_copy(update={"other_load": n}) for p, n in zip(item.info.processes, loads[1:], strict=True))
    info = item.info.model_copy(update={"processes": further, "other_load": loads[0]})
    quiet = item.model_copy(update={"info": info}).quiet()
    assert len(quiet.processes) == len(quiet.references) == left
    if left == 3:
        assert math.exp(run_log_quantile(quiet, 0.5)) == pytest.approx(0.05, rel=0.01)


@pytest.mark.parametrize(
    ("rounds", "q", "wanted"), [(2, "p50", None), (2, "p90", 10), (30, "p90", None), (30, "p99", 96)]
)
def test_rounds_are_wanted_of_each_process(rounds: int, q: str, wanted: int | None) -> None:
    item = with_processes([0.05] * 4, rounds=rounds)
    (row,) = judge([a_run(item)], [a_run(item)], Limits(max_slowdown={q: 0.05})).rows
    assert row.rounds == wanted


# ---- the reference

SPEEDS = (1.0, 1.04, 0.97, 1.02), (1.06, 1.10, 1.01, 1.05)
"""How slow the machine was in the processes of two runs."""


def runs_on(speeds: Sequence[Sequence[float]], follows: float, seed: int = 0) -> list[list[Benchmark]]:
    """Two runs of the same code whose times follow the machine to some power; the reference always does."""
    rng = np.random.default_rng(seed)
    return [
        [
            with_processes(
                [0.05 * s**follows * math.exp(rng.normal(0, 0.003)) for s in run], [0.002 * s for s in run], seed=n
            )
        ]
        for n, run in enumerate(speeds)
    ]


def with_curve(arms: Sequence[Sequence[Benchmark]], known: ProcessNoise | None = NONE) -> Estimate:
    """Estimate the change of one item in two runs, with the curve of this item alone."""
    (old,), (new,) = arms
    return estimate(arms, 0.5, known, curves_of({"item": (old, new)}).get("item"))


@pytest.mark.parametrize("follows", [1.0, 0.6])
def test_where_the_reference_explains_the_noise_the_change_is_relative_to_it(follows: float) -> None:
    found = with_curve(runs_on(SPEEDS, follows))
    assert found.unadjusted is not None
    assert found.unadjusted.value > 0.03 * follows
    assert abs(found.interval.value) < 0.015
    assert found.interval.low < 0 < found.interval.high
    assert found.interval.high - found.interval.low < found.unadjusted.high - found.unadjusted.low
    assert "relative to the reference, without it +" in found.reason


def test_where_it_does_not_runs_are_assumed_to_differ_as_it_does() -> None:
    found = with_curve(runs_on(SPEEDS, 0.0))
    assert found.unadjusted is None
    assert found.run_noise is not None
    assert found.run_noise.source.startswith("as the reference moved by +")
    assert found.run_noise.sd == pytest.approx(math.log(1.055 / 1.01) / math.sqrt(2), rel=0.05)


@pytest.mark.slow
def test_a_reference_that_explains_nothing_is_seldom_used() -> None:
    """At 5 %, for each of two shapes of the curve, which have to rise."""
    rng = np.random.default_rng(8)
    used = 0
    for n in range(300):
        arms = [
            [
                with_processes(
                    (0.05 * np.exp(rng.normal(0, 0.02, 4))).tolist(),
                    (0.002 * np.exp(rng.normal(0, 0.01, 4))).tolist(),
                    seed=2 * n + k,
                )
            ]
            for k in range(2)
        ]
        used += with_curve(arms, None).unadjusted is not None
    assert used / 300 < 0.06


def test_without_the_reference_of_every_process_it_is_not_used() -> None:
    arms = runs_on(SPEEDS, 1.0)
    arms[1] = [with_processes([0.05] * 4)]
    found = with_curve(arms)
    assert found.unadjusted is None
    assert found.run_noise is not None
    assert found.run_noise.sd == 0
