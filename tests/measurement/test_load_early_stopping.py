from __future__ import annotations

from fractions import Fraction
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.measurement.load.early_stopping import (
    check_limit,
    over_allowed,
    over_invalid,
    percentile_bound,
    queries_needed,
)

PERCENTILES = st.sampled_from([0.5, 0.9, 0.95, 0.97, 0.99])
ONE_PERCENT = Fraction(1, 100)


def at_most(over: int, queries: int, percentile: float) -> Fraction:
    """The binomial distribution, summed exactly: chance of at most so many late ones at the percentile's own rate."""
    late = 1 - Fraction(str(percentile))
    return sum(
        (comb(queries, k) * late**k * (1 - late) ** (queries - k) for k in range(max(over, -1) + 1)), Fraction(0)
    )


@pytest.mark.parametrize(
    ("percentile", "over", "queries"),
    [
        # mlcommons/endpoints#417 gives these of LoadGen: h(0) for p99, and least queries of an estimate, h(1) + 1.
        (0.99, 0, 459),
        (0.90, 1, 64),
        (0.99, 1, 662),
        (0.90, 0, 44),  # ln 0.01 / ln 0.9 = 43.7
    ],
)
def test_least_queries_are_those_of_loadgen(percentile: float, over: int, queries: int) -> None:
    assert queries_needed(over, percentile) == queries


def test_a_large_number_of_late_queries_is_allowed() -> None:
    """With many queries the normal approximation holds: 1 % of n, less 2.33 standard deviations, are allowed."""
    allowed = over_allowed(270_336, 0.99)
    assert allowed == pytest.approx(2703.36 - 2.326 * (2703.36 * 0.99) ** 0.5, abs=3)
    assert queries_needed(allowed, 0.99) <= 270_336 < queries_needed(allowed + 1, 0.99)


@given(st.integers(0, 12), PERCENTILES)
def test_the_queries_needed_are_the_fewest_by_exact_arithmetic(over: int, percentile: float) -> None:
    queries = queries_needed(over, percentile)
    assert at_most(over, queries, percentile) <= ONE_PERCENT < at_most(over, queries - 1, percentile)


@given(st.integers(0, 400), PERCENTILES)
def test_the_numbers_allowed_and_invalid_are_the_last_and_the_first(queries: int, percentile: float) -> None:
    allowed, invalid = over_allowed(queries, percentile), over_invalid(queries, percentile)
    assert at_most(allowed, queries, percentile) <= ONE_PERCENT
    assert allowed + 1 > queries or at_most(allowed + 1, queries, percentile) > ONE_PERCENT
    assert 1 - at_most(invalid - 1, queries, percentile) <= ONE_PERCENT
    assert invalid == 1 or 1 - at_most(invalid - 2, queries, percentile) > ONE_PERCENT
    assert allowed < invalid


def test_the_validity_has_three_values() -> None:
    allowed, invalid = over_allowed(2000, 0.99), over_invalid(2000, 0.99)
    assert 0 < allowed < 20 < invalid
    assert check_limit(2000, allowed, 0.99) == "valid"
    assert check_limit(2000, allowed + 1, 0.99) == check_limit(2000, invalid - 1, 0.99) == "undecided"
    assert check_limit(2000, invalid, 0.99) == "invalid"
    assert check_limit(0, 0, 0.99) == "undecided"


@given(st.integers(0, 300), PERCENTILES)
def test_a_bound_misses_its_percentile_at_most_once_in_a_hundred(queries: int, percentile: float) -> None:
    """The bound is of rank n - k + 1; it lies below the percentile when less than k latencies lie above that."""
    bound = percentile_bound(list(range(queries, 0, -1)), percentile)
    if bound is None:
        assert queries < queries_needed(1, percentile)
        return
    k = queries - int(bound) + 1
    assert at_most(k - 1, queries, percentile) <= ONE_PERCENT
    assert at_most(k, queries, percentile) <= ONE_PERCENT < at_most(k + 1, queries, percentile)  # LoadGen's own t


def test_the_fewest_queries_bound_their_percentile_by_the_highest_latency() -> None:
    latencies = [0.1] * 63 + [0.7]
    assert percentile_bound(latencies, 0.9) == 0.7
    assert percentile_bound(latencies[1:], 0.9) is None
    assert percentile_bound([*latencies, *[0.1] * 20], 0.9) == 0.1  # 84 allow two: the highest is discarded
