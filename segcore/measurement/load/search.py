"""Which rate to try next: bracketing and bisection over runs that were made, begun where a simulation says.

Nothing here runs anything or looks at a clock.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segcore.measurement.load.early_stopping import Verdict, judge
from segcore.measurement.load.schedule import PERCENTILES, poisson_arrivals, sojourn_times

PERCENTILE = PERCENTILES["server"]
RESOLUTION = 0.05
"""The search ends with the lowest rate that failed at most this share above the highest that did not."""
STEP = 1.1
"""First step up or down from where the simulation says; each further one is squared. Where the simulation is right
to within a tenth, three runs are all it takes."""
MAX_RUNS = 12
LEAST_LOAD = 0.05
"""No rate is tried at which the server is busy for less than this share of the time."""
SIMULATED_QUERIES = 20_000


@dataclass(frozen=True)
class Trial:
    """A rate that was run, and what came of it."""

    rate: float
    verdict: Verdict


@dataclass(frozen=True)
class Search:
    """What is known of the highest rate, queries per second, that keeps a limit."""

    guess: float
    lowest: float
    """No lower rate is tried."""
    alone: Verdict
    """Of queries that never wait for each other."""
    trials: tuple[Trial, ...] = ()

    @classmethod
    def after_probe(cls, services: Sequence[float], limit_s: float, seed: int) -> Search:
        """Return the search as it begins, from seconds that queries took one by one."""
        lowest = LEAST_LOAD * len(services) / sum(services)
        alone = judge(len(services), sum(service > limit_s for service in services), PERCENTILE)
        return cls(max(lowest, simulated_rate(services, limit_s, PERCENTILE, seed)), lowest, alone)

    def after(self, rate: float, verdict: Verdict) -> Search:
        """Return the search with one more run."""
        return replace(self, trials=(*self.trials, Trial(rate, verdict)))

    @property
    def highest_valid(self) -> float | None:
        """The highest rate that was shown to keep the limit."""
        return max((trial.rate for trial in self.trials if trial.verdict is Verdict.VALID), default=None)

    @property
    def lowest_failed(self) -> float | None:
        """The lowest rate above it that was not shown to: undecided counts as failed, so that no figure flatters."""
        failed = (trial.rate for trial in self.trials if trial.verdict is not Verdict.VALID)
        return min((rate for rate in failed if rate > (self.highest_valid or 0.0)), default=None)

    @property
    def verdict(self) -> Verdict:
        """Whether there is a rate that keeps the limit."""
        if self.highest_valid is not None:
            return Verdict.VALID
        return self.trials[-1].verdict if self.trials else self.alone

    def next_rate(self) -> float | None:
        """Return the rate to try next, None when there is nothing left to find out."""
        valid, failed = self.highest_valid, self.lowest_failed
        if self.alone is Verdict.INVALID or len(self.trials) >= MAX_RUNS:
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
    """Return the highest rate that keeps a percentile within a limit where one server takes these times; 0.0 for none.

    Service times are drawn from those given, with replacement; arrivals are Poisson. The same draws serve every rate,
    so that sojourn times grow with it and bisection is sound.

    Args:
        services: seconds that queries took one by one.
        limit_s: seconds.
        percentile: 0 to 1.
        seed: of arrivals and draws.
    """
    drawn = np.random.default_rng((seed, 1)).choice(np.asarray(services, dtype=np.float64), SIMULATED_QUERIES)
    pattern = poisson_arrivals(1.0, SIMULATED_QUERIES, seed)
    low, high = 0.0, 1 / float(drawn.mean())
    for _ in range(30):
        rate = (low + high) / 2
        kept = np.mean(sojourn_times(pattern / rate, drawn) > limit_s) <= 1 - percentile
        low, high = (rate, high) if kept else (low, rate)
    return low
