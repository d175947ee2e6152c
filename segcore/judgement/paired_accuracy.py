"""Two evaluations on the same images, compared image by image.

Scores of two models vary together from image to image: on a hard image both are bad. The interval of a score says how
much it would vary with another sample of images; the interval of their *difference* is narrower, because what both
have in common cancels. It comes from the paired jackknife: the difference is computed again without each image in turn
(Quenouille 1956; Tukey 1958), whose variance is not too small (Efron and Stein 1981, Annals of Statistics 9:586), where
the bootstrap's is: rare classes are in a few images only. Two corrections for few images:

* degrees of freedom from the kurtosis k of the pseudo-values, 2 n / (k - 1): those of a variance that varies as much
  (Satterthwaite 1946), because a few images decide the score of a rare class;
* each bound is taken from the difference or from the one without bias, whichever is further out, because mIoU of few images
  is biased.

`tools/accuracy_simulation.py` counts how often that errs. All images without one are two matrices: no loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from segcore.core.labels import NUM_CLASSES, VOC_CLASSES
from segcore.core.records import ClassPixels, DatasetRecord
from segcore.core.scores import SCORES, Floats, class_scores
from segcore.judgement.statistics import Interval

MIN_IMAGES = 20
"""Fewest images whose variation says anything; equal predictions are equal on any number."""
_ROUNDING = 1e-12


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """Counts of two models on the same images: those of `ClassPixels`, float64 (images, 21, 6)."""

    names: tuple[str, ...]
    before: Floats
    after: Floats
    per_image: bool
    """Whether scores are means over images."""

    def first(self, names: Sequence[str]) -> ImagePairs:
        """Return the pairs of these images."""
        index = {name: n for n, name in enumerate(self.names)}
        rows = [index[name] for name in names]
        return ImagePairs(tuple(names), self.before[rows], self.after[rows], self.per_image)


def image_pairs(old: DatasetRecord, new: DatasetRecord) -> ImagePairs:
    """Return the counts of two evaluations of the same images: see `image_differences`."""
    names = tuple(sorted(old.counts))
    before, after = (dense([record.counts[name] for name in names]) for record in (old, new))
    return ImagePairs(names, before, after, old.matrix is None)


def dense(images: Sequence[Sequence[ClassPixels]]) -> Floats:
    """Return counts as float64 (images, 21, 6)."""
    found = np.zeros((len(images), NUM_CLASSES, 6))
    for image, rows in zip(found, images, strict=True):
        for label, *pixels in rows:
            image[label] = pixels
    return found


def image_differences(old: Mapping[str, Sequence[ClassPixels]], new: Mapping[str, Sequence[ClassPixels]]) -> list[str]:
    """Return, in words, which images are in one evaluation alone, and which have another mask.

    Args:
        old: counts by name of the image, all at one scale.
        new: the same of the other evaluation.
    """
    masks = [name for name in old.keys() & new.keys() if _of_mask(old[name]) != _of_mask(new[name])]
    found = (
        ("in the baseline alone", old.keys() - new.keys()),
        ("in the current run alone", new.keys() - old.keys()),
        ("with another mask", masks),
    )
    return [f"{len(names)} images {what}: {_listed(sorted(names))}" for what, names in found if names]


def _of_mask(rows: Sequence[ClassPixels]) -> dict[int, tuple[int, int]]:
    return {row[0]: (row[2], row[5]) for row in rows if row[2] or row[5]}


def _listed(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + ", ..." * (len(names) > most)


def total_scores(counts: Floats, *, per_image: bool) -> Floats:
    """Return the scores of one evaluation, float64 (27,) in the order of `SCORES`, from counts (images, 21, 6)."""
    return _scores(_rows(counts, per_image).sum(axis=0), per_image)


def score_changes(pairs: ImagePairs, error: float) -> dict[str, Interval]:
    """Return after - before of each score that both have, by name of `SCORES`.

    Intervals of the IoU of classes hold for all classes at once (Bonferroni).

    Args:
        pairs: at least two images.
        error: bound on the probability that the interval lies wholly above the truth, and wholly below it.
    """
    rows = [_rows(counts, pairs.per_image) for counts in (pairs.before, pairs.after)]
    before, after = (_scores(each.sum(axis=0), pairs.per_image) for each in rows)
    without = [_scores(each.sum(axis=0) - each, pairs.per_image) for each in rows]
    values, n = after - before, len(pairs.names)
    pseudo = n * values - (n - 1) * (without[1] - without[0])
    classes = sum(name.startswith("iou ") and not math.isnan(v) for name, v in zip(SCORES, values, strict=True))
    return {
        name: _interval(value, pseudo[:, column], error / classes if name.startswith("iou ") else error)
        for column, (name, value) in enumerate(zip(SCORES, values.tolist(), strict=True))
        if not math.isnan(value)
    }


def _interval(value: float, pseudo: Floats, error: float) -> Interval:
    n, mean = len(pseudo), float(pseudo.mean())
    deviations = pseudo - mean
    variance = float(deviations @ deviations) / n
    if math.isnan(variance):  # without one image there is no such class
        return Interval(-math.inf, value, math.inf)
    if variance < _ROUNDING**2:
        return Interval(value, value, value)
    kurtosis = float((deviations**4).mean()) / variance**2
    df = min(n - 1.0, max(1.0, 2 * n / max(kurtosis - 1, 1e-9)))
    half = float(stdtrit(df, 1 - error)) * math.sqrt(variance / (n - 1))
    return Interval(min(value, mean) - half, value, max(value, mean) + half)


def images_by_class(pairs: ImagePairs) -> dict[str, int]:
    """Return in how many images each class is, in a mask or a prediction, by name of its score."""
    present = (pairs.before[..., 1:3].any(axis=-1) | pairs.after[..., 1:3].any(axis=-1)).sum(axis=0)
    return {f"iou {name}": int(images) for name, images in zip(VOC_CLASSES, present, strict=True)}


def _rows(counts: Floats, per_image: bool) -> Floats:
    """Return what is summed over images: counts (images, 126), or scores and whether they are known (images, 54)."""
    if not per_image:
        return counts.reshape(len(counts), -1)
    scored = class_scores(counts[..., :3], counts[..., 3:])
    known = ~np.isnan(scored)
    return np.concatenate([np.where(known, scored, 0), known], axis=-1)


def _scores(sums: Floats, per_image: bool) -> Floats:
    """Return scores, float64 (..., 27), from sums of rows."""
    if per_image:
        shares, known = sums[..., : len(SCORES)], sums[..., len(SCORES) :]
        return np.where(known > 0.5, shares / np.maximum(known, 1), np.nan)
    counts = sums.reshape(*sums.shape[:-1], NUM_CLASSES, 6)
    return class_scores(counts[..., :3], counts[..., 3:])
