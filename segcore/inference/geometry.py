"""Where a photo lies in a model's input, and how what the model returns is cut back to it."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from segcore.core.errors import UsageError
from segcore.core.model_spec import InputSpec

Shape = tuple[int, int]
"""(H, W)."""


@dataclass(frozen=True)
class Frame:
    """A photo within the input: resized to `content`, and padded around that to `input`."""

    content: Shape
    """(h, w) of the resized photo: the model scale."""
    input: Shape
    """(H, W) of the model's input."""
    top: int = 0
    left: int = 0

    @property
    def padded(self) -> bool:
        """Whether there is anything around the photo."""
        return self.content != self.input

    def cut(self, planes: torch.Tensor) -> torch.Tensor:
        """Return the photo's part of (..., H, W): (..., h, w), a view."""
        (height, width), top, left = self.content, self.top, self.left
        return planes[..., top : top + height, left : left + width]


def check_size(size: int) -> int:
    """Return the shorter side at model scale if it is valid.

    Raises:
        UsageError: it is less than 1.
    """
    if size < 1:
        raise UsageError(f"size is the shorter side in pixels, at least 1; found {size}")
    return size


def resized_shape(height: int, width: int, size: int) -> Shape:
    """Return (height, width) with the shorter side at `size`, the longer one truncated as torchvision does."""
    short, long = min(height, width), max(height, width)
    scaled = int(size * long / short)
    return (size, scaled) if height <= width else (scaled, size)


def frame_of(spec: InputSpec, height: int, width: int, size: int) -> Frame:
    """Return where a photo of (height, width) pixels lies in the input.

    `size` is the side that `shorter` and `longer` give it if the model has none of its own.

    Raises:
        UsageError: the size is less than 1.
    """
    content, outer = _content(spec, height, width, check_size(size)), None
    top = left = 0
    if spec.resize.kind == "letterbox":
        outer = (spec.resize.size[0], spec.resize.size[1])
        top, left = (outer[0] - content[0]) // 2, (outer[1] - content[1]) // 2
    rows, columns = outer or content
    step = spec.multiple_of
    return Frame(content, (-(-rows // step) * step, -(-columns // step) * step), top, left)


def _content(spec: InputSpec, height: int, width: int, size: int) -> Shape:
    """Return (h, w) of the resized photo."""
    kind, own = spec.resize.kind, spec.resize.size
    if kind == "fixed":
        return own[0], own[1]
    if kind == "letterbox":
        factor = min(own[0] / height, own[1] / width)
        return _rounded(height * factor, own[0]), _rounded(width * factor, own[1])
    if kind == "none":
        return height, width
    side = own[0] if own else size
    if kind == "shorter":
        return resized_shape(height, width, side)
    factor = side / max(height, width)
    return _rounded(height * factor, side), _rounded(width * factor, side)


def _rounded(length: float, most: int) -> int:
    return min(most, max(1, round(length)))
