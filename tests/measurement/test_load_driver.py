from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain, repeat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.measurement.load.driver import PROBE_QUERIES, Driver, Run, SystemClock, serve_all
from segcore.measurement.load.early_stopping import Verdict
from segcore.measurement.load.schedule import Plan, plan_run, poisson_arrivals
from tests.support.fakes import FakeClock
from tests.support.naive import naive_sojourn_times


def driver_of(services: Sequence[float]) -> Driver:
    """A driver whose queries take these seconds, the last one for ever."""
    clock = FakeClock(time=1000.0)
    seconds = chain(services, repeat(services[-1]))

    def serve(samples: int) -> None:
        clock.time += next(seconds)

    return Driver(serve, clock=clock)


def test_single_stream_sends_the_next_query_when_the_last_is_done() -> None:
    run = driver_of([1.0, 4.0, 2.0]).run(plan_run("single-stream", queries=4))
    assert run.latencies_s == (1.0, 4.0, 2.0, 2.0)
    assert [query.scheduled_s for query in run.queries] == [0.0, 1.0, 5.0, 7.0]
    assert (run.elapsed_s, run.samples_per_s, run.complete, run.verdict) == (9.0, 4 / 9, True, None)


def test_multi_stream_sends_several_photos_as_one_query() -> None:
    asked: list[int] = []
    driver = driver_of([2.0])
    serve = driver.serve

    def listen(samples: int) -> None:
        asked.append(samples)
        serve(samples)

    driver.serve = listen
    run = driver.run(plan_run("multi-stream", 3, queries=4))
    assert asked == [3] * 4
    assert run.latencies_s == (2.0,) * 4
    assert run.samples_per_s == 1.5


def test_offline_photos_are_all_there_at_once_and_counted_to_the_last() -> None:
    run = driver_of([2.0]).run(plan_run("offline", 4, queries=10))
    assert [query.samples for query in run.queries] == [4, 4, 2]
    assert run.latencies_s == (2.0, 4.0, 6.0)
    assert run.samples_per_s == 10 / 6


def test_a_run_by_duration_ends_with_the_query_that_passes_it() -> None:
    assert len(driver_of([1.0]).run(plan_run("single-stream", seconds=4.5)).queries) == 5
    assert driver_of([1.0]).run(plan_run("offline", 8, seconds=4.5)).samples_per_s == 8.0


@given(st.lists(st.integers(0, 20), min_size=1, max_size=50), st.lists(st.integers(0, 20), min_size=1, max_size=50))
def test_the_server_is_a_queue_and_a_query_counts_from_when_it_was_due(gaps: list[int], services: list[int]) -> None:
    """To the bit: whole seconds are exact in floating point."""
    arrivals = np.cumsum(gaps).astype(float).tolist()
    services = (services * len(arrivals))[: len(arrivals)]
    driver = driver_of([float(s) for s in services])
    queries = list(serve_all(driver.serve, [(at, 1) for at in arrivals], driver.clock))
    assert [query.latency_s for query in queries] == naive_sojourn_times(arrivals, [float(s) for s in services])
    assert all(query.started_s >= query.scheduled_s for query in queries)


def test_a_stall_is_paid_by_all_that_were_due_meanwhile() -> None:
    """Measured from when a query could be begun, nine in ten would look as if nothing had happened."""
    arrivals = [(float(at), 1) for at in range(10)]
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


def test_a_server_run_keeps_its_schedule_and_knows_its_load() -> None:
    run = driver_of([0.25]).run(plan_run("server", rate=2.0, queries=50, seed=5))
    assert [query.scheduled_s for query in run.queries] == poisson_arrivals(2.0, 50, 5).tolist()
    assert run.load == pytest.approx(0.5)


def test_the_verdict_on_a_limit() -> None:
    plan = plan_run("server", rate=1.0, queries=459, limit_s=2.0)
    assert driver_of([0.01]).run(plan).verdict is Verdict.VALID
    assert driver_of([0.01]).run(replace(plan, least=458)).verdict is Verdict.UNDECIDED
    assert driver_of([3.0, 0.01]).run(plan).verdict is Verdict.UNDECIDED
    assert driver_of([0.01]).run(replace(plan, limit_s=None)).verdict is None


def test_a_rate_beyond_what_the_server_can_do_is_invalid_however_patient_the_limit() -> None:
    run = driver_of([1.1]).run(plan_run("server", rate=1.0, queries=500, limit_s=1e9))
    assert run.over == 0
    assert run.load == pytest.approx(1.1)
    assert run.verdict is Verdict.INVALID


@given(st.lists(st.sampled_from([0.1, 0.1, 0.1, 0.1, 5.0]), min_size=200, max_size=200), st.integers(0, 5))
def test_a_run_that_ends_early_has_the_verdict_of_the_whole(services: list[float], seed: int) -> None:
    plan = plan_run("server", rate=0.05, queries=200, seed=seed, limit_s=1.0)
    whole = driver_of(services).run(replace(plan, limit_s=None))
    early = driver_of(services).run(plan)
    assert early.verdict is replace(whole, plan=plan).verdict
    assert early.queries == whole.queries[: len(early.queries)]
    assert (len(early.queries) < 200) <= (early.verdict is Verdict.INVALID)


def test_an_interrupted_run_is_kept_as_far_as_it_went() -> None:
    driver = driver_of([1.0])
    driver.watch = interrupt_after(driver, 5)
    with pytest.raises(KeyboardInterrupt):
        driver.run(plan_run("single-stream"))
    (run,) = driver.runs
    assert (len(run.queries), run.complete) == (5, False)
    assert run.samples_per_s == 1.0


def interrupt_after(driver: Driver, queries: int) -> Callable[[Plan, float], None]:
    begun = driver.clock.now()

    def watch(plan: Plan, share: float) -> None:
        if driver.clock.now() - begun >= queries:
            raise KeyboardInterrupt

    return watch


def test_what_is_interrupted_before_its_first_query_has_no_figures() -> None:
    run = Run(plan_run("server", rate=1.0, limit_s=1.0), (), complete=False)
    assert (run.elapsed_s, run.samples_per_s, run.load, run.over) == (0.0, 0.0, 0.0, 0)
    assert run.verdict is Verdict.UNDECIDED


def test_a_search_finds_what_the_queue_allows() -> None:
    """The server takes 0.1 s a query, so the runs are settled by the queue alone, which a slower version computes."""
    driver = driver_of([0.1])
    plan = plan_run("server", queries=2000, seed=7, limit_s=0.5)
    search = driver.search(plan)
    assert search.highest_valid is not None
    assert search.lowest_failed is not None
    assert len(driver.runs[0].queries) == PROBE_QUERIES
    for rate, holds in ((search.highest_valid, True), (search.lowest_failed, False)):
        times = naive_sojourn_times(poisson_arrivals(rate, 2000, 7).tolist(), [0.1] * 2000)
        assert (sum(time > 0.5 for time in times) <= 9) is holds  # F(9; 2000, 0.01) is below 0.01, F(10) above
    assert search.lowest_failed <= 1.05 * search.highest_valid
    assert [run.plan.rate for run in driver.runs[1:]] == [trial.rate for trial in search.trials]


def test_a_search_for_the_impossible_costs_a_probe() -> None:
    driver = driver_of([0.1])
    assert driver.search(plan_run("server", limit_s=0.05)).verdict is Verdict.INVALID
    assert len(driver.runs) == 1


def test_the_systems_clock_goes_on_while_it_is_slept_on() -> None:
    clock = SystemClock()
    before = clock.now()
    clock.sleep(0.001)
    assert clock.now() - before >= 0.001
