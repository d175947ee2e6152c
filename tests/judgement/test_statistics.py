from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from segcore.judgement.statistics import (
    MIN_HISTORY,
    Floats,
    Interval,
    Processes,
    ProcessNoise,
    arm_interval,
    assumed_noise,
    autocorrelation_time,
    common_noise,
    measured_noise,
    moderated,
    mover_difference,
    noise_of_history,
    processes_needed,
    quantile_interval,
    quantile_name,
    rounds_needed,
    share_interval,
    trimmed_interval,
    usable,
)
from tests.support.examples import examples

QUIET = ProcessNoise(0.0, math.inf, "none")
samples = st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=60)


def change_interval(base: Processes, head: Processes, q: float, noise: ProcessNoise) -> Interval:
    return mover_difference(arm_interval(base, q, noise), arm_interval(head, q, noise))


def latencies(rng: np.random.Generator, rounds: int, phi: float, sd: float = 0.03) -> Floats:
    """Seconds around 50 ms with log-normal noise whose successive values correlate by `phi`."""
    z = np.empty(rounds)
    z[0] = rng.normal()
    for i in range(1, rounds):
        z[i] = phi * z[i - 1] + math.sqrt(1 - phi * phi) * rng.normal()
    return 0.05 * np.exp(sd * z)


@pytest.mark.parametrize(("phi", "tau"), [(0.0, 1.0), (0.5, 3.0), (0.8, 9.0)])
def test_autocorrelation_time_of_an_ar1_series(phi: float, tau: float) -> None:
    rng = np.random.default_rng(3)
    assert autocorrelation_time(np.log(latencies(rng, 20_000, phi))) == pytest.approx(tau, rel=0.15, abs=0.1)


@pytest.mark.parametrize("series", [[1.0], [2.0, 2.0, 2.0, 2.0, 2.0], [1.0, 2.0]])
def test_autocorrelation_time_is_one_without_evidence(series: list[float]) -> None:
    assert autocorrelation_time(series) == 1.0


@pytest.mark.parametrize(
    ("q", "phi", "rounds", "at_least"),
    [
        (0.5, 0.0, 10, 0.95),
        (0.5, 0.0, 100, 0.95),
        (0.95, 0.0, 100, 0.95),
        (0.5, 0.5, 100, 0.91),
        (0.95, 0.5, 200, 0.91),
        (0.5, 0.8, 300, 0.90),
    ],
)
def test_interval_of_a_quantile_covers_the_truth(q: float, phi: float, rounds: int, at_least: float) -> None:
    """Nominal 95 %; five standard errors of 800 trials are allowed for, and correlated short series may fall short."""
    rng = np.random.default_rng(11)
    truth = math.log(0.05) + 0.03 * float(np.quantile(rng.standard_normal(4_000_000), q))
    found = [quantile_interval(latencies(rng, rounds, phi).tolist(), q) for _ in range(800)]
    covered = sum(i.low <= truth <= i.high for i in found) / len(found)
    assert covered >= at_least - 5 * math.sqrt(0.05 * 0.95 / 800)


def test_ignoring_the_autocorrelation_would_be_wrong() -> None:
    """The same intervals on shuffled samples, which look independent, miss far too often."""
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        x = latencies(rng, 200, 0.8)
        i = quantile_interval(rng.permutation(x).tolist(), 0.5)
        covered += i.low <= math.log(0.05) <= i.high
    assert covered / 400 < 0.75


@pytest.mark.parametrize(("q", "rounds"), [(0.5, 7), (0.9, 38), (0.95, 76), (0.99, 383)])
def test_rounds_needed_is_where_the_bounds_become_finite(
    q: float, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segcore.judgement.statistics.autocorrelation_time", lambda series: 1.0)
    assert rounds_needed(q) == rounds
    spread = np.linspace(0.05, 0.06, rounds).tolist()
    assert math.isfinite(quantile_interval(spread, q).high)
    assert math.isinf(quantile_interval(spread[:-1], q).high)


@pytest.mark.parametrize("bad", [[], [0.05, math.nan], [0.05, math.inf], [0.05, 0.0], [-0.05], [0.05, -math.inf]])
def test_samples_that_are_not_positive_numbers_are_not_usable(bad: list[float]) -> None:
    assert not usable(bad)


@given(base=samples, head=samples, q=st.sampled_from([0.5, 0.9, 0.95]), sd=st.sampled_from([0.0, 0.02, 0.092]))
def test_swapping_the_arms_mirrors_the_interval(base: list[float], head: list[float], q: float, sd: float) -> None:
    noise = ProcessNoise(sd, math.inf, "given")
    there, back = change_interval([base], [head], q, noise), change_interval([head], [base], q, noise)
    assert (there.low, there.value, there.high) == (-back.high, -back.value, -back.low)


@given(base=samples, head=samples, factor=st.floats(1e-3, 1e3))
def test_units_do_not_matter(base: list[float], head: list[float], factor: float) -> None:
    noise = assumed_noise("cpu")
    before = change_interval([base], [head], 0.5, noise)
    after = change_interval([[x * factor for x in base]], [[x * factor for x in head]], 0.5, noise)
    assert after.low == pytest.approx(before.low, abs=1e-9)
    assert after.high == pytest.approx(before.high, abs=1e-9)


@given(arm=samples, more=st.floats(0.0, 0.5))
def test_noise_between_processes_only_widens(arm: list[float], more: float) -> None:
    inner = arm_interval([arm], 0.5, QUIET)
    outer = arm_interval([arm], 0.5, ProcessNoise(more, 5, "given"))
    assert outer.low <= inner.low <= inner.value <= inner.high <= outer.high


def test_one_process_per_arm_is_covered_only_with_the_noise_between_processes() -> None:
    """Without it, intervals from one process each are far too narrow."""
    rng = np.random.default_rng(2)
    with_noise = without = 0
    for _ in range(400):
        arms = [[(math.exp(rng.normal(0, 0.092)) * latencies(rng, 30, 0.3)).tolist()] for _ in range(2)]
        i = change_interval(arms[0], arms[1], 0.5, assumed_noise("cpu"))
        j = change_interval(arms[0], arms[1], 0.5, QUIET)
        with_noise += i.low <= 0 <= i.high
        without += j.low <= 0 <= j.high
    assert with_noise / 400 >= 0.92
    assert without / 400 < 0.4


def test_several_processes_measure_the_noise_between_them() -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(300):
        arms = [
            [(math.exp(rng.normal(0, 0.05)) * latencies(rng, 20, 0.0)).tolist() for _ in range(4)] for _ in range(2)
        ]
        logs = [[math.log(float(np.median(p))) for p in arm] for arm in arms]
        noise = measured_noise(logs)
        assert noise is not None
        assert noise.df == 6
        i = change_interval(arms[0], arms[1], 0.5, noise)
        covered += i.low <= 0 <= i.high
    assert covered / 300 >= 0.92


def test_measured_noise_needs_three_processes_per_arm() -> None:
    assert measured_noise([[0.1, 0.2], [0.1, 0.3]]) is None
    assert measured_noise([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]) == ProcessNoise(1.0, 4, "measured over 6 processes")


def test_noise_is_learned_from_enough_runs_and_a_trend_cancels() -> None:
    rng = np.random.default_rng(9)
    values = rng.normal(0, 0.02, 200) + np.linspace(0, 1, 200)
    learned = noise_of_history(values.tolist())
    assert learned is not None
    assert learned.sd == pytest.approx(0.02, rel=0.15)
    assert learned.df == pytest.approx(0.55 * 199)
    assert noise_of_history(values[: MIN_HISTORY - 1].tolist()) is None


@pytest.mark.parametrize("where", [0, 4, 9])
@pytest.mark.parametrize("factor", [1.15, 10.0, 0.01])
def test_one_outlier_in_ten_runs_hardly_widens_the_learned_noise(where: int, factor: float) -> None:
    found = []
    for seed in range(50):
        values = np.random.default_rng(seed).normal(0, 0.02, 10)
        values[where] += math.log(factor)
        noise = noise_of_history(values.tolist())
        assert noise is not None
        found.append(noise.sd)
    assert np.mean(found) < 0.03


@pytest.mark.parametrize("runs", [6, 8, 10, 15])
def test_learned_noise_covers_as_often_as_it_says(runs: int) -> None:
    rng = np.random.default_rng(runs)
    covered = 0
    for _ in range(1000):
        noise = noise_of_history(rng.normal(0, 0.02, runs).tolist())
        assert noise is not None
        low, high = (arm_interval([[math.exp(x)] * 20], 0.5, noise) for x in (0.0, 0.0))
        covered += abs(rng.normal(0, 0.02) - rng.normal(0, 0.02)) <= math.hypot(high.high, low.high)
    assert covered >= 940


@pytest.mark.parametrize(("distance", "expected"), [(0.0, None), (math.nan, None), (1e-6, None), (10.0, 1)])
def test_processes_needed_at_the_ends(distance: float, expected: int | None) -> None:
    assert processes_needed(distance, assumed_noise("cpu")) == expected


def test_processes_needed_is_the_fewest_that_suffice() -> None:
    noise, distance = assumed_noise("cpu"), math.log(1.05)
    count = processes_needed(distance, noise)
    assert count is not None
    for processes, enough in ((count - 1, False), (count, True)):
        half = 1.959964 * noise.sd * math.sqrt(2 / processes)
        assert (half <= distance) is enough


@examples(50)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=24))
def test_trimmed_interval_without_trim_is_student(values: list[float]) -> None:
    _, mean, high = trimmed_interval(np.array(values), 0.025, trim=0.0)
    reference = scipy_stats.t(
        len(values) - 1, np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values)) or 1e-300
    )
    assert mean == pytest.approx(np.mean(values), abs=1e-12)
    assert high == pytest.approx(reference.ppf(0.975), abs=1e-9)


def test_trimmed_mean_is_not_moved_by_one_wild_value() -> None:
    values = [0.01, -0.01, 0.02, -0.02, 0.0, 0.01, -0.01, 0.02, -0.02, 5.0]
    assert abs(trimmed_interval(np.array(values), 0.025)[1]) < 0.01


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634)]
)
def test_share_interval_is_wilsons(hits: int, trials: int, low: float, high: float) -> None:
    found = share_interval(hits, trials)
    assert found.low == pytest.approx(low, abs=1e-4)
    assert found.high == pytest.approx(high, abs=1e-4)


@pytest.mark.parametrize(("q", "name"), [(0.5, "median"), (0.95, "p95"), (0.999, "p99.9")])
def test_quantile_name(q: float, name: str) -> None:
    assert quantile_name(q) == name


def test_exponential_of_an_interval_keeps_missing_bounds() -> None:
    assert Interval(-math.inf, 0.0, math.inf).exp() == Interval(0.0, 1.0, math.inf)


@pytest.mark.parametrize("df", [4.0, 12.0])
def test_what_the_noise_of_items_has_in_common(df: float) -> None:
    """Variances are drawn around 2 % with `df` degrees of freedom, and measured with six."""
    rng = np.random.default_rng(11)
    variances = 0.02**2 * df / rng.chisquare(df, 3000) * rng.chisquare(6, 3000) / 6
    common = common_noise([ProcessNoise(math.sqrt(v), 6, "") for v in variances])
    assert common is not None
    assert common.sd == pytest.approx(0.02, rel=0.05)
    assert common.df == pytest.approx(df, rel=0.2)


def test_items_of_equal_noise_share_all_their_degrees_of_freedom() -> None:
    noises = [ProcessNoise(0.02, 6, "")] * 4
    common = common_noise(noises)
    assert common is not None
    assert (common.df, moderated(noises[0], common).df) == (24, 30)
    assert common_noise(noises[:2]) is None
    assert common_noise([ProcessNoise(0.0, 6, "")] * 4) is None
    other = moderated(ProcessNoise(0.04, 6, "measured"), ProcessNoise(0.02, 12, ""))
    assert other.sd == pytest.approx(math.sqrt((6 * 0.04**2 + 12 * 0.02**2) / 18))
