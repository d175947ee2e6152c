"""Small networks with the interface of torchvision's, for tests that need no accuracy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from segcore.core.labels import NUM_CLASSES


class TinyNet(nn.Module):
    """Seeded random logits that follow the photo: a strided convolution, brought back to the input's size."""

    def __init__(self, seed: int = 0, stride: int = 4) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.features = nn.Conv2d(3, NUM_CLASSES, 5, stride=stride, padding=2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {"out": logits (B, 21, H, W)}."""
        return {"out": F.interpolate(self.features(x), size=x.shape[-2:], mode="bilinear", align_corners=False)}


class ConstantNet(nn.Module):
    """Sees one class everywhere."""

    def __init__(self, index: int) -> None:
        super().__init__()
        self.index = index

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return {"out": logits (B, 21, H, W)} whose largest is always the same."""
        logits = torch.zeros(x.shape[0], NUM_CLASSES, *x.shape[-2:])
        logits[:, self.index] = 1
        return {"out": logits}
