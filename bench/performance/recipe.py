"""The plain recipe of torchvision's tutorials, step by step: what segcore's speed is compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torchvision import transforms
from torchvision.models import get_model_builder

from segcore.core.labels import NUM_CLASSES, VOC_PALETTE
from segcore.inference import models


def transform(size: int) -> Callable[[Image.Image], torch.Tensor]:
    """Return the recipe's preprocessing: PIL image to float32 (3, h, w)."""
    steps = [
        transforms.Resize(size),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
    composed: Callable[[Image.Image], torch.Tensor] = transforms.Compose(steps)
    return composed


def paint(classes: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Return colours (h, w, 3), painted class by class."""
    rgb = np.zeros((*classes.shape, 3), dtype=np.uint8)
    for label in range(NUM_CLASSES):
        rgb[classes == label] = VOC_PALETTE[label]
    return rgb


def network(model: models.LoadedModel) -> nn.Module:
    """Return the network as the tutorials have it: with the auxiliary head that torchvision's weights come with."""
    if model.name == models.EMBEDDED or model.name.startswith("lraspp"):
        return model.module
    builder = get_model_builder(model.name)
    module: nn.Module = builder(weights=None, weights_backbone=None, num_classes=NUM_CLASSES, aux_loss=True)
    module.load_state_dict(model.module.state_dict(), strict=False)
    return module.eval()


def end_to_end(module: nn.Module, photo: Path, size: int) -> npt.NDArray[np.uint8]:
    """Return the colour mask of a photo file."""
    batch = transform(size)(Image.open(photo).convert("RGB")).unsqueeze(0)
    with torch.no_grad():
        logits = module(batch)["out"][0]
    return paint(logits.argmax(0).numpy())


def outside(photo: Path, size: int, output: torch.Tensor) -> npt.NDArray[np.uint8]:
    """Run everything but the network, whose output before the upsampling, (1, 21, h', w'), is given."""
    batch = transform(size)(Image.open(photo).convert("RGB")).unsqueeze(0)
    logits = F.interpolate(output, size=batch.shape[-2:], mode="bilinear", align_corners=False)[0]
    return paint(logits.argmax(0).numpy())
