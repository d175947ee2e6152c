"""Stopping rule of the paired gate: a group-sequential test on the log ratios of paired blocks.

A *block* is one pair of fresh processes, one per arm, that are measured in alternation; its value is the median log
ratio of its alternations. Blocks are independent because each has its own processes.

After each number of blocks in `LOOKS`, the interval of the mean is compared with the limit, at the error that the look
newly spends: see `segcore.judgement.sequential`. So the bound also holds for a last look that comes early.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segcore.judgement.gate.verdict import Verdict, decide
from segcore.judgement.sequential import error_of_look
from segcore.judgement.statistics import Floats, Interval, trimmed_interval

LOOKS = (4, 6, 9, 13, 18, 24)
"""Numbers of blocks after which the gate may decide."""
MAX_BLOCKS = LOOKS[-1]
ALPHA = 0.025
"""Bound on the probability of ever reporting a change beyond the limit that is not, and vice versa."""
TRIM = 0.1
"""Share of blocks trimmed at each end, because some are hit by a burst of load."""


@dataclass(frozen=True)
class Look:
    """Decision after some blocks, with an interval of log(head / base) that is valid despite earlier looks."""

    decision: Verdict
    interval: Interval
    blocks: int


def look(log_ratios: Sequence[float], limit: float) -> Look:
    """Decide from the blocks so far: at one of `LOOKS`, or earlier if no more blocks can follow.

    Args:
        log_ratios: log(head / base) of each block, in order; at least two.
        limit: the largest allowed slowdown, 0.05 for 5 %.
    """
    low, mean, high = map(float, bounds(np.asarray(log_ratios, dtype=np.float64)))
    found = Interval(low, mean, high)
    return Look(decide(found, math.log1p(limit), improved_below=0.0), found, len(log_ratios))


def bounds(log_ratios: Floats) -> tuple[Floats, Floats, Floats]:
    """Return lower bound, mean and upper bound of the log ratio for blocks along the last axis."""
    n = log_ratios.shape[-1]
    return trimmed_interval(log_ratios, error_of_look(n, LOOKS, ALPHA, 1.5), TRIM)


def blocks_needed(state: Look, limit: float) -> int:
    """Estimate how many more blocks would decide if the mean stays the same and the interval narrows."""
    half = state.interval.high - state.interval.value
    distance = max(abs(state.interval.value - math.log1p(limit)), half / 30)
    return max(1, math.ceil(state.blocks * ((half / distance) ** 2 - 1)))


def smallest_visible(state: Look) -> float:
    """Return the smallest change that this many blocks can distinguish from none, as a ratio minus one."""
    return math.expm1(state.interval.high - state.interval.value)
