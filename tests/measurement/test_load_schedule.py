from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from segcore.measurement.load.schedule import LEAST_SECONDS, Plan, plan_run, poisson_arrivals, sojourn_times
from tests.support.naive import naive_sojourn_times

TIMES = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=1, max_size=60)


@given(TIMES)
def test_sojourn_times_are_those_of_a_queue(times: list[tuple[float, float]]) -> None:
    arrivals = np.cumsum([gap for gap, _ in times])
    services = np.array([service for _, service in times])
    assert sojourn_times(arrivals, services) == pytest.approx(naive_sojourn_times(arrivals.tolist(), services.tolist()))


@given(TIMES, st.floats(1, 5))
def test_a_higher_rate_shortens_no_queries_stay(times: list[tuple[float, float]], factor: float) -> None:
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
        (plan_run("single-stream"), 64),
        (plan_run("multi-stream", 8), 662),
        (plan_run("server", rate=1.0), 662),
        (plan_run("server", rate=100.0), 100 * LEAST_SECONDS),
        (plan_run("server", rate=100.0, queries=7), 7),
        (plan_run("server", rate=2.5, seconds=3.0), 8),
        (plan_run("server", seconds=3.0, limit_s=1.0), 662),  # at whichever rate is tried
        (plan_run("offline", 8, queries=20), 3),
        (plan_run("multi-stream", 8, queries=20), 20),
        (plan_run("single-stream", seconds=5.0), 1),
    ],
)
def test_a_run_has_the_queries_asked_for_or_those_that_its_percentile_takes(plan: Plan, queries: int) -> None:
    assert plan.queries == queries


def test_queries_come_as_the_scenario_says() -> None:
    assert list(islice(plan_run("single-stream", queries=9).arrivals(), 2)) == [(None, 1), (None, 1)]
    assert list(islice(plan_run("multi-stream", 4, queries=9).arrivals(), 2)) == [(None, 4), (None, 4)]
    assert list(islice(plan_run("offline", 4, queries=9).arrivals(), 3)) == [(0.0, 4), (0.0, 4), (0.0, 1)]
    assert list(islice(plan_run("offline", 4, seconds=9.0).arrivals(), 20))[-1] == (0.0, 4)  # as long as it takes
    due = [at for at, _ in plan_run("server", rate=3.0, queries=5, seed=1).arrivals()]
    assert due == poisson_arrivals(3.0, 5, 1).tolist()
    assert all(a < b for a, b in pairwise(due))  # type: ignore[operator]  # none is None


def test_a_run_by_default_is_done_when_it_has_queries_enough_and_has_lasted() -> None:
    plan = plan_run("single-stream")
    assert plan.share(64, LEAST_SECONDS) == 1.0
    assert plan.share(64, LEAST_SECONDS / 4) == 0.25
    assert plan.share(16, 2 * LEAST_SECONDS) == 0.25
    assert plan_run("single-stream", queries=4).share(1, 99.0) == 0.25
    assert plan_run("server", rate=2.0, seconds=10.0).share(5, 99.0) == 0.25
