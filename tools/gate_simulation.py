"""Error rates of the paired gate under a noise model: ``python -m tools.gate_simulation``.

The gate's decision code runs on simulated blocks. Drawn are the log ratio between pairs of processes (normal,
occasionally three times as wide), the log ratio between alternations of a pair (normal), and outliers: alternations in
which one side was disturbed (exponential, either sign).
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from segcore.judgement.statistics import Floats, share_interval
from segcore.paired.audit import simulate_gates
from segcore.paired.sequential import MAX_BLOCKS
from segcore.paired.session import MAX_ALTERNATIONS

SLOWDOWNS = (0.0, 0.05, 0.10, 0.20)


@dataclass(frozen=True)
class Noise:
    """Standard deviations of log ratios, by default as measured with a 50 ms network on a shared two-core machine."""

    between_pairs: float = 0.036
    within_pair: float = 0.086
    outlier_share: float = 0.05
    """Share of alternations."""
    outlier_scale: float = 0.5
    """Mean of the exponential log ratio that an outlier adds: +65 %."""
    wide_pair_share: float = 0.05
    """Share of pairs whose deviation is three times as wide."""

    def blocks(self, slowdown: float, trials: int, rng: np.random.Generator) -> Floats:
        """Draw the log ratios of all blocks of `trials` gates, shape (trials, MAX_BLOCKS)."""
        shape = (trials, MAX_BLOCKS)
        wide = np.where(rng.random(shape) < self.wide_pair_share, 3.0, 1.0)
        pairs = rng.normal(0.0, self.between_pairs, shape) * wide
        alternations = rng.normal(0.0, self.within_pair, (*shape, MAX_ALTERNATIONS))
        hit = rng.random(alternations.shape) < self.outlier_share
        size = rng.exponential(self.outlier_scale, alternations.shape)
        alternations += hit * size * rng.choice((-1.0, 1.0), alternations.shape)
        centre: Floats = np.median(alternations, axis=2)
        return math.log1p(slowdown) + pairs + centre


def simulate(slowdown: float, limit: float, trials: int, noise: Noise, seed: int = 0) -> tuple[Counter[str], float]:
    """Return the number of each decision in `trials` gates at a true slowdown, and the mean number of blocks."""
    return simulate_gates(noise.blocks(slowdown, trials, np.random.default_rng(seed)), limit)


def main() -> None:
    """Print the share of each decision for several true slowdowns, with its 95 % interval."""
    parser = argparse.ArgumentParser(prog="python -m tools.gate_simulation", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--limit", type=float, default=0.05, help="allowed slowdown (default 0.05)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{options.trials} trials each, limit {options.limit:.0%}, at most {MAX_BLOCKS} blocks; {Noise()}")
    for slowdown in SLOWDOWNS:
        decisions, blocks = simulate(slowdown, options.limit, options.trials, Noise(), options.seed)
        shares = []
        for decision in ("pass", "regressed", "inconclusive"):
            share = share_interval(decisions[decision], options.trials)
            shares.append(f"{decision} {share.value:.2%} [{share.low:.2%}, {share.high:.2%}]")
        print(f"true slowdown {slowdown:4.0%}: " + ", ".join(shares) + f"; {blocks:.1f} blocks")


if __name__ == "__main__":
    main()
