"""Load runs: wait for queries, serve them one after the other, and time them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from segcore.core.records import LoadRecord, LoadTrialRecord, Validity
from segcore.measurement.load.early_stopping import check_limit, over_invalid, percentile_bound, queries_needed
from segcore.measurement.load.schedule import PERCENTILES, LoadPlan
from segcore.measurement.load.search import Search

PROBE_QUERIES = queries_needed(1, 0.90)
"""Queries that a search serves one by one before it tries rates."""
BOUNDS = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
"""Percentiles that are recorded, if there are enough queries to prove a bound."""


class Clock(Protocol):
    """Time in seconds from any fixed moment."""

    def now(self) -> float:
        """Return the time."""

    def sleep(self, seconds: float) -> None:
        """Return after so many seconds."""


class SystemClock:
    """The clock of this process."""

    now = staticmethod(time.perf_counter)
    sleep = staticmethod(time.sleep)


class Query(NamedTuple):
    """Times of one query, in seconds from the start of the run."""

    scheduled_s: float
    started_s: float
    latency_s: float
    """From when the query was due to its end, so that waiting counts (no coordinated omission)."""

    @property
    def ended_s(self) -> float:
        """When it was finished."""
        return self.scheduled_s + self.latency_s


@dataclass(frozen=True)
class LoadRun:
    """A completed or interrupted load run."""

    plan: LoadPlan
    queries: tuple[Query, ...]
    """In order of arrival; fewer than planned if the rest could not have changed the validity."""

    @property
    def latencies_s(self) -> tuple[float, ...]:
        """Latency of each query."""
        return tuple(query.latency_s for query in self.queries)

    @property
    def services_s(self) -> tuple[float, ...]:
        """Time that each query took once it had started."""
        return tuple(query.ended_s - query.started_s for query in self.queries)

    @property
    def elapsed_s(self) -> float:
        """Time until the last query was finished."""
        return self.queries[-1].ended_s if self.queries else 0.0

    @property
    def images_per_s(self) -> float:
        """Throughput; 0.0 without queries."""
        return self.plan.batch * len(self.queries) / self.elapsed_s if self.queries else 0.0

    @property
    def utilization(self) -> float:
        """Seconds of work for the server that arrive per second; from 1 on, the queue grows forever."""
        return (self.plan.rate or 0.0) * sum(self.services_s) / max(1, len(self.queries))

    @property
    def over(self) -> int:
        """Number of queries that took longer than the limit."""
        return sum(latency > (self.plan.limit_s or math.inf) for latency in self.latencies_s)

    @property
    def validity(self) -> Validity | None:
        """Whether the percentile that counts keeps the limit; None without a limit."""
        if self.plan.limit_s is None:
            return None
        percentile = PERCENTILES[self.plan.scenario]
        return "invalid" if self.utilization >= 1 else check_limit(len(self.queries), self.over, percentile)


def serve_all(serve: Callable[[], object], arrivals: Iterable[float | None], clock: Clock) -> Iterator[Query]:
    """Serve queries in order of arrival, one at a time, and yield each when it is finished.

    `arrivals` are when each query is due, seconds from now; None for as soon as the previous one has finished.
    """
    start = clock.now()
    for due in arrivals:
        early = 0.0 if due is None else due - (clock.now() - start)
        if early > 0:
            clock.sleep(early)
        started = clock.now() - start
        serve()
        scheduled = started if due is None else due
        yield Query(scheduled, started, clock.now() - start - scheduled)


@dataclass
class Driver:
    """Makes load runs with `serve`, which executes one query, and keeps them, including one that is interrupted."""

    serve: Callable[[], object]
    clock: Clock = field(default_factory=SystemClock)
    runs: list[LoadRun] = field(default_factory=list)

    def run(self, plan: LoadPlan) -> LoadRun:
        """Make one run; it ends early once so many queries were late that it cannot be valid any more."""
        limit_s = math.inf if plan.limit_s is None else plan.limit_s
        too_many = math.inf if plan.limit_s is None else over_invalid(plan.queries, PERCENTILES[plan.scenario])
        queries: list[Query] = []
        over = 0
        try:
            for query in serve_all(self.serve, plan.arrivals(), self.clock):
                queries.append(query)
                over += query.latency_s > limit_s
                if over >= too_many or plan.is_done(len(queries), query.ended_s):
                    break
        finally:
            self.runs.append(LoadRun(plan, tuple(queries)))
        return self.runs[-1]

    def search(self, plan: LoadPlan) -> Search:
        """Search the highest rate that keeps the limit of a plan of the server scenario, whose own rate is replaced.

        A probe and a simulation choose the first rate, runs decide.
        """
        assert plan.limit_s is not None
        probe = self.run(LoadPlan("single-stream", min_queries=PROBE_QUERIES))
        search = Search.after_probe(probe.latencies_s, plan.limit_s, plan.seed)
        while (rate := search.next_rate()) is not None:
            validity = self.run(replace(plan, rate=rate)).validity
            assert validity is not None
            search = search.after(rate, validity)
        return search


def load_samples(plan: LoadPlan, runs: list[LoadRun]) -> tuple[float, ...]:
    """Return the samples by which a load item is judged, in seconds.

    They are the latencies of the queries. In the offline scenario, where latencies only count up, they are the times of
    the batches; for a search, whose rates differ from run to run, they are the latencies of its probe.
    """
    return runs[0].services_s if plan.scenario == "offline" else runs[0].latencies_s


def load_record(plan: LoadPlan, runs: list[LoadRun], search: Search | None = None) -> LoadRecord:
    """Return the record of a run, or of the runs of a search; `search` is its result, None if it was interrupted."""
    trials = [run for run in runs if run.plan.rate is not None] if plan.is_search else []
    valid = [run for run in trials if run.validity == "valid"]
    best = max(valid, key=lambda run: run.plan.rate or 0.0, default=None) if plan.is_search else runs[-1]
    shown = LoadRun(plan, ()) if best is None else best
    bounded = {} if plan.scenario == "offline" else BOUNDS
    bounds = {name: percentile_bound(shown.latencies_s, percentile) for name, percentile in bounded.items()}
    return LoadRecord(
        seed=plan.seed,
        rate=plan.rate,
        max_p99_ms=None if plan.limit_s is None else 1e3 * plan.limit_s,
        validity=search.validity if search else "undecided" if plan.is_search else shown.validity,
        queries=len(shown.queries),
        over=shown.over,
        images_per_s=shown.images_per_s if shown.queries else None,
        bounds_s={name: bound for name, bound in bounds.items() if bound is not None},
        highest_rate=search.highest_valid if search else None,
        lowest_failed_rate=search.lowest_failed if search else None,
        trials=tuple(
            LoadTrialRecord(
                rate=run.plan.rate or 0.0, validity=run.validity or "undecided", latencies_s=run.latencies_s
            )
            for run in trials
        ),
    )
