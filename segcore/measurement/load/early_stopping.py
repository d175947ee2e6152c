"""What a number of queries proves of a percentile: the early stopping rule of MLPerf's LoadGen.

Taken as independent, queries are over a latency like throws of a coin. For a system whose p-percentile is just at that
latency, the chance of at most t such queries among n is the binomial F(t; n, 1 - p); where that is 1 % or less, the
percentile is within the latency at 99 % confidence. Source: MLPerf Inference rules, appendix "Early Stopping Criterion"
(github.com/mlcommons/inference_policies, inference_rules.adoc), with its tolerance d = 0 and confidence c = 0.99.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from enum import StrEnum

from scipy.special import betainc

CONFIDENCE = 0.99
_CHANCE = 1 - CONFIDENCE
_ENDLESS = range(1 << 40)


class Verdict(StrEnum):
    """What queries say of a percentile and its limit, at `CONFIDENCE`."""

    VALID = "valid"
    INVALID = "invalid"
    UNDECIDED = "undecided"


def queries_needed(over: int, percentile: float) -> int:
    """Return the fewest queries that show a percentile (0 to 1) to be within a latency with `over` of them over it."""
    return bisect_left(_ENDLESS, True, lo=over + 1, key=lambda n: _at_most(over, n, percentile) <= _CHANCE)


def over_allowed(queries: int, percentile: float) -> int:
    """Return how many of these queries may be over a latency that the percentile is shown to be within; -1 for none."""
    return bisect_left(range(queries), True, key=lambda t: _at_most(t, queries, percentile) > _CHANCE) - 1


def over_condemning(queries: int, percentile: float) -> int:
    """Return how many of these queries over a latency show, the same way, that the percentile is beyond it."""
    return 1 + bisect_left(range(queries), True, key=lambda t: _more_than(t, queries, percentile) <= _CHANCE)


def _at_most(over: int, queries: int, percentile: float) -> float:
    """F(over; queries, 1 - percentile) as an incomplete beta function, for over < queries."""
    return float(betainc(queries - over, over + 1, percentile))


def _more_than(over: int, queries: int, percentile: float) -> float:
    """1 - F, without the cancellation."""
    return float(betainc(over + 1, queries - over, 1 - percentile))


def judge(queries: int, over: int, percentile: float) -> Verdict:
    """Return whether a percentile (0 to 1) is within its limit, `over` of the queries having been over it."""
    if over <= over_allowed(queries, percentile):
        return Verdict.VALID
    return Verdict.INVALID if over >= over_condemning(queries, percentile) else Verdict.UNDECIDED


def percentile_bound(latencies: Sequence[float], percentile: float) -> float | None:
    """Return the latency that a percentile (0 to 1) is within at 99 % confidence; None where there are too few queries.

    LoadGen's estimate for its single-stream and multi-stream scenarios: the t - 1 highest latencies are discarded, t
    being the most over-latency queries that are allowed, and the highest of the rest is taken. It takes
    ``queries_needed(1, percentile)`` latencies, 64 for the 90th percentile and 662 for the 99th.
    """
    allowed = over_allowed(len(latencies), percentile)
    return sorted(latencies)[-allowed] if allowed > 0 else None
