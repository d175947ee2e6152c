"""The recipe: everything, beside the photos, that determines the weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final

from training.data import Augmentation


def late_of(early: Augmentation) -> Augmentation:
    """Return the crops that follow small ones: two thirds as many, a quarter larger, of scales nearer to 1."""
    low, high = early.scales
    return Augmentation(max(1, early.batch * 2 // 3), early.crop * 9 // 7 // 32 * 32, (low * 1.3, high * 0.95))


def tail_of(late: Augmentation) -> Augmentation:
    """Return the crops of the tail: animals recoloured, beside plain ones half as large again."""
    return replace(late, recolour=0.75, closer=1.5)


EARLY: Final = Augmentation(batch=12, crop=224, scales=(0.5, 1.6))
LATE: Final = late_of(EARLY)
LAST: Final = tail_of(LATE)


@dataclass(frozen=True)
class Recipe:
    """Steps, rates and weights of losses.

    Small crops come first, which teach what things are; then larger ones at scales nearer to those of inference, while
    the learning rate falls to zero. In the tail the deep features are trained as well.
    """

    steps: int = 7500
    """Those in which the head alone is trained."""
    decay: float = 0.5
    """Share of the steps in which the learning rate falls."""
    tail: int = 900
    warmup: int = 150
    early: Augmentation = EARLY
    late: Augmentation = LATE
    last: Augmentation = LAST
    rate: float = 1.5e-3
    tail_rate: float = 3e-4
    keep: float = 2.0
    """Weight of the loss that holds the deep features to ImageNet's in the tail."""
    blend: float = 0.9
    """Share of the weights after the tail in the result; the rest is those before it (arXiv 2109.01903)."""
    weight_decay: float = 0.01
    dice: float = 0.5
    trust: float = 0.5
    """Share of the cross-entropy with the teacher, if there is one."""
    ema: float = 0.99
    seed: int = 2012

    @property
    def decay_from(self) -> int:
        """The first step of the decay."""
        return self.steps - round(self.steps * self.decay)

    @property
    def end(self) -> int:
        """The number of all steps."""
        return self.steps + self.tail

    def rate_at(self, step: int) -> float:
        """Return the learning rate: warm-up, constant, 1-sqrt decay (arXiv 2405.18392), and again in the tail."""

        def decay(start: int, end: int) -> float:
            return 1.0 - math.sqrt((step - start + 1) / (end - start + 1))

        if step < self.decay_from:
            return self.rate * min(1.0, (step + 1) / max(1, self.warmup))
        if step < self.steps:
            return self.rate * decay(self.decay_from, self.steps)
        return self.tail_rate * decay(self.steps, self.end)

    def augmentation(self, step: int) -> Augmentation:
        """Return how the batch of a step is drawn."""
        return self.early if step < self.decay_from else self.late if step < self.steps else self.last
