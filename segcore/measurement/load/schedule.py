"""When queries come in each scenario, and how long they stay where one server takes them in their order.

Scenarios after MLPerf Inference (Reddi et al. 2020, arXiv:1911.02549, and github.com/mlcommons/inference_policies):
they differ in when the next query comes, and in the percentile of the latency that counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
import numpy.typing as npt

from segcore.measurement.load.early_stopping import queries_needed

Floats = npt.NDArray[np.float64]
Scenario = Literal["offline", "single-stream", "multi-stream", "server"]

PERCENTILES: dict[Scenario, float] = {"single-stream": 0.90, "multi-stream": 0.99, "server": 0.99}
"""Of the offline scenario it is the throughput that counts."""
LEAST_SECONDS = 10.0
"""What a run takes at least where nothing is said of its length; LoadGen's takes 600."""
LEAST_BATCHES = 3


@dataclass(frozen=True)
class Plan:
    """A run before it is made; it has `least` photos and lasts for `seconds`, or longer."""

    scenario: Scenario
    samples: int = 1
    """Photos in a query."""
    least: int = 1
    seconds: float = 0.0
    rate: float | None = None
    """Queries per second, in the server scenario."""
    seed: int = 0
    limit_s: float | None = None
    """For the 99th percentile, in the server scenario."""

    @property
    def queries(self) -> int:
        """How many queries there are at least; in the server scenario exactly."""
        return max(math.ceil(self.least / self.samples), math.ceil((self.rate or 0.0) * self.seconds))

    def share(self, queries: int, elapsed_s: float) -> float:
        """Return how much of the run is done, 0 to 1."""
        return min(1.0, queries / self.queries, elapsed_s / self.seconds if self.seconds else 1.0)

    def arrivals(self) -> Iterator[tuple[float | None, int]]:
        """Yield when each query is due, seconds from the start (None: when the last one is done), and its photos."""
        if self.rate is not None:
            yield from ((at, 1) for at in poisson_arrivals(self.rate, self.queries, self.seed).tolist())
            return
        for done in count(0, self.samples):
            left = self.samples if self.seconds else min(self.samples, self.least - done)
            yield 0.0 if self.scenario == "offline" else None, left


def plan_run(
    scenario: Scenario,
    samples: int = 1,
    *,
    queries: int | None = None,
    seconds: float | None = None,
    rate: float | None = None,
    seed: int = 0,
    limit_s: float | None = None,
) -> Plan:
    """Return the plan of a run by its queries (offline: photos) or its seconds.

    Where neither is given, it has as many queries as its percentile takes, and `LEAST_SECONDS`. Where the rate is yet
    to be searched, it has as many at any rate.
    """
    enough = (queries_needed(1, PERCENTILES[scenario]) if scenario in PERCENTILES else LEAST_BATCHES) * samples
    if queries is not None:
        least, seconds = queries * (samples if scenario in PERCENTILES else 1), 0.0
    elif seconds is not None:
        least = enough if scenario == "server" and rate is None else 1
    else:
        least, seconds = enough, LEAST_SECONDS
    return Plan(scenario, samples, least, seconds, rate, seed, limit_s)


def poisson_arrivals(rate: float, queries: int, seed: int) -> Floats:
    """Return when queries come, seconds: gaps are exponential, and of one pattern at all rates of a seed."""
    return np.random.default_rng(seed).exponential(size=queries).cumsum() / rate


def sojourn_times(arrivals: Floats, services: Floats) -> Floats:
    """Return how long queries wait and are served, seconds, where one server takes them in the order they come.

    Lindley's recursion W' = max(0, W + service - gap) (1952, Proc. Cambridge Phil. Soc. 48:277), unrolled: the wait is
    how far the sum of (service - gap) lies above the lowest that it has been.
    """
    walk = np.concatenate(([0.0], np.cumsum(services[:-1] - np.diff(arrivals))))
    return np.asarray(walk - np.minimum.accumulate(walk) + services)
