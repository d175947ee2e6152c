"""When queries arrive in each scenario, and their latencies if one server takes them in order.

Scenarios after MLPerf Inference (Reddi et al. 2020, arXiv:1911.02549, and github.com/mlcommons/inference_policies):
they differ in when the next query arrives and in which percentile of the latency counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt

from segcore.core.records import Scenario
from segcore.measurement.load.early_stopping import queries_needed

Floats = npt.NDArray[np.float64]

PERCENTILES: dict[Scenario, float] = {"single-stream": 0.90, "multi-stream": 0.99, "server": 0.99}
"""The percentile that counts; in the offline scenario throughput counts instead."""
MIN_SECONDS = 10.0
"""Default minimum duration of a run; LoadGen's is 600."""
MIN_BATCHES = 3
SEARCH_RUNS = 3
"""Runs that a search usually takes, for forecasts."""


@dataclass(frozen=True)
class LoadPlan:
    """A load run to be made."""

    scenario: Scenario
    batch: int = 1
    """Photos per query."""
    min_queries: int = 1
    min_seconds: float = 0.0
    rate: float | None = None
    """Queries per second in the server scenario; None if the rate is to be searched."""
    seed: int = 0
    """Of the arrivals in the server scenario."""
    limit_s: float | None = None
    """Limit on the 99th percentile in the server scenario."""

    @property
    def is_search(self) -> bool:
        """Whether the rate is to be searched."""
        return self.scenario == "server" and self.rate is None

    @property
    def queries(self) -> int:
        """Minimum number of queries; in the server scenario the exact number."""
        return max(self.min_queries, math.ceil((self.rate or 0.0) * self.min_seconds))

    def is_done(self, queries: int, elapsed_s: float) -> bool:
        """Return whether a run of so many queries and seconds may end."""
        return queries >= self.queries and elapsed_s >= self.min_seconds

    def arrivals(self) -> Iterable[float | None]:
        """Return when each query is due, seconds from the start; None for as soon as the previous one has finished."""
        if self.rate is not None:
            arrivals: list[float] = poisson_arrivals(self.rate, self.queries, self.seed).tolist()
            return arrivals
        return repeat(0.0 if self.scenario == "offline" else None)

    def expected_seconds(self, query_s: float) -> float:
        """Return about how long the run takes if a query takes `query_s` seconds."""
        if self.is_search:  # at about half of what the server can do
            return SEARCH_RUNS * max(self.queries * 2 * query_s, self.min_seconds)
        return max(self.queries * (1 / self.rate if self.rate else query_s), self.min_seconds)


def plan_load(
    scenario: Scenario,
    batch: int = 1,
    *,
    queries: int | None = None,
    seconds: float | None = None,
    rate: float | None = None,
    seed: int = 0,
    limit_s: float | None = None,
) -> LoadPlan:
    """Return the plan of a run of a number of queries or of a duration.

    By default it has as many queries as its percentile needs, and takes at least `MIN_SECONDS`. A search makes runs of
    at least as many queries at any rate.
    """
    needed = queries_needed(1, PERCENTILES[scenario]) if scenario in PERCENTILES else MIN_BATCHES
    if queries is not None:
        least, seconds = queries, 0.0
    elif seconds is not None:
        least = needed if scenario == "server" and rate is None else 1
    else:
        least, seconds = needed, MIN_SECONDS
    return LoadPlan(scenario, batch, least, seconds, rate, seed, limit_s)


def poisson_arrivals(rate: float, queries: int, seed: int) -> Floats:
    """Return arrival times in seconds with exponential gaps; a seed has one pattern, scaled to the rate."""
    return np.random.default_rng(seed).exponential(size=queries).cumsum() / rate


def sojourn_times(arrivals: Floats, services: Floats) -> Floats:
    """Return how long queries wait and are served, seconds, if one server takes them in order of arrival.

    Lindley's recursion W' = max(0, W + service - gap) (1952, Proc. Cambridge Phil. Soc. 48:277), unrolled: the wait is
    the height of the running sum of (service - gap) above its minimum so far.
    """
    walk = np.concatenate(([0.0], np.cumsum(services[:-1] - np.diff(arrivals))))
    return np.asarray(walk - np.minimum.accumulate(walk) + services)
