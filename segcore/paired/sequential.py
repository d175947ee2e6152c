"""When to stop: a group-sequential test on the log ratios of paired blocks.

A *block* is one pair of fresh processes, one per arm, alternated finely while both live; its value is the median of
the log ratios of its alternations. Blocks are independent, because each has processes of its own, and what differs
from one pair of processes to the next (allocator, page layout, where the scheduler puts threads) is noise between
blocks, which more alternations in one pair can never show.

After `LOOKS` blocks the interval of the mean is held against the limit. Looking repeatedly at 95 % each time would
err far more often than 5 %, so the permitted error is spent over the looks: alpha(t) = alpha * t^1.5 of it by the time
that a share t of the largest number of blocks is in (Lan and DeMets 1983, Biometrika 70:659, with the power family
of Kim and DeMets 1987, Biometrika 74:149). Each look gets a t interval at what it may newly spend, so that the total
error is bounded by the sum (Bonferroni): no correlation between looks is assumed, at the price of a little width.
A look that comes early because time ran out spends what its share allows, and the bound still holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from segcore.judgement.statistics import Floats, Interval, trimmed_interval

LOOKS = (4, 6, 9, 13, 18, 24)
"""Numbers of blocks after which a decision may fall."""
MAX_BLOCKS = LOOKS[-1]
ALPHA = 0.025
"""Bound on the chance of ever calling a change beyond the limit that is not, and on that of the converse."""
TRIM = 0.1
"""Share of blocks cut off at each end: one hit by a burst of load must not decide, nor blind, the gate."""

Decision = Literal["pass", "improved", "regressed", "inconclusive"]


@dataclass(frozen=True)
class Look:
    """What is known after some blocks; the interval is of log(head / base), valid although others came before."""

    decision: Decision
    interval: Interval
    blocks: int


def is_look(blocks: int) -> bool:
    """Say whether a decision may fall after this many blocks."""
    return blocks in LOOKS


def look(log_ratios: Sequence[float], limit: float) -> Look:
    """Decide on the blocks seen so far: at one of `LOOKS`, or early, once, when no more can come.

    Args:
        log_ratios: log(head / base) of each block, in the order measured; at least two.
        limit: the largest allowed slowdown, 0.05 for 5 %.
    """
    low, mean, high = map(float, bounds(np.asarray(log_ratios, dtype=np.float64)))
    return Look(decide(low, high, limit), Interval(low, mean, high), len(log_ratios))


def bounds(log_ratios: Floats) -> tuple[Floats, Floats, Floats]:
    """Return low, mean and high of the log ratio after n blocks, which lie along the last axis."""
    n = log_ratios.shape[-1]
    alpha = _spent(n) - _spent(max((k for k in LOOKS if k < n), default=0))
    return trimmed_interval(log_ratios, alpha, TRIM)


def decide(low: float, high: float, limit: float) -> Decision:
    """Hold the bounds of a log ratio against the largest allowed slowdown."""
    allowed = math.log1p(limit)
    if low > allowed:
        return "regressed"
    if high <= allowed:
        return "improved" if high < 0 else "pass"
    return "inconclusive"


def blocks_needed(state: Look, limit: float) -> int:
    """Return about how many more blocks would have decided, if the mean stays where it is and the width shrinks."""
    half = state.interval.high - state.interval.value
    distance = max(abs(state.interval.value - math.log1p(limit)), half / 30)
    return max(1, math.ceil(state.blocks * ((half / distance) ** 2 - 1)))


def smallest_visible(state: Look) -> float:
    """Return the change that this many blocks could have told from none, as a ratio minus one."""
    return math.expm1(state.interval.high - state.interval.value)


def _spent(blocks: int) -> float:
    return ALPHA * float(min(1.0, blocks / MAX_BLOCKS) ** 1.5)
