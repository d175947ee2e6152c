"""Parity: whether a model gives the masks of its reference.

That is the same network on torch in fp32 and the same device, or another model that its model file names.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from segcore.core.errors import UsageError
from segcore.core.labels import ClassMap
from segcore.core.model_spec import ModelSpec, own_runtime
from segcore.core.record_accuracy import ParityRecord
from segcore.core.records import CheckRecord
from segcore.core.scores import MEANS, class_scores
from segcore.evaluation.metrics import Totals
from segcore.inference.decode import argmax_classes, enlarge, margin_map
from segcore.inference.pipeline import Segmenter
from segcore.inference.preprocess import Photo
from segcore.inference.result import SegmentationResult
from segcore.inputs.images import as_rgb_image

REFERENCE = ("torch", "fp32")
CLEAR_MARGIN = 0.01
"""Share of the photo's largest logit: the reference is sure of a pixel whose two best classes are further apart.
Float32 kernels differ by some 1e-6 of that logit, bfloat16 ones by some 1e-3, int8 by a few hundredths at worst."""


@dataclass(frozen=True)
class Parity:
    """Pixel counts at model scale and the largest error of a logit, over one photo or several."""

    totals: Totals
    """Pixels per class, int64 (n, 3): of the reference's class and found to be it, of the reference's class, found."""
    unlike: int
    """Pixels of another class although the reference was sure of its own (`CLEAR_MARGIN`), or not finite. If the
    reference returns class maps, nothing says where it was sure, and every pixel of another class counts."""
    largest_error: float | None
    """Of any logit; infinite if one is not finite; None if one of the two returns class maps, without logits."""
    largest_logit: float | None
    """Of the reference; None if it has none."""

    @property
    def _pixels(self) -> int:
        return int(self.totals[:, 1].sum())

    @property
    def equal_share(self) -> float:
        """Share of pixels with the reference's class."""
        return float(self.totals[:, 0].sum() / self._pixels)

    @property
    def unlike_share(self) -> float:
        """Share of pixels that differ although the reference was sure."""
        return float(self.unlike / self._pixels)

    @property
    def relative_error(self) -> float | None:
        """Largest error of a logit as a share of the reference's largest logit; None without logits."""
        if self.largest_error is None:
            return None
        return self.largest_error / self.largest_logit if self.largest_logit else self.largest_error

    @property
    def miou_drop(self) -> float:
        """1 minus the mean IoU with the reference's class maps as the truth."""
        return float(1 - class_scores(self.totals)[MEANS.index("miou")])

    @property
    def finite(self) -> bool:
        """Whether all logits, if there are any, are finite."""
        return self.largest_error is None or math.isfinite(self.largest_error)

    def record(self, reference: str) -> ParityRecord:
        """Return what a run file keeps."""
        error = self.relative_error if self.finite else None
        return ParityRecord(reference=reference, unlike=self.unlike_share, equal=self.equal_share, logit_error=error)

    def check(self, limit: float, reference: str = " ".join(REFERENCE)) -> CheckRecord:
        """Return the check of `unlike_share` against a limit."""
        if self.relative_error is not None:
            logits = f"logits are off by {self.relative_error:.2%} of the largest"
        else:
            logits = "no logits" + ("" if self.largest_logit is not None else " to tell where the reference was sure")
        return CheckRecord(
            name=f"pixels unlike {reference}",
            wanted=f"at most {limit:.3%}",
            found=f"{self.unlike_share:.3%} ({self.equal_share:.3%} are equal; {logits})",
            passed=self.unlike_share <= limit and self.finite,
            most=limit,
        )


def logits_parity(reference: torch.Tensor, found: torch.Tensor, classes: int | None = None) -> Parity:
    """Compare the logits of one photo, float32 (classes, H, W), or its class map (H, W), with the reference's.

    The number of classes may be None if one of the two has logits.
    """
    wanted, seen = (argmax_classes(output[None])[0].cpu().numpy() for output in (reference, found))
    with_logits = [output for output in (reference, found) if output.is_floating_point()]
    count = classes or with_logits[0].shape[0]
    differing = wanted != seen
    largest, error = None, None
    if reference.is_floating_point():
        largest = float(reference.abs().max())
        differing &= margin_map(reference) > CLEAR_MARGIN * largest
    if found.is_floating_point():
        broken = ~torch.isfinite(found).all(dim=0).cpu().numpy()
        differing |= broken
        error = math.inf if broken.any() else None
    if len(with_logits) == 2 and error is None:
        error = float((reference - found).abs().max())
    return Parity(pixel_totals(wanted, seen, count), int(differing.sum()), error, largest)


def masks_parity(reference: SegmentationResult, found: SegmentationResult) -> Parity:
    """Compare the class map of a photo, at the photo's own resolution, with that of another model.

    Where the reference has logits, it must be run with its margins: they say where it was sure.

    Raises:
        UsageError: the models have different classes.
    """
    if reference.labels.digest != found.labels.digest:
        raise UsageError(
            f"the reference has the classes of {reference.labels.name}, the model those of {found.labels.name}: "
            "only masks of the same classes can be compared"
        )
    wanted, seen = reference.class_map, found.class_map
    differing, largest = wanted != seen, None
    if reference.margins is not None and reference.logits is not None:
        largest = float(reference.logits.abs().max())
        margins = enlarge(torch.from_numpy(reference.margins)[None, None], *wanted.shape)[0, 0]
        differing &= margins.numpy() > CLEAR_MARGIN * largest
    return Parity(pixel_totals(wanted, seen, len(reference.labels)), int(differing.sum()), None, largest)


def pixel_totals(wanted: ClassMap, seen: ClassMap, count: int) -> Totals:
    """Return the pixels per class, int64 (n, 3), of two class maps (H, W) of `count` classes, as `Parity` has them."""
    parts = (wanted[wanted == seen], wanted.ravel(), seen.ravel())
    return np.stack([np.bincount(part, minlength=count) for part in parts], axis=1)


def pooled(parities: Iterable[Parity]) -> Parity:
    """Return the parity over several photos: counts are added, errors and logits are the largest."""
    found = list(parities)
    return Parity(
        np.sum([parity.totals for parity in found], axis=0),
        sum(parity.unlike for parity in found),
        _largest(parity.largest_error for parity in found),
        _largest(parity.largest_logit for parity in found),
    )


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def reference_backend(spec: ModelSpec) -> tuple[str, str]:
    """Return runtime and precision that the others are held against: torch in fp32, for a file its own runtime."""
    return own_runtime(spec.source.kind), "fp32"


def is_reference(segmenter: Segmenter) -> bool:
    """Return whether a segmenter runs on the reference backend."""
    return (segmenter.runtime, segmenter.precision) == reference_backend(segmenter.spec)


def reference_of(segmenter: Segmenter) -> Segmenter:
    """Return the same network on the reference backend and the same device."""
    runtime, precision = reference_backend(segmenter.spec)
    return Segmenter(
        segmenter.loaded, device=segmenter.device, size=segmenter.size, runtime=runtime, precision=precision
    )


def photo_logits(segmenter: Segmenter, photo: Photo, size: int | None = None) -> torch.Tensor:
    """Return the logits of a photo without padding, float32 (classes, h, w); `size` as of `Segmenter.run`.

    Raises:
        ImageError: the photo cannot be read.
    """
    image = as_rgb_image(photo)
    logits = segmenter.forward(segmenter.prepare(image, size)[None])
    return segmenter.place(image, size).before_photo(logits)[0]
