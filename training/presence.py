"""Fit the classifier of the classes that a whole photo shows: a logistic regression, convex and fast."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segcore.core.labels import NUM_CLASSES
from segcore.inference.embedded.net import EmbeddedNet
from segcore.inference.preprocess import preprocess
from training.data import Photo

SHOWN: Final = 0.003
"""Share of a photo's pixels from which a class counts as shown."""

RIDGE: Final = 1e-2
"""Weight of the squared coefficients, for features of unit variance, beside the sum of the losses of 20 classes."""


def shown(photo: Photo) -> Tensor:
    """Return which of the 20 classes a photo shows, float32 0 or 1 `[20]`."""
    pixels = np.bincount(photo.classes.ravel(), minlength=256)[1:NUM_CLASSES]
    return torch.from_numpy(pixels > SHOWN * photo.classes.size).float()


def fit_presence(net: EmbeddedNet, photos: Iterable[Photo]) -> None:
    """Fit the classifier of `net.presence` to the classes in photos, each at its own size."""
    pooled, truth = [], []
    with torch.inference_mode():
        for photo in photos:
            image = preprocess(photo.pixels, min(photo.classes.shape))[None]
            *_, at32 = net.features(image.contiguous(memory_format=torch.channels_last))
            pooled.append(net.presence.pooled(at32).flatten())
            truth.append(shown(photo))
    x, y = torch.stack(pooled).clone(), torch.stack(truth)
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    weight, bias = logistic_regression((x - mean) / deviation, y)
    weight = weight / deviation[:, None]
    with torch.no_grad():
        net.presence.classifier.weight.copy_(weight.T[:, :, None, None])
        cast(nn.Parameter, net.presence.classifier.bias).copy_(bias - mean @ weight)


def logistic_regression(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return weights `[D, C]` and biases `[C]` for features `[N, D]` and truth `[N, C]`, fitted by L-BFGS."""
    weight = torch.zeros(x.shape[1], y.shape[1], requires_grad=True)
    bias = torch.full((y.shape[1],), -3.0, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=60, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        entropy = F.binary_cross_entropy_with_logits(x @ weight + bias, y)
        total: Tensor = y.shape[1] * entropy + RIDGE * weight.square().sum()
        total.backward()  # type: ignore[no-untyped-call]
        return total

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
