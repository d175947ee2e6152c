from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.paired.audit import simulate_gates
from segcore.paired.sequential import (
    ALPHA,
    LOOKS,
    MAX_BLOCKS,
    blocks_needed,
    look,
    smallest_visible,
)
from tools.gate_simulation import Noise, simulate

TRIALS = 400
"""Of each simulation here; ``python -m tools.gate_simulation`` runs 2,000."""


def test_clear_cases_are_decided_at_the_first_look() -> None:
    assert look([0.001, -0.001, 0.002, 0.0], 0.05).decision == "pass"
    assert look([0.301, 0.299, 0.302, 0.3], 0.05).decision == "regressed"
    assert look([-0.301, -0.299, -0.302, -0.3], 0.05).decision == "improved"
    assert look([0.3, -0.2, 0.1, 0.0], 0.05).decision == "inconclusive"


@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=MAX_BLOCKS))
def test_swapping_the_arms_mirrors_the_look(ratios: list[float]) -> None:
    there, back = look(ratios, 0.05), look([-r for r in ratios], 0.05)
    assert there.interval.low == pytest.approx(-back.interval.high, abs=1e-12)
    assert there.interval.value == pytest.approx(-back.interval.value, abs=1e-12)
    assert not (there.decision == "regressed" and back.decision != "improved")


def test_the_error_spent_over_all_looks_is_alpha() -> None:
    """At a true change of exactly the limit, each wrong decision stays within its bound despite repeated looks."""
    decisions, _ = simulate(0.05, 0.05, 1500, Noise(outlier_share=0, wide_pair_share=0))
    bound = ALPHA + 3 * math.sqrt(ALPHA / 1500)
    assert decisions["regressed"] / 1500 <= bound
    assert decisions["pass"] / 1500 <= bound


def test_repeated_looks_at_a_plain_interval_err_more_often() -> None:
    """More than twice as often: the bound above is not trivial."""
    from segcore.judgement.statistics import trimmed_interval

    rng = np.random.default_rng(0)
    blocks = rng.normal(math.log(1.05), 0.04, (1500, MAX_BLOCKS))
    wrong = sum(any(trimmed_interval(row[:n], 0.025, 0.0)[0] > math.log(1.05) for n in LOOKS) for row in blocks)
    assert wrong / 1500 > 2 * ALPHA


@pytest.mark.parametrize(
    ("slowdown", "noise"),
    [(0.0, Noise()), (0.0, Noise(outlier_share=0.2)), (0.10, Noise()), (0.20, Noise())],
)
def test_error_rates_under_the_noise_model(slowdown: float, noise: Noise) -> None:
    decisions, blocks = simulate(slowdown, 0.05, TRIALS, noise, seed=1)
    if slowdown == 0.0:
        assert decisions["regressed"] <= 0.005 * TRIALS
        assert decisions["pass"] >= 0.90 * TRIALS
    else:
        assert decisions["pass"] == 0
        assert decisions["regressed"] >= 0.95 * TRIALS
    assert LOOKS[0] <= blocks <= MAX_BLOCKS


def test_too_much_noise_is_inconclusive() -> None:
    decisions, blocks = simulate(0.0, 0.05, 200, Noise(between_pairs=0.3))
    assert decisions["regressed"] <= 2
    assert decisions["inconclusive"] >= 150
    assert blocks > 20


def test_a_gate_stops_at_the_first_look_that_decides() -> None:
    blocks = np.full(MAX_BLOCKS, 0.5)
    blocks[::2] += 0.001
    decisions, used = simulate_gates(np.stack([blocks, -blocks, blocks * 0]), 0.05)
    assert decisions == {"regressed": 1, "pass": 2}
    assert used == LOOKS[0]


def test_simulated_gates_decide_as_the_gate_does() -> None:
    rows = Noise().blocks(0.04, 40, np.random.default_rng(2))
    for row in rows:
        first = next((s for n in LOOKS if (s := look(row[:n].tolist(), 0.05)).decision != "inconclusive"), None)
        state = first or look(row.tolist(), 0.05)
        decision = "pass" if state.decision == "improved" else state.decision
        assert simulate_gates(row[None], 0.05) == ({decision: 1}, state.blocks)


def test_an_early_last_look_spends_no_more_than_its_share() -> None:
    """Out of time after five blocks: wider than the plain interval, narrower than infinity."""
    from segcore.judgement.statistics import trimmed_interval

    ratios = [0.01, 0.03, -0.02, 0.0, 0.02]
    early, plain = look(ratios, 0.05).interval, trimmed_interval(np.array(ratios), ALPHA)
    assert plain[2] < early.high < 1.0


def test_an_inconclusive_look_estimates_what_would_decide() -> None:
    state = look([0.10, -0.02, 0.05, 0.03, -0.04, 0.06], 0.05)
    assert state.decision == "inconclusive"
    assert blocks_needed(state, 0.05) > 6
    assert smallest_visible(state) == pytest.approx(math.expm1(state.interval.high - state.interval.value))
