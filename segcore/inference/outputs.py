"""What a model returns, by the kind of its output: brought to scores of every class, or to a class map.

From here on, an output is a floating-point tensor (B, classes, h, w) whose largest value is the class (logits,
probabilities, or probabilities beside a threshold), or a class map of integers (B, h, w), which has no logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from segcore.core.errors import ModelError
from segcore.core.labels import LabelSet
from segcore.core.model_spec import OutputSpec
from segcore.inference.decode import check_logits, check_planes


def read_output(
    output: object, batch: Sequence[int], spec: OutputSpec, labels: LabelSet, *, at_scale: bool = False
) -> torch.Tensor:
    """Return scores (B, classes, h, w), or a class map (B, h, w), of what a model returned for a batch.

    Args:
        output: logits or probabilities (B, classes, h, w), one channel if there are two classes; for ``sigmoid``
            probabilities of each class, or of each but the background; for ``classes`` integers (B, h, w).
        batch: shape of the input, (B, C, H, W).
        spec: what the output means.
        labels: its classes.
        at_scale: h and w must be H and W.

    Raises:
        ModelError: it is something else, has another shape, holds NaN or infinity, or a class that does not exist.
    """
    if spec.kind == "classes":
        return check_class_map(output, batch, labels)
    if spec.kind == "sigmoid":
        return _beside_threshold(check_planes(output, batch, labels), batch, spec.threshold, labels)
    if isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[1] == 1 and len(labels) == 2:
        # One channel tells two classes apart: where a logit is above 0, a probability is above a half.
        middle = 0.0 if spec.kind == "logits" else 0.5
        return _beside_threshold(check_planes(output, batch, labels), batch, middle, labels)
    return check_logits(output, batch, at_scale=at_scale, labels=labels)


def _beside_threshold(planes: torch.Tensor, batch: Sequence[int], threshold: float, labels: LabelSet) -> torch.Tensor:
    """Return scores of all classes: the background's is the threshold, so that it wins where no class is above that."""
    count, channels, height, width = planes.shape
    background = 0 if labels.background is None and len(labels) == 2 else labels.background
    if background is None or channels not in (len(labels) - 1, len(labels)):
        wanted = f"{len(labels) - 1} or {len(labels)}" if background is not None else "a background among the labels"
        raise ModelError(
            f"the network returned {channels} channels for {labels.name}, {len(labels)} classes, wanted {wanted}: "
            "probabilities of each class but the background, or of all"
        )
    if channels == len(labels):
        level, after = planes[:, background : background + 1].clamp(min=threshold), planes[:, background + 1 :]
    else:
        level, after = planes.new_full((count, 1, height, width), threshold), planes[:, background:]
    scores = torch.cat([planes[:, :background], level, after], dim=1)
    return check_logits(scores, batch, at_scale=False, labels=labels)


def check_class_map(output: object, batch: Sequence[int], labels: LabelSet) -> torch.Tensor:
    """Return a class map (B, h, w), in the type of class maps of the labels, on the same device.

    Raises:
        ModelError: it is none, or holds a class that does not exist.
    """
    if isinstance(output, torch.Tensor) and output.dim() == 4 and output.shape[1] == 1:
        output = output[:, 0]
    if (
        not isinstance(output, torch.Tensor)
        or output.is_floating_point()
        or output.is_complex()
        or output.dim() != 3
        or output.shape[0] != batch[0]
        or not output.numel()
    ):
        found = type(output).__name__
        if isinstance(output, torch.Tensor):
            found = f"{tuple(output.shape)} {output.dtype}".replace("torch.", "")
        raise ModelError(
            f"the network returned {found} for an input of {tuple(batch)}, wanted a class map of integers "
            f"({batch[0]}, height, width): correct output.kind"
        )
    wide = output.long()
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high >= len(labels):
        raise ModelError(
            f"the network returned class {low if low < 0 else high}, wanted 0 to {len(labels) - 1}: "
            f"{labels.name} has {len(labels)} classes; correct labels"
        )
    return wide.to(torch.uint8 if len(labels) <= 256 else torch.uint16)


def has_scores(output: torch.Tensor) -> bool:
    """Return whether an output has scores of every class; a class map has none."""
    return output.is_floating_point()
