"""Accuracy of class maps, computed from a confusion matrix, or from what is left of one in `Totals`.

Convention ``voc``: one matrix over everything scored, pixels of `LabelSet.ignore` in the target ignored (255 for VOC),
IoU per class ``TP / (TP + FP + FN)`` and its mean over the classes present in target or prediction (the PASCAL VOC
measure, Everingham et al. 2015, section 3.4, with absent classes left out rather than counted as 0).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segcore.core.errors import DatasetError
from segcore.core.labels import VOC, ClassMap, LabelSet

ConfusionMatrix = npt.NDArray[np.int64]
"""Pixels by target class (rows) and predicted class (columns), int64 (n, n) for n classes."""
Totals = npt.NDArray[np.int64]
"""Scored pixels per class, int64 (n, 3): in both, in the target, in the prediction. All figures follow from them."""
BoundaryCounts = npt.NDArray[np.int64]
MATRIX_CLASSES = 256
"""Most classes of a confusion matrix that is kept; of more, only the totals."""

BOUNDARY_WIDTH = 0.02
"""Width of the boundary band as a share of the image diagonal (Cheng et al. 2021, section 4.2)."""

_MOST_SHOWN = 20
_RUN_LIMIT = 4
"""Fewest pixels per run of equal pairs for which counting runs is faster: true of masks, not of noise."""


def ignored(labels: LabelSet) -> str:
    """Return which pixels of a target are not scored, in words."""
    return "nothing ignored" if labels.ignore is None else f"{labels.ignore} ignored"


def metric_name(labels: LabelSet) -> str:
    """Return the name of the convention ``voc`` for a label set, as recorded."""
    return f"voc: one confusion matrix, {ignored(labels)}, mean over classes present"


def confusion_matrix(target: ClassMap, prediction: ClassMap, labels: LabelSet = VOC) -> ConfusionMatrix:
    """Return pixel counts, int64 (n, n): rows are target classes, columns predicted ones.

    Args:
        target: uint8 or uint16 (H, W), classes, and `LabelSet.ignore` for pixels that are not scored.
        prediction: uint8 or uint16 (H, W), classes; any value where the target is not scored.
        labels: the classes.

    Raises:
        DatasetError: the shapes differ, or a value is not a class.
    """
    rows, columns, pixels = _pairs(target, prediction, labels)
    matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
    matrix[rows, columns] = pixels
    return matrix


def class_totals(target: ClassMap, prediction: ClassMap, labels: LabelSet = VOC) -> Totals:
    """Return the scored pixels per class, int64 (n, 3); arguments and errors as those of `confusion_matrix`."""
    rows, columns, pixels = _pairs(target, prediction, labels)
    equal = rows == columns
    parts = ((rows[equal], pixels[equal]), (rows, pixels), (columns, pixels))
    counts = [np.bincount(classes, number, len(labels)) for classes, number in parts]
    return np.stack(counts, axis=1).astype(np.int64)


def class_counts(matrix: ConfusionMatrix) -> Totals:
    """Return the totals of confusion matrices, int64 (..., n, n) to (..., n, 3)."""
    hits = np.diagonal(matrix, axis1=-2, axis2=-1)
    return np.stack([hits, matrix.sum(axis=-1), matrix.sum(axis=-2)], axis=-1)


def _runs(wanted: ClassMap, found: ClassMap) -> tuple[ClassMap, ClassMap, npt.NDArray[np.intp] | None]:
    """Return the pairs of equal neighbours once, with the number of each; None instead if that would not be faster.

    Masks are piecewise constant: a histogram of runs, weighted by length, is much faster than one of pixels.
    """
    changes = wanted[1:] != wanted[:-1]
    changes |= found[1:] != found[:-1]
    ends = np.flatnonzero(changes)
    if ends.size * _RUN_LIMIT < wanted.size:
        ends = np.append(ends, wanted.size - 1)
        return wanted[ends], found[ends], np.diff(ends, prepend=-1)
    return wanted, found, None


def _pairs(
    target: ClassMap, prediction: ClassMap, labels: LabelSet
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Return target class, predicted class and pixels of each pair that occurs among the scored pixels."""
    _check_pair(target, prediction)
    wanted, found, lengths = _runs(target.ravel(), prediction.ravel())
    # Weighted counts are float64, exact for integers up to 2**53.
    if target.itemsize == prediction.itemsize == 1:
        bits = 8
        counts = np.bincount(wanted.astype(np.uint16) << bits | found, lengths)
        pairs = np.flatnonzero(counts)
        counts = counts[pairs]
    else:
        bits = 16
        pairs, inverse = np.unique(wanted.astype(np.uint32) << bits | found, return_inverse=True)
        counts = np.bincount(inverse, lengths)
    rows, columns = (pairs >> bits).astype(np.intp), (pairs & (1 << bits) - 1).astype(np.intp)
    pixels = counts.astype(np.int64)
    if labels.ignore is not None:
        scored = rows != labels.ignore
        rows, columns, pixels = rows[scored], columns[scored], pixels[scored]
    for name, classes, ignore in (("target", rows, labels.ignore), ("prediction", columns, None)):
        if (bad := np.unique(classes[classes >= len(labels)])).size:
            those = f"0 to {len(labels) - 1}" + ("" if ignore is None else f", or {ignore}")
            shown = bad[:_MOST_SHOWN].tolist()
            raise DatasetError(f"{name} has values that are not a class: {shown}; wanted {those}")
    return rows, columns, pixels


def _check_pair(target: ClassMap, prediction: ClassMap) -> None:
    if target.shape != prediction.shape:
        raise DatasetError(f"target is {target.shape}, prediction is {prediction.shape}: they must have the same shape")
    if not {target.dtype, prediction.dtype} <= {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise DatasetError(f"class maps must be uint8 or uint16, found {target.dtype} and {prediction.dtype}")
    if target.ndim != 2 or target.size == 0:
        raise DatasetError(f"class maps must be (H, W) with at least one pixel, found {target.shape}")


def boundary_counts(target: ClassMap, prediction: ClassMap, labels: LabelSet = VOC) -> BoundaryCounts:
    """Return per class the pixels of boundary bands, int64 (n, 3): in both, in the target's, in the prediction's.

    A band is the part of a class within a Chebyshev distance of d pixels of its own contour, the image border included,
    d being 0.02 of the diagonal: Boundary IoU, Cheng et al. 2021 (arXiv:2103.16562) and its reference code, which
    erodes d times with a 3x3 square. Pixels that are not scored are set to `LabelSet.ignore` in the prediction, too,
    first, so that a prediction that is wrong only there is perfect.
    """
    _check_pair(target, prediction)
    height, width = target.shape
    distance = max(1, round(BOUNDARY_WIDTH * float(np.hypot(height, width))))
    if labels.ignore is not None:
        prediction = np.where(target == labels.ignore, target, prediction)
    outside = len(labels) + (labels.ignore == len(labels))  # not in the maps, so that the border is a contour
    in_target, in_prediction = (_boundary(each, distance, outside) for each in (target, prediction))
    both = in_target & in_prediction & (target == prediction)
    parts = (target[both], target[in_target], prediction[in_prediction])
    return np.stack([np.bincount(part, minlength=len(labels))[: len(labels)] for part in parts], axis=1)


def _boundary(class_map: ClassMap, distance: int, outside: int) -> npt.NDArray[np.bool_]:
    """Return where the window of 2 * distance + 1 pixels holds another class or leaves the image."""
    fits = outside <= np.iinfo(class_map.dtype).max
    padded = np.pad(class_map if fits else class_map.astype(np.int32), distance, constant_values=outside)
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
