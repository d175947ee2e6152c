"""Accuracy of class maps, computed from a confusion matrix.

Convention ``voc``: one matrix over everything scored, pixels of 255 in the target ignored, IoU per class
``TP / (TP + FP + FN)`` and its mean over the classes present in target or prediction (the PASCAL VOC measure,
Everingham et al. 2015, section 3.4, with absent classes left out rather than counted as 0).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segcore.core.errors import DatasetError
from segcore.core.labels import IGNORE_INDEX, NUM_CLASSES
from segcore.core.scores import MEANS, SCORES, Floats, class_scores

METRIC_VOC = "voc: one confusion matrix, 255 ignored, mean over classes present"

ClassMap = npt.NDArray[np.uint8]
ConfusionMatrix = npt.NDArray[np.int64]
BoundaryCounts = npt.NDArray[np.int64]

BOUNDARY_WIDTH = 0.02
"""Width of the boundary band as a share of the image diagonal (Cheng et al. 2021, section 4.2)."""

_RUN_LIMIT = 4
"""Fewest pixels per run of equal pairs for which counting runs is faster: true of masks, not of noise."""


def confusion_matrix(target: ClassMap, prediction: ClassMap) -> ConfusionMatrix:
    """Return pixel counts, int64 (21, 21): rows are target classes, columns predicted ones.

    Args:
        target: uint8 (H, W), classes 0 to 20, 255 for pixels that are not scored.
        prediction: uint8 (H, W), classes 0 to 20; any value where the target is 255.

    Raises:
        DatasetError: the shapes differ, or a value is not a class.
    """
    _check_pair(target, prediction)
    # Masks are piecewise constant: a histogram of runs, weighted by length, is much faster than one of pixels.
    wanted, found, lengths = target.ravel(), prediction.ravel(), None
    changes = wanted[1:] != wanted[:-1]
    changes |= found[1:] != found[:-1]
    ends = np.flatnonzero(changes)
    if ends.size * _RUN_LIMIT < wanted.size:
        ends = np.append(ends, wanted.size - 1)
        wanted, found, lengths = wanted[ends], found[ends], np.diff(ends, prepend=-1)
    pairs = wanted.astype(np.uint16) << 8 | found
    # Weighted counts are float64, exact for integers up to 2**53.
    counts = np.bincount(pairs, lengths, 1 << 16).reshape(256, 256)
    matrix = counts[:NUM_CLASSES, :NUM_CLASSES]
    if matrix.sum() != counts[:IGNORE_INDEX].sum():
        _refuse_values(counts)
    return matrix.astype(np.int64)


def _check_pair(target: ClassMap, prediction: ClassMap) -> None:
    if target.shape != prediction.shape:
        raise DatasetError(f"target is {target.shape}, prediction is {prediction.shape}: they must have the same shape")
    if target.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise DatasetError(f"class maps must be uint8, found {target.dtype} and {prediction.dtype}")
    if target.ndim != 2 or target.size == 0:
        raise DatasetError(f"class maps must be (H, W) with at least one pixel, found {target.shape}")


def _refuse_values(counts: npt.NDArray[np.generic]) -> None:
    bad_target = np.flatnonzero(counts[NUM_CLASSES:IGNORE_INDEX].any(axis=1)) + NUM_CLASSES
    if bad_target.size:
        raise DatasetError(f"target has values that are not a class: {bad_target.tolist()}; wanted 0 to 20, or 255")
    bad = np.flatnonzero(counts[:NUM_CLASSES, NUM_CLASSES:].any(axis=0)) + NUM_CLASSES
    raise DatasetError(f"prediction has values that are not a class: {bad.tolist()}; wanted 0 to 20")


def boundary_counts(target: ClassMap, prediction: ClassMap) -> BoundaryCounts:
    """Return per class the pixels of boundary bands, int64 (21, 3): in both, in the target's, in the prediction's.

    A band is the part of a class within a Chebyshev distance of d pixels of its own contour, the image border included,
    d being 0.02 of the diagonal: Boundary IoU, Cheng et al. 2021 (arXiv:2103.16562) and its reference code, which
    erodes d times with a 3x3 square. Pixels of 255 in the target are set to 255 in the prediction first, so that a
    prediction that is wrong only there is perfect.
    """
    _check_pair(target, prediction)
    height, width = target.shape
    distance = max(1, round(BOUNDARY_WIDTH * float(np.hypot(height, width))))
    void = target == IGNORE_INDEX
    prediction = np.where(void, target, prediction)
    in_target, in_prediction = _boundary(target, distance), _boundary(prediction, distance)
    both = in_target & in_prediction & (target == prediction)
    parts = (target[both], target[in_target], prediction[in_prediction])
    return np.stack([np.bincount(part, minlength=256)[:NUM_CLASSES] for part in parts], axis=1)


def _boundary(class_map: ClassMap, distance: int) -> npt.NDArray[np.bool_]:
    """Return where the window of 2 * distance + 1 pixels holds another class or leaves the image."""
    outside = IGNORE_INDEX - 1  # not a class, so that the border is a contour
    padded = np.pad(class_map, distance, constant_values=outside)
    window = 2 * distance + 1
    across = _any_in_window(_any_in_window(padded[:, 1:] != padded[:, :-1], window - 1).T, window).T
    down = _any_in_window(_any_in_window(padded[1:] != padded[:-1], window).T, window - 1).T
    return np.asarray(across | down)


def _any_in_window(flags: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.bool_]:
    """Return the OR over `length` neighbours along the last axis; the window doubles in each step."""
    flags, covered = np.ascontiguousarray(flags), 1
    while covered < length:
        step = min(covered, length - covered)
        flags = flags[:, :-step] | flags[:, step:]
        covered += step
    return flags


def scores(matrix: ConfusionMatrix, boundary: BoundaryCounts | None = None) -> Floats:
    """Return all figures, float64 (..., 27), in the order of `SCORES`; NaN where undefined: see `class_scores`.

    Args:
        matrix: int64 (..., 21, 21), any number of leading axes.
        boundary: int64 (..., 21, 3) of `boundary_counts`; boundary IoU is NaN without it.
    """
    return class_scores(class_counts(matrix), boundary)


def class_counts(matrix: ConfusionMatrix) -> npt.NDArray[np.int64]:
    """Return pixels by class that are right, in the target and predicted, int64 (..., 21, 3)."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.stack([hits, matrix.sum(axis=-1), matrix.sum(axis=-2)], axis=-1)


def iou_per_class(matrix: ConfusionMatrix) -> Floats:
    """Return IoU per class, float64 (21,), NaN where a class is in neither target nor prediction."""
    return scores(matrix)[len(MEANS) :]


def mean_iou(matrix: ConfusionMatrix) -> float:
    """Return the mean IoU over the classes present in target or prediction; NaN if nothing was scored."""
    return float(scores(matrix)[SCORES.index("miou")])


def pixel_accuracy(matrix: ConfusionMatrix) -> float:
    """Return the share of scored pixels with the right class; NaN if nothing was scored."""
    return float(scores(matrix)[SCORES.index("pixel_accuracy")])
