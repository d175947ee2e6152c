"""What a model found in a photo, and how its logits reach the scale of the photo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segcore.core.image_files import png_bytes, save_indexed_png, save_png
from segcore.core.labels import VOC, ClassMap, LabelSet
from segcore.core.legend import with_legend
from segcore.inference.decode import RgbImage, blend, enlarge, outlined, palette_lookup, upsample_class_map
from segcore.inference.geometry import Frame


@dataclass(frozen=True)
class Placement:
    """How logits at the network's own scale reach the model scale, and from there or directly the photo's."""

    frame: Frame
    by_model_scale: bool = True
    """Whether they reach the photo by way of the model scale, as those of a network without its last upsampling do."""
    align_corners: bool = False
    """Of the interpolation; see `torch.nn.functional.interpolate`."""

    def at_model_scale(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits (B, C, h, w) of the photo at model scale from (B, C, h', w') of the whole input."""
        return self.frame.cut(enlarge(logits, *self.frame.input, align_corners=self.align_corners))

    def before_photo(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the logits (B, C, ...) of the photo that are interpolated to its own resolution."""
        return self.at_model_scale(logits) if self.by_model_scale or self.frame.padded else logits


_SHOWN = 5
"""Classes in the text that stands for a result."""


@dataclass(frozen=True, eq=False, repr=False)
class SegmentationResult:
    """The classes that a model found in one photo; it can be copied, pickled and used by several threads.

    A notebook shows `picture` for it.
    """

    source: RgbImage | Image.Image
    """The photo as read: uint8 RGB (H, W, 3), or an image of mode RGB."""
    model_class_map: ClassMap
    """Classes at model scale, uint8 (h, w); uint16 if there are more than 256 classes."""
    model_color_mask: RgbImage
    """Their colours, uint8 RGB (h, w, 3): for VOC the mask of the tutorial recipe."""
    timings: dict[str, float]
    """Seconds per stage; an equal share of the batch where photos ran together."""
    input_shape: tuple[int, int, int, int]
    """(B, C, H, W) of the batch that the photo was in."""
    margins: npt.NDArray[np.float32] | None = None
    """Top-1 minus top-2 logit at model scale, float32 (h, w), if requested."""
    logits: torch.Tensor | None = None
    """Logits at the network's own scale, float32 (classes, h', w'); None after `without_logits`."""
    labels: LabelSet = field(default=VOC)
    placement: Placement | None = None
    """How the logits reach the photo; None if they do so by way of the model scale."""
    _class_map: ClassMap | None = None

    @cached_property
    def photo(self) -> RgbImage:
        """The photo as read, uint8 RGB (H, W, 3)."""
        return np.array(self.source)

    @cached_property
    def class_map(self) -> ClassMap:
        """Classes at the photo's own resolution, (H, W): logits interpolated bilinearly, then argmax."""
        if self.logits is None:
            assert self._class_map is not None  # see without_logits
            return self._class_map
        shape = (self.model_class_map.shape[0], self.model_class_map.shape[1])
        placement = self.placement or Placement(Frame(shape, shape))
        source = self.source
        height, width = (source.height, source.width) if isinstance(source, Image.Image) else source.shape[:2]
        last = placement.before_photo(self.logits[None])[0]
        return upsample_class_map(last, height, width, align_corners=placement.align_corners)

    def without_logits(self) -> SegmentationResult:
        """Return the result with its class map computed and its logits, which may be large, left out."""
        return replace(self, logits=None, _class_map=self.class_map)

    @cached_property
    def fractions(self) -> dict[str, float]:
        """Share of the photo's pixels per class found, largest first; they sum to 1."""
        counts = np.bincount(self.class_map.ravel())
        order = sorted(np.flatnonzero(counts), key=lambda index: (-counts[index], index))
        return {self.labels.names[index]: float(counts[index] / self.class_map.size) for index in order}

    @property
    def dominant(self) -> str:
        """The class with most pixels other than the background; the background if there is no other."""
        return dominant_class(self.fractions, self.labels)

    def to_dict(self) -> dict[str, Any]:
        """Return what was found as values that JSON has: all but the photo, the class map and the logits."""
        height, width = self.class_map.shape
        return {
            "width": width,
            "height": height,
            "dominant": self.dominant,
            "fractions": dict(self.fractions),
            "labels": self.labels.name,
            "input_shape": list(self.input_shape),
            "timings": dict(self.timings),
        }

    def save(self, stem: str | Path, *, overlay: bool = True) -> tuple[Path, Path]:
        """Write ``STEM.mask.png`` and ``STEM.overlay.png``, as ``segcore segment`` does, and return their paths.

        The mask is an indexed PNG in the photo's own size with the colours of the classes as palette (beyond 256
        classes: 16 bits of grey); the overlay is `picture`, and not written if `overlay` is false. Directories that are
        missing are made.

        Raises:
            OutputError: one of the files cannot be written.
        """
        stem = Path(stem)
        mask, picture = (stem.with_name(f"{stem.name}.{kind}.png") for kind in ("mask", "overlay"))
        save_indexed_png(self.class_map, mask, self.labels)
        if overlay:
            save_png(self.picture(), picture)
        return mask, picture

    def picture(self, alpha: float = 0.5) -> Image.Image:
        """Return `overlay` with outlines where colour and photo are alike, above a legend of the classes."""
        painted = outlined(self.overlay(alpha), self.photo, self.class_map, self.labels)
        return with_legend(painted, self.fractions, self.labels)

    def __repr__(self) -> str:
        height, width = self.class_map.shape
        shares = [f"{name} {share:.1%}" for name, share in self.fractions.items()]
        others = [f"{len(shares) - _SHOWN} more"] if len(shares) > _SHOWN else []
        return f"<{type(self).__name__} {width}x{height}, {self.dominant}: {', '.join([*shares[:_SHOWN], *others])}>"

    def _repr_png_(self) -> bytes:
        """Return `picture` as a PNG, which Jupyter shows."""
        return png_bytes(self.picture())

    def colorize(self) -> RgbImage:
        """Return the colours at the photo's own resolution, uint8 RGB (H, W, 3)."""
        return palette_lookup(self.class_map, self.labels)

    def overlay(self, alpha: float = 0.5) -> RgbImage:
        """Return the photo with its classes painted over it, uint8 RGB (H, W, 3); alpha is their opacity."""
        return blend(self.photo, self.class_map, alpha, self.labels)


def dominant_class(fractions: Mapping[str, float], labels: LabelSet) -> str:
    """Return the class with the largest share that is not the background; the background if there is no other."""
    return next((name for name in fractions if name != labels.background_name), next(iter(fractions)))
