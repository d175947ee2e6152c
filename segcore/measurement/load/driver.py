"""Runs that are really made: queries are waited for, served and timed, one after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

from segcore.measurement.load.early_stopping import Verdict, judge, over_condemning, queries_needed
from segcore.measurement.load.schedule import PERCENTILES, Plan
from segcore.measurement.load.search import Search

PROBE_QUERIES = queries_needed(1, 0.90)
"""Served one by one before rates are tried."""


class Clock(Protocol):
    """Tells the time and lets it pass."""

    def now(self) -> float:
        """Return seconds from any fixed moment."""

    def sleep(self, seconds: float) -> None:
        """Return when they have passed."""


class SystemClock:
    """The clock of this process."""

    now = staticmethod(time.perf_counter)
    sleep = staticmethod(time.sleep)


class Query(NamedTuple):
    """One query; seconds from the start of the run."""

    scheduled_s: float
    started_s: float
    latency_s: float
    """From when it was due to its end: one that had to wait for others is not forgiven (no coordinated omission)."""
    samples: int


@dataclass(frozen=True)
class Run:
    """A run that was made."""

    plan: Plan
    queries: tuple[Query, ...]
    """In the order they came. They may be fewer than planned: where the rest could not have changed the verdict."""
    complete: bool
    """False where it was interrupted."""

    @property
    def latencies_s(self) -> tuple[float, ...]:
        """Seconds of each query."""
        return tuple(query.latency_s for query in self.queries)

    @property
    def elapsed_s(self) -> float:
        """Seconds to the end of the last query."""
        return self.queries[-1].scheduled_s + self.queries[-1].latency_s if self.queries else 0.0

    @property
    def samples_per_s(self) -> float:
        """Photos per second, 0.0 where there are none."""
        return sum(query.samples for query in self.queries) / self.elapsed_s if self.queries else 0.0

    @property
    def load(self) -> float:
        """Seconds that the server needs for what comes in a second: from 1 on, the queue grows for ever."""
        services = [query.scheduled_s + query.latency_s - query.started_s for query in self.queries]
        return (self.plan.rate or 0.0) * sum(services) / max(1, len(services))

    @property
    def over(self) -> int:
        """How many queries took longer than the limit."""
        return sum(latency > (self.plan.limit_s or math.inf) for latency in self.latencies_s)

    @property
    def verdict(self) -> Verdict | None:
        """Whether the percentile that counts keeps the limit; None where there is none."""
        if self.plan.limit_s is None:
            return None
        percentile = PERCENTILES[self.plan.scenario]
        return Verdict.INVALID if self.load >= 1 else judge(len(self.queries), self.over, percentile)


def serve_all(
    serve: Callable[[int], object], arrivals: Iterable[tuple[float | None, int]], clock: Clock
) -> Iterator[Query]:
    """Serve queries in the order they come and yield each when it is done: one server, first in, first out.

    Args:
        serve: executes a query of so many photos, and returns when it is finished.
        arrivals: when each query is due, seconds from now, or None for when the last one is done; and its photos.
        clock: is slept on until a query is due.
    """
    begun = clock.now()
    for at, samples in arrivals:
        early = 0.0 if at is None else at - (clock.now() - begun)
        if early > 0:
            clock.sleep(early)
        started = clock.now() - begun
        serve(samples)
        scheduled = started if at is None else at
        yield Query(scheduled, started, clock.now() - begun - scheduled, samples)


@dataclass
class Driver:
    """Makes runs and keeps them, also the one that is interrupted.

    Args:
        serve: executes a query of so many photos.
        watch: is told the plan and the share of it that is done, 0 to 1, after each query.
        ended: is told each run that a search has made.
        clock: of the runs.
    """

    serve: Callable[[int], object]
    watch: Callable[[Plan, float], None] = lambda plan, share: None
    ended: Callable[[Run], None] = lambda run: None
    clock: Clock = field(default_factory=SystemClock)
    runs: list[Run] = field(default_factory=list)

    def run(self, plan: Plan) -> Run:
        """Make one run; it ends early where so many queries were late that the rest could not save it."""
        limited = plan.limit_s is not None
        condemning = over_condemning(plan.queries, PERCENTILES[plan.scenario]) if limited else math.inf
        queries: list[Query] = []
        late, complete = 0, False
        try:
            for query in serve_all(self.serve, plan.arrivals(), self.clock):
                queries.append(query)
                late += query.latency_s > (plan.limit_s or math.inf)
                share = plan.share(len(queries), query.scheduled_s + query.latency_s)
                self.watch(plan, share)
                if share >= 1 or late >= condemning:
                    break
            complete = True
        finally:
            self.runs.append(Run(plan, tuple(queries), complete))
        return self.runs[-1]

    def search(self, plan: Plan) -> Search:
        """Find the highest rate that keeps the limit: a probe and a simulation say where to begin, runs decide.

        Args:
            plan: of the server scenario, with its limit; its rate is replaced.
        """
        assert plan.limit_s is not None
        probe = self.run(Plan("single-stream", least=PROBE_QUERIES))
        search = Search.after_probe(probe.latencies_s, plan.limit_s, plan.seed)
        while (rate := search.next_rate()) is not None:
            run = self.run(replace(plan, rate=rate))
            self.ended(run)
            assert run.verdict is not None
            search = search.after(rate, run.verdict)
        return search
