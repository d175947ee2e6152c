from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.core.records import Validity
from segcore.measurement.load.search import MAX_RUNS, RESOLUTION, STEP, Search, simulated_rate


def search_for(highest: float, guess: float, lowest: float = 0.1) -> tuple[Search, int]:
    """Search against a machine that keeps the limit up to a rate, and is undecided a little above it."""
    search = Search(guess, lowest, "undecided")
    runs = 0
    while (rate := search.next_rate()) is not None:
        validity: Validity = "valid" if rate <= highest else "undecided" if rate <= 1.1 * highest else "invalid"
        search = search.after(rate, validity)
        runs += 1
    return search, runs


@given(st.floats(1, 100), st.floats(0.25, 4))
def test_a_search_ends_around_the_highest_rate(highest: float, error: float) -> None:
    search, runs = search_for(highest, guess=highest * error)
    assert search.highest_valid is not None
    assert search.lowest_failed is not None
    assert search.highest_valid <= highest < search.lowest_failed <= search.highest_valid * (1 + RESOLUTION)
    assert search.validity == "valid"
    assert runs <= (3 if 1 / STEP < error < STEP else 10)


@given(st.floats(0.001, 1000), st.floats(0.001, 1000))
def test_a_search_always_ends(highest: float, guess: float) -> None:
    search, runs = search_for(highest, max(guess, 0.1))
    assert runs <= MAX_RUNS
    assert all(rate >= search.lowest for rate, _ in search.trials)


def test_no_rate_is_tried_if_queries_alone_break_the_limit() -> None:
    search = Search.after_probe([0.2] * 64, limit_s=0.1, seed=0)
    assert search.next_rate() is None
    assert search.validity == "invalid"


def test_a_search_gives_up_at_the_lowest_rate() -> None:
    search, _ = search_for(0.01, guess=1.0)
    assert search.trials[-1][0] == search.lowest
    assert search.highest_valid is None
    assert search.validity == "invalid"
    assert replace(search, trials=search.trials[:-1]).next_rate() == search.lowest


def test_undecided_never_counts_as_kept() -> None:
    search = Search(10.0, 0.1, "undecided").after(10.0, "undecided")
    assert search.highest_valid is None
    assert search.validity == "undecided"
    assert search.next_rate() == 10.0 / STEP


def test_failures_below_the_highest_valid_rate_are_ignored() -> None:
    search = Search(10.0, 0.1, "undecided").after(10.0, "undecided").after(8.0, "valid").after(9.0, "valid")
    assert (search.highest_valid, search.lowest_failed) == (9.0, 10.0)
    search = search.after(8.5, "invalid")
    assert (search.highest_valid, search.lowest_failed) == (9.0, 10.0)


def test_the_simulation_agrees_with_theory() -> None:
    """Constant service times make it M/D/1, whose waiting times are due to Erlang (1909)."""
    load, quantile = 0.5, 0.99
    steps = np.arange(0.0, 10.0, 0.001)
    waits = next(float(t) for t in steps if erlang_wait(float(t), load) >= quantile)
    assert simulated_rate([0.02] * 10, 0.02 * (1 + waits), quantile, seed=0) == pytest.approx(load / 0.02, rel=0.05)


def erlang_wait(t: float, load: float) -> float:
    """Chance that a query of M/D/1 waits t service times at most."""
    terms = ((load * (k - t)) ** k / math.factorial(k) * math.exp(-load * (k - t)) for k in range(int(t) + 1))
    return (1 - load) * sum(terms)


def test_the_simulation_draws_services_and_arrivals_independently() -> None:
    """M/M/1: sojourn times are exponential with rate (capacity - rate), so their p99 is ln 100 over that."""
    services = -0.02 * np.log1p(-(np.arange(2000) + 0.5) / 2000)
    limit = math.log(100) / (50 - 25)
    assert simulated_rate(services.tolist(), limit, 0.99, seed=0) == pytest.approx(25, rel=0.06)


def test_the_simulated_rate_has_bounds() -> None:
    assert simulated_rate([0.2, 0.3], 0.1, 0.99, seed=0) == 0.0
    assert simulated_rate([0.2], 1e6, 0.99, seed=0) == pytest.approx(5.0, rel=1e-6)  # the machine's capacity
