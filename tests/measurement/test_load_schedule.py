from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from segcore.measurement.load.schedule import MIN_SECONDS, LoadPlan, plan_load, poisson_arrivals, sojourn_times
from tests.support.naive import naive_sojourn_times

TIMES = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=60)


@given(TIMES)
def test_sojourn_times_are_those_of_a_queue(times: list[tuple[float, float]]) -> None:
    arrivals = np.cumsum([gap for gap, _ in times])
    services = np.array([service for _, service in times])
    assert sojourn_times(arrivals, services) == pytest.approx(naive_sojourn_times(arrivals.tolist(), services.tolist()))


@given(TIMES, st.floats(1, 5))
def test_a_higher_rate_shortens_no_sojourn_time(times: list[tuple[float, float]], factor: float) -> None:
    arrivals = np.cumsum([gap for gap, _ in times])
    services = np.array([service for _, service in times])
    assert (sojourn_times(arrivals / factor, services) >= sojourn_times(arrivals, services) - 1e-9).all()


def test_arrivals_are_poisson_seeded_and_of_one_pattern_at_all_rates() -> None:
    arrivals = poisson_arrivals(50.0, 4000, seed=3)
    assert kstest(np.diff(arrivals), "expon", args=(0, 1 / 50)).pvalue > 0.01  # of this seed; no chance is left
    assert (arrivals == poisson_arrivals(50.0, 4000, seed=3)).all()
    assert (arrivals != poisson_arrivals(50.0, 4000, seed=4)).any()
    assert poisson_arrivals(25.0, 4000, seed=3) == pytest.approx(2 * arrivals)
    assert (arrivals[:100] == poisson_arrivals(50.0, 100, seed=3)).all()


@pytest.mark.parametrize(
    ("plan", "queries"),
    [
        (plan_load("single-stream"), 64),
        (plan_load("multi-stream", 8), 662),
        (plan_load("server", rate=1.0), 662),
        (plan_load("server", rate=100.0), 100 * MIN_SECONDS),
        (plan_load("server", rate=100.0, queries=7), 7),
        (plan_load("server", rate=2.5, seconds=3.0), 8),
        (plan_load("server", seconds=3.0, limit_s=1.0), 662),  # at whichever rate is tried
        (plan_load("offline", 8, queries=20), 20),
        (plan_load("offline", 8), 3),
        (plan_load("multi-stream", 8, queries=20), 20),
        (plan_load("single-stream", seconds=5.0), 1),
    ],
)
def test_a_run_has_the_queries_requested_or_those_that_its_percentile_needs(plan: LoadPlan, queries: int) -> None:
    assert plan.queries == queries


def test_queries_arrive_by_scenario() -> None:
    assert list(islice(plan_load("single-stream", queries=9).arrivals(), 2)) == [None, None]
    assert list(islice(plan_load("multi-stream", 4, queries=9).arrivals(), 2)) == [None, None]
    assert list(islice(plan_load("offline", 4, seconds=9.0).arrivals(), 20)) == [0.0] * 20
    due = list(plan_load("server", rate=3.0, queries=5, seed=1).arrivals())
    assert due == poisson_arrivals(3.0, 5, 1).tolist()
    assert all(a < b for a, b in pairwise(due))  # type: ignore[operator]  # none is None


def test_a_run_is_done_after_enough_queries_and_seconds() -> None:
    plan = plan_load("single-stream")
    assert plan.is_done(64, MIN_SECONDS)
    assert not plan.is_done(64, MIN_SECONDS / 4)
    assert not plan.is_done(63, 2 * MIN_SECONDS)
    assert plan_load("single-stream", queries=4).is_done(4, 0.0)
    assert not plan_load("server", rate=2.0, seconds=10.0).is_done(19, 99.0)
    assert plan_load("server", rate=2.0, seconds=10.0).is_done(20, 99.0)


def test_the_expected_duration_is_that_of_queries_or_arrivals() -> None:
    assert plan_load("single-stream", queries=100).expected_seconds(0.5) == 50
    assert plan_load("single-stream").expected_seconds(0.01) == MIN_SECONDS
    assert plan_load("server", rate=2.0, queries=100).expected_seconds(0.01) == 50
    assert plan_load("server", limit_s=1.0).expected_seconds(0.1) > 662 * 0.1
