"""Which rate to try next: bracketing and bisection over completed runs, started from a simulation.

Nothing here runs a model or reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segcore.core.records import Validity
from segcore.measurement.load.early_stopping import check_limit
from segcore.measurement.load.schedule import PERCENTILES, poisson_arrivals, sojourn_times

PERCENTILE = PERCENTILES["server"]
RESOLUTION = 0.05
"""The search ends when the lowest rate that failed is within this share above the highest that did not."""
STEP = 1.1
"""First step up or down from the simulated rate; each further step is the square of the one before. If the simulation
is right to within a tenth, three runs suffice."""
MAX_RUNS = 12
MIN_UTILIZATION = 0.05
"""No rate is tried at which the server is busy for less than this share of the time."""
SIMULATED_QUERIES = 20_000


@dataclass(frozen=True)
class Search:
    """What is known about the highest rate, in queries per second, that keeps a limit."""

    guess: float
    lowest: float
    """No lower rate is tried."""
    alone: Validity
    """Of queries that never wait for each other."""
    trials: tuple[tuple[float, Validity], ...] = ()
    """Each rate that was run, and whether it kept the limit."""

    @classmethod
    def after_probe(cls, services: Sequence[float], limit_s: float, seed: int) -> Search:
        """Return the initial search, given the seconds that queries took one by one."""
        lowest = MIN_UTILIZATION * len(services) / sum(services)
        alone = check_limit(len(services), sum(service > limit_s for service in services), PERCENTILE)
        return cls(max(lowest, simulated_rate(services, limit_s, PERCENTILE, seed)), lowest, alone)

    def after(self, rate: float, validity: Validity) -> Search:
        """Return the search with one more trial."""
        return replace(self, trials=(*self.trials, (rate, validity)))

    @property
    def highest_valid(self) -> float | None:
        """The highest rate that was proven to keep the limit."""
        return max((rate for rate, validity in self.trials if validity == "valid"), default=None)

    @property
    def lowest_failed(self) -> float | None:
        """The lowest rate above that was not proven to keep it; undecided counts as failed."""
        failed = (rate for rate, validity in self.trials if validity != "valid")
        return min((rate for rate in failed if rate > (self.highest_valid or 0.0)), default=None)

    @property
    def validity(self) -> Validity:
        """Whether there is a rate that keeps the limit."""
        if self.highest_valid is not None:
            return "valid"
        return self.trials[-1][1] if self.trials else self.alone

    def next_rate(self) -> float | None:
        """Return the rate to try next; None if the search has ended."""
        valid, failed = self.highest_valid, self.lowest_failed
        if self.alone == "invalid" or len(self.trials) >= MAX_RUNS:
            return None
        stride = STEP ** (2 ** (len(self.trials) - 1)) if self.trials else 1.0
        if valid is not None and failed is not None:
            return math.sqrt(valid * failed) if failed > valid * (1 + RESOLUTION) else None
        if valid is not None:
            return valid * stride
        if failed is not None:
            return max(self.lowest, failed / stride) if failed > self.lowest else None
        return self.guess


def simulated_rate(services: Sequence[float], limit_s: float, percentile: float, seed: int) -> float:
    """Return the highest rate (queries/s) at which one server keeps a percentile (0 to 1) within a limit; 0.0 if none.

    Service times are drawn with replacement from `services`; arrivals are Poisson. All rates share the same draws, so
    that sojourn times grow with the rate and bisection is sound.
    """
    drawn = np.random.default_rng((seed, 1)).choice(np.asarray(services, dtype=np.float64), SIMULATED_QUERIES)
    pattern = poisson_arrivals(1.0, SIMULATED_QUERIES, seed)
    low, high = 0.0, 1 / float(drawn.mean())
    for _ in range(30):
        rate = (low + high) / 2
        kept = np.mean(sojourn_times(pattern / rate, drawn) > limit_s) <= 1 - percentile
        low, high = (rate, high) if kept else (low, rate)
    return low
