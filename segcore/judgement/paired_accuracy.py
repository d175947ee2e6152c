"""Two evaluations on the same images, compared image by image.

Scores of two models vary together from image to image: on a hard image both are bad. The interval of a score says how
much it would vary with another sample of images; the interval of their *difference* is narrower, because what both
have in common cancels. It comes from the paired jackknife: the difference is computed again without each image in turn
(Quenouille 1956; Tukey 1958), whose variance is not too small (Efron and Stein 1981, Annals of Statistics 9:586), where
the bootstrap's is: rare classes are in a few images only. Three corrections for few images:

* degrees of freedom from the kurtosis k of the pseudo-values, 2 n / (k - 1): those of a variance that varies as much
  (Satterthwaite 1946), because a few images decide the score of a rare class;
* the bound on the side to which the pseudo-values are skewed is moved out, by the first term of the Edgeworth expansion
  of t (Johnson 1978, JASA 73:536); the other one stays;
* each bound is taken from the difference or from the one without bias, whichever is further out, because mIoU of few
  images is biased.

`tools/accuracy_simulation.py` counts how often that errs. All images without one are two matrices: no loop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtrit

from segcore.core.records import ClassPixels, DatasetRecord
from segcore.core.scores import MEANS, Floats, class_scores, score_names
from segcore.core.text import listed
from segcore.judgement.statistics import Interval

MIN_IMAGES = 20
"""Fewest images whose variation says anything; equal predictions are equal on any number."""
MIN_CLASS_IMAGES = 40
"""Fewest images with a class in the mask: a class depends on few large objects, and must not err for all of them."""
_ROUNDING = 1e-12


ImageCounts = Mapping[str, ClassPixels]
"""Of one image, by class."""


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """Counts of two models on the same images: those of `ClassPixels`, float64 (images, classes, 6)."""

    names: tuple[str, ...]
    classes: tuple[str, ...]
    before: Floats
    after: Floats
    per_image: bool


def image_pairs(old: DatasetRecord, new: DatasetRecord) -> ImagePairs:
    """Return the counts of the images that two evaluations have in common: see `image_differences`."""
    names = tuple(sorted(old.counts.keys() & new.counts.keys()))
    return pairs_of(names, old.counts, new.counts, per_image=old.per_image)


def pairs_of(
    names: tuple[str, ...], old: Mapping[str, ImageCounts], new: Mapping[str, ImageCounts], *, per_image: bool
) -> ImagePairs:
    """Return the counts of these images in two evaluations, given by name."""
    classes = tuple(dict.fromkeys(name for each in (old, new) for image in each.values() for name in image))
    before, after = (dense([each[name] for name in names], classes) for each in (old, new))
    return ImagePairs(names, classes, before, after, per_image)


def dense(images: Sequence[ImageCounts], classes: Sequence[str]) -> Floats:
    """Return counts as float64 (images, classes, 6)."""
    index = {name: n for n, name in enumerate(classes)}
    found = np.zeros((len(images), len(classes), 6))
    for image, counts in zip(found, images, strict=True):
        for name, pixels in counts.items():
            image[index[name]] = pixels
    return found


def image_differences(old: Mapping[str, ImageCounts], new: Mapping[str, ImageCounts]) -> list[str]:
    """Return, in words, which images are in one evaluation alone, and which have another mask.

    Counts are by name of the image, all at one scale.
    """
    masks = [name for name in old.keys() & new.keys() if _of_mask(old[name]) != _of_mask(new[name])]
    found = (
        ("in the baseline alone", old.keys() - new.keys()),
        ("in the current run alone", new.keys() - old.keys()),
        ("with another mask", masks),
    )
    return [f"{len(names)} images {what}: {listed(sorted(names), 3)}" for what, names in found if names]


def _of_mask(counts: ImageCounts) -> dict[str, tuple[int, int]]:
    return {name: (pixels[1], pixels[4]) for name, pixels in counts.items() if pixels[1] or pixels[4]}


def total_scores(counts: Floats, *, per_image: bool) -> Floats:
    """Return the scores of one evaluation, float64 (6 + classes,), from counts (images, classes, 6)."""
    return _scores(_rows(counts, per_image).sum(axis=0), per_image)


def score_changes(pairs: ImagePairs, error: float) -> dict[str, Interval]:
    """Return after - before of each score that both have, by name: see `score_names`.

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
    classes = np.count_nonzero(~np.isnan(values[len(MEANS) :]))
    return {
        name: _interval(value, pseudo[:, column], error if name in MEANS else error / classes)
        for column, (name, value) in enumerate(zip(score_names(pairs.classes), values.tolist(), strict=True))
        if not math.isnan(value)
    }


def _interval(value: float, pseudo: Floats, error: float) -> Interval:
    n, mean = len(pseudo), float(pseudo.mean())
    deviations = pseudo - mean
    variance = float(deviations @ deviations) / n
    if value and (n < 2 or math.isnan(variance)):  # there is no such class without a certain image
        return Interval(-math.inf, value, math.inf)
    if not variance >= _ROUNDING**2:
        return Interval(value, value, value)
    kurtosis = float((deviations**4).mean()) / variance**2
    df = min(n - 1.0, max(1.0, 2 * n / max(kurtosis - 1, 1e-9)))
    spread = math.sqrt(variance / (n - 1))
    half = float(stdtrit(df, 1 - error)) * spread
    skewness = float((deviations**3).mean()) / variance**1.5
    lean = spread * skewness * (1 + 2 * float(ndtri(error)) ** 2) / (6 * math.sqrt(n))
    return Interval(min(value, mean) - half + min(lean, 0.0), value, max(value, mean) + half + max(lean, 0.0))


def images_by_class(pairs: ImagePairs) -> dict[str, int]:
    """Return in the masks of how many images each class is, by name of its score."""
    present = (pairs.before[..., 1] > 0).sum(axis=0)
    return {f"iou {name}": int(images) for name, images in zip(pairs.classes, present, strict=True)}


def _rows(counts: Floats, per_image: bool) -> Floats:
    """Return what is summed over images: counts, or scores and whether they are known, float64 (images, n)."""
    if not per_image:
        return counts.reshape(len(counts), -1)
    scored = class_scores(counts[..., :3], counts[..., 3:])
    known = ~np.isnan(scored)
    return np.concatenate([np.where(known, scored, 0), known], axis=-1)


def _scores(sums: Floats, per_image: bool) -> Floats:
    """Return scores, float64 (..., 6 + classes), from sums of rows."""
    if per_image:
        shares, known = np.split(sums, 2, axis=-1)
        return np.where(known > 0.5, shares / np.maximum(known, 1), np.nan)
    counts = sums.reshape(*sums.shape[:-1], -1, 6)
    return class_scores(counts[..., :3], counts[..., 3:])
