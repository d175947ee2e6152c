"""Scores from counts of pixels by class: the one definition behind evaluations and comparisons of evaluations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

MEANS = ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou", "dice", "boundary_iou")


def score_names(classes: Iterable[str]) -> tuple[str, ...]:
    """Return the names of what `class_scores` returns, in its order: the means, then the IoU of each class."""
    return (*MEANS, *(f"iou {name}" for name in classes))


def class_scores(counts: npt.NDArray[Any], boundary: npt.NDArray[Any] | None = None) -> Floats:
    """Return all figures, float64 (..., 6 + C): those of `MEANS`, then the IoU of each class; NaN where undefined.

    Means are over the classes present: in target or prediction for IoU, Dice and boundary IoU, in the target for
    accuracy. Frequency-weighted IoU is that of Long et al. 2015; Dice is 2 TP / (2 TP + FP + FN).

    Args:
        counts: (..., C, 3), any number of leading axes: pixels by class that are right, in the target, predicted.
        boundary: (..., C, 3), the same in bands along contours (Cheng et al. 2021); boundary IoU is NaN without it.
    """
    hits, wanted, found = np.moveaxis(counts, -1, 0)
    iou = _share(hits, wanted + found - hits)
    total = wanted.sum(axis=-1)
    boundary_iou = np.full(total.shape, np.nan)
    if boundary is not None:
        both, of_target, of_prediction = np.moveaxis(boundary, -1, 0)
        boundary_iou = _mean(_share(both, of_target + of_prediction - both))
    means = (
        _mean(iou),
        _share(hits.sum(axis=-1), total),
        _mean(_share(hits, wanted)),
        _share((wanted * np.nan_to_num(iou)).sum(axis=-1), total),
        _mean(_share(2 * hits, wanted + found)),
        boundary_iou,
    )
    return np.concatenate([np.stack(means, axis=-1), iou], axis=-1)


def _share(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> Floats:
    """Return part / whole; NaN where whole is 0."""
    share = np.full(np.shape(whole), np.nan)
    np.divide(part, whole, out=share, where=whole > 0)
    return share


def _mean(values: Floats) -> Floats:
    """Return the mean over the last axis without NaNs; NaN if all are."""
    present = ~np.isnan(values)
    return _share(np.where(present, values, 0).sum(axis=-1), present.sum(axis=-1))


def score_words(name: str) -> str:
    """Return what reports call a score: ``pixel accuracy``, ``mIoU``, ``IoU cat``."""
    of_class = name.removeprefix("iou ")
    return f"IoU {of_class}" if of_class != name else name.replace("_", " ").replace("iou", "IoU")
