from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, count, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.measurement.load.driver import (
    PROBE_QUERIES,
    Driver,
    LoadRun,
    SystemClock,
    load_record,
    load_samples,
    serve_all,
)
from segcore.measurement.load.schedule import plan_load, poisson_arrivals
from tests.support.fakes import FakeClock
from tests.support.naive import naive_sojourn_times


def driver_of(services: Sequence[float]) -> Driver:
    """A driver whose queries take these seconds; the last one repeats."""
    clock = FakeClock(time=1000.0)
    seconds = chain(services, repeat(services[-1]))

    def serve() -> None:
        clock.time += next(seconds)

    return Driver(serve, clock=clock)


def test_single_stream_sends_the_next_query_when_the_previous_one_has_finished() -> None:
    run = driver_of([1.0, 4.0, 2.0]).run(plan_load("single-stream", queries=4))
    assert run.latencies_s == (1.0, 4.0, 2.0, 2.0)
    assert [query.scheduled_s for query in run.queries] == [0.0, 1.0, 5.0, 7.0]
    assert (run.elapsed_s, run.images_per_s, run.validity) == (9.0, 4 / 9, None)


def test_a_multi_stream_query_is_several_photos() -> None:
    run = driver_of([2.0]).run(plan_load("multi-stream", 3, queries=4))
    assert run.latencies_s == (2.0,) * 4
    assert run.images_per_s == 1.5


def test_offline_queries_are_all_due_at_once() -> None:
    plan = plan_load("offline", 4, queries=3)
    run = driver_of([2.0]).run(plan)
    assert run.latencies_s == (2.0, 4.0, 6.0)
    assert run.images_per_s == 12 / 6
    assert load_samples(plan, [run]) == (2.0, 2.0, 2.0)
    assert load_record(plan, [run]).bounds_s == {}


def test_a_run_of_a_duration_ends_with_the_query_that_exceeds_it() -> None:
    assert len(driver_of([1.0]).run(plan_load("single-stream", seconds=4.5)).queries) == 5
    assert driver_of([1.0]).run(plan_load("offline", 8, seconds=4.5)).images_per_s == 8.0


@given(st.lists(st.integers(0, 20), min_size=1, max_size=50), st.lists(st.integers(0, 20), min_size=1, max_size=50))
def test_server_latencies_are_sojourn_times_of_a_queue(gaps: list[int], services: list[int]) -> None:
    """To the bit: whole seconds are exact in floating point."""
    arrivals = np.cumsum(gaps).astype(float).tolist()
    services = (services * len(arrivals))[: len(arrivals)]
    driver = driver_of([float(s) for s in services])
    queries = list(serve_all(driver.serve, arrivals, driver.clock))
    assert [query.latency_s for query in queries] == naive_sojourn_times(arrivals, [float(s) for s in services])
    assert all(query.started_s >= query.scheduled_s for query in queries)


def test_a_stall_delays_all_queries_that_were_due_meanwhile() -> None:
    """Measured from the start of each query, nine in ten would look as if nothing had happened."""
    arrivals = [float(at) for at in range(10)]
    driver = driver_of([8.5, 0.25])
    assert [query.latency_s for query in serve_all(driver.serve, arrivals, driver.clock)] == [
        8.5,
        7.75,
        7.0,
        6.25,
        5.5,
        4.75,
        4.0,
        3.25,
        2.5,
        1.75,
    ]


def test_a_server_run_has_the_planned_arrivals_and_utilization() -> None:
    run = driver_of([0.25]).run(plan_load("server", rate=2.0, queries=50, seed=5))
    assert [query.scheduled_s for query in run.queries] == poisson_arrivals(2.0, 50, 5).tolist()
    assert run.utilization == pytest.approx(0.5)


def test_the_validity_of_a_limit() -> None:
    plan = plan_load("server", rate=1.0, queries=459, limit_s=2.0)
    assert driver_of([0.01]).run(plan).validity == "valid"
    assert driver_of([0.01]).run(replace(plan, min_queries=458)).validity == "undecided"
    assert driver_of([3.0, 0.01]).run(plan).validity == "undecided"
    assert driver_of([0.01]).run(replace(plan, limit_s=None)).validity is None


def test_a_rate_above_capacity_is_invalid_at_any_limit() -> None:
    run = driver_of([1.1]).run(plan_load("server", rate=1.0, queries=500, limit_s=1e9))
    assert run.over == 0
    assert run.utilization == pytest.approx(1.1)
    assert run.validity == "invalid"


@pytest.mark.slow
@given(st.lists(st.sampled_from([0.1, 0.1, 0.1, 0.1, 5.0]), min_size=200, max_size=200), st.integers(0, 5))
def test_a_run_that_ends_early_has_the_validity_of_the_whole(services: list[float], seed: int) -> None:
    plan = plan_load("server", rate=0.05, queries=200, seed=seed, limit_s=1.0)
    whole = driver_of(services).run(replace(plan, limit_s=None))
    early = driver_of(services).run(plan)
    assert early.validity == replace(whole, plan=plan).validity
    assert early.queries == whole.queries[: len(early.queries)]
    assert (len(early.queries) < 200) <= (early.validity == "invalid")


def test_an_interrupted_run_is_kept() -> None:
    driver, plan = interrupted_driver(5), plan_load("single-stream")
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan)
    (run,) = driver.runs
    assert len(run.queries) == 5
    assert run.images_per_s == 1.0
    assert load_samples(plan, driver.runs) == (1.0,) * 5


def test_an_interrupted_search_keeps_its_trials_and_finds_nothing() -> None:
    driver, plan = interrupted_driver(PROBE_QUERIES + 700), plan_load("server", limit_s=20.0)
    with pytest.raises(KeyboardInterrupt):
        driver.search(plan)
    record = load_record(plan, driver.runs)
    assert [len(trial.latencies_s) for trial in record.trials] == [662, 38]
    assert (record.validity, record.highest_rate) == ("undecided", None)
    assert len(load_samples(plan, driver.runs)) == PROBE_QUERIES


def interrupted_driver(queries: int) -> Driver:
    driver = driver_of([1.0])
    serve, served = driver.serve, count()

    def serve_some() -> None:
        if next(served) == queries:
            raise KeyboardInterrupt
        serve()

    driver.serve = serve_some
    return driver


def test_a_run_without_queries_has_no_figures() -> None:
    run = LoadRun(plan_load("server", rate=1.0, limit_s=1.0), ())
    assert (run.elapsed_s, run.images_per_s, run.utilization, run.over) == (0.0, 0.0, 0.0, 0)
    assert run.validity == "undecided"


def test_a_search_finds_what_the_queue_allows() -> None:
    """The server takes 0.1 s per query, so the queue alone decides, and an independent version computes it."""
    driver = driver_of([0.1])
    plan = plan_load("server", queries=2000, seed=7, limit_s=0.5)
    search = driver.search(plan)
    assert search.highest_valid is not None
    assert search.lowest_failed is not None
    assert len(driver.runs[0].queries) == PROBE_QUERIES
    for rate, holds in ((search.highest_valid, True), (search.lowest_failed, False)):
        times = naive_sojourn_times(poisson_arrivals(rate, 2000, 7).tolist(), [0.1] * 2000)
        assert (sum(time > 0.5 for time in times) <= 9) is holds  # F(9; 2000, 0.01) is below 0.01, F(10) above
    assert search.lowest_failed <= 1.05 * search.highest_valid
    assert [run.plan.rate for run in driver.runs[1:]] == [rate for rate, _ in search.trials]
    record = load_record(plan, driver.runs, search)
    assert (record.highest_rate, record.lowest_failed_rate) == (search.highest_valid, search.lowest_failed)
    assert (record.validity, record.rate, record.max_p99_ms, record.queries) == ("valid", None, 500.0, 2000)
    assert list(record.bounds_s) == ["p50", "p90", "p99"]
    assert [(trial.rate, trial.validity) for trial in record.trials] == list(search.trials)
    assert load_samples(plan, driver.runs) == driver.runs[0].latencies_s


def test_a_search_for_the_impossible_costs_a_probe() -> None:
    driver, plan = driver_of([0.1]), plan_load("server", limit_s=0.05)
    assert driver.search(plan).validity == "invalid"
    assert len(driver.runs) == 1
    assert load_record(plan, driver.runs).images_per_s is None


def test_the_system_clock_sleeps() -> None:
    clock = SystemClock()
    before = clock.now()
    clock.sleep(0.001)
    assert clock.now() - before >= 0.001
