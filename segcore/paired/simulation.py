"""How often the paired gate errs, under a noise model: ``python -m segcore.paired.simulation``.

The gate's own decision code runs on simulated blocks. What is drawn: the ratio of one pair of processes to the next
(normal, and now and then several times as wide), the ratio of one alternation to the next within a pair (normal), and
outliers, an alternation of which one side was hit by something else (exponential, either sign).
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from segcore.judgement.statistics import Floats, share_interval
from segcore.paired.sequential import LOOKS, MAX_BLOCKS, bounds, decide

ALTERNATIONS = 24
"""Alternations of one block: a pair of processes takes turns this often."""
SLOWDOWNS = (0.0, 0.05, 0.10, 0.20)


@dataclass(frozen=True)
class Noise:
    """Standard deviations in log; the first two as measured with a 50 ms network on a shared two-core machine."""

    between_pairs: float = 0.036
    within_pair: float = 0.086
    outlier_share: float = 0.05
    """Of alternations."""
    outlier_scale: float = 0.5
    """Mean of the exponential log ratio that an outlier adds: +65 %."""
    wide_pair_share: float = 0.05
    """Of pairs; their deviation is three times as wide."""

    def blocks(self, slowdown: float, trials: int, rng: np.random.Generator) -> Floats:
        """Draw the log ratios of all blocks of `trials` gates, shape (trials, MAX_BLOCKS)."""
        shape = (trials, MAX_BLOCKS)
        wide = np.where(rng.random(shape) < self.wide_pair_share, 3.0, 1.0)
        pairs = rng.normal(0.0, self.between_pairs, shape) * wide
        alternations = rng.normal(0.0, self.within_pair, (*shape, ALTERNATIONS))
        hit = rng.random(alternations.shape) < self.outlier_share
        size = rng.exponential(self.outlier_scale, alternations.shape)
        alternations += hit * size * rng.choice((-1.0, 1.0), alternations.shape)
        centre: Floats = np.median(alternations, axis=2)
        return math.log1p(slowdown) + pairs + centre


def gates(blocks: Floats, limit: float) -> tuple[Counter[str], float]:
    """Run a gate over each row of log ratios; return how often each decision fell, and the mean number of blocks.

    `improved` is counted as `pass`.
    """
    decisions: Counter[str] = Counter()
    used = 0
    for n in LOOKS:
        low, _, high = bounds(blocks[:, :n])
        now = [decide(*pair, limit) for pair in zip(low.tolist(), high.tolist(), strict=True)]
        decided = [decision != "inconclusive" or n == MAX_BLOCKS for decision in now]
        decisions.update("pass" if d == "improved" else d for d, done in zip(now, decided, strict=True) if done)
        used += n * sum(decided)
        blocks = blocks[~np.array(decided, dtype=bool)]
    return decisions, used / max(1, decisions.total())


def simulate(slowdown: float, limit: float, trials: int, noise: Noise, seed: int = 0) -> tuple[Counter[str], float]:
    """Return how often each decision fell in `trials` gates at a true slowdown, and the mean number of blocks."""
    return gates(noise.blocks(slowdown, trials, np.random.default_rng(seed)), limit)


def main() -> None:
    """Print the share of each decision for several true slowdowns, with its 95 % interval."""
    parser = argparse.ArgumentParser(prog="python -m segcore.paired.simulation", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--limit", type=float, default=0.05, help="allowed slowdown (default 0.05)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.trials} trials each, limit {options.limit:.0%}, at most {MAX_BLOCKS} blocks; {Noise()}")  # noqa: T201 - a program
    for slowdown in SLOWDOWNS:
        decisions, blocks = simulate(slowdown, options.limit, options.trials, Noise(), options.seed)
        shares = []
        for decision in ("pass", "regressed", "inconclusive"):
            share = share_interval(decisions[decision], options.trials)
            shares.append(f"{decision} {share.value:.2%} [{share.low:.2%}, {share.high:.2%}]")
        print(f"true slowdown {slowdown:4.0%}: " + ", ".join(shares) + f"; {blocks:.1f} blocks")  # noqa: T201 - a program


if __name__ == "__main__":
    main()
