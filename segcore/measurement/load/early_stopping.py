"""What a number of queries proves about a percentile: the early stopping rule of MLPerf's LoadGen.

Let n independent queries be served by a system whose p-percentile equals some latency. The number of them over that
latency is binomial, so the chance of at most t is F(t; n, 1 - p). If this is 1 % or less, t queries over a latency
prove that the percentile is within it, at 99 % confidence. Source: MLPerf Inference rules, appendix "Early Stopping
Criterion" (github.com/mlcommons/inference_policies, inference_rules.adoc), with its tolerance d = 0 and confidence
c = 0.99.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from scipy.special import betainc

from segcore.core.records import Validity

CONFIDENCE = 0.99
_CHANCE = 1 - CONFIDENCE
_UNBOUNDED = range(1 << 40)


def queries_needed(over: int, percentile: float) -> int:
    """Return the fewest queries that prove a percentile (0 to 1) to be within a latency, if `over` are over it."""
    return bisect_left(_UNBOUNDED, True, lo=over + 1, key=lambda n: _at_most(over, n, percentile) <= _CHANCE)


def over_allowed(queries: int, percentile: float) -> int:
    """Return how many queries may be over a latency that the percentile is proven to be within; -1 if none may."""
    return bisect_left(range(queries), True, key=lambda t: _at_most(t, queries, percentile) > _CHANCE) - 1


def over_invalid(queries: int, percentile: float) -> int:
    """Return how many queries over a latency prove that the percentile is beyond it."""
    return 1 + bisect_left(range(queries), True, key=lambda t: _more_than(t, queries, percentile) <= _CHANCE)


def _at_most(over: int, queries: int, percentile: float) -> float:
    """Return F(over; queries, 1 - percentile) as an incomplete beta function, for over < queries."""
    return float(betainc(queries - over, over + 1, percentile))


def _more_than(over: int, queries: int, percentile: float) -> float:
    """Return 1 - F without cancellation."""
    return float(betainc(over + 1, queries - over, 1 - percentile))


def check_limit(queries: int, over: int, percentile: float) -> Validity:
    """Return whether a percentile (0 to 1) is within its limit if `over` of the queries were over that limit."""
    if over <= over_allowed(queries, percentile):
        return "valid"
    return "invalid" if over >= over_invalid(queries, percentile) else "undecided"


def percentile_bound(latencies: Sequence[float], percentile: float) -> float | None:
    """Return the latency that a percentile (0 to 1) is within at 99 % confidence; None if there are too few queries.

    This is LoadGen's estimate for its single-stream and multi-stream scenarios: with t over-latency queries allowed,
    discard the t - 1 highest latencies and take the highest of the rest. It needs ``queries_needed(1, percentile)``
    latencies: 64 for the 90th percentile and 662 for the 99th.
    """
    allowed = over_allowed(len(latencies), percentile)
    return sorted(latencies)[-allowed] if allowed > 0 else None
