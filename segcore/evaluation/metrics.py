"""Accuracy of class maps, computed from a confusion matrix, or from what is left of one in `Totals`.

Convention ``voc``: one matrix over everything scored, pixels of `LabelSet.ignore` in the target ignored (255 for VOC),
IoU per class
``TP / (TP + FP + FN)`` and its mean over the classes present in target or prediction (the PASCAL VOC measure,
Everingham et al. 2015, section 3.4, with absent classes left out rather than counted as 0).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segcore.core.errors import DatasetError
from segcore.core.labels import VOC, ClassMap, LabelSet
from segcore.core.scores import MEANS, Floats, class_scores

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
    _check_pair(target, prediction)
    if len(labels) > 256 or target.itemsize > 1 or prediction.itemsize > 1:
        rows, columns, pixels = _pairs_of_many(target, prediction, labels)
        matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
        matrix[rows, columns] = pixels
        return matrix
    wanted, found, lengths = _runs(target.ravel(), prediction.ravel())
    pairs = wanted.astype(np.uint16) << 8 | found
    # Weighted counts are float64, exact for integers up to 2**53.
    counts = np.bincount(pairs, lengths, 1 << 16).reshape(256, 256)
    if labels.ignore is not None and labels.ignore < 256:
        counts[labels.ignore] = 0
    matrix = counts[: len(labels), : len(labels)]
    if matrix.sum() != counts.sum():
        rows, columns = np.nonzero(counts)
        _refuse_values(rows, columns, labels)
    return matrix.astype(np.int64)


def class_totals(target: ClassMap, prediction: ClassMap, labels: LabelSet = VOC) -> Totals:
    """Return the scored pixels per class, int64 (n, 3), for any number of classes; else as `confusion_matrix`."""
    if len(labels) <= MATRIX_CLASSES:
        return class_counts(confusion_matrix(target, prediction, labels))
    _check_pair(target, prediction)
    rows, columns, pixels = _pairs_of_many(target, prediction, labels)
    totals = np.zeros((len(labels), 3), dtype=np.int64)
    equal = rows == columns
    for part, classes, counted in ((0, rows[equal], pixels[equal]), (1, rows, pixels), (2, columns, pixels)):
        totals[:, part] = np.bincount(classes, counted, len(labels))  # exact: see confusion_matrix
    return totals


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


def _pairs_of_many(
    target: ClassMap, prediction: ClassMap, labels: LabelSet
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Return target class, predicted class and pixels of each pair that occurs among the scored pixels."""
    wanted, found, lengths = _runs(target.ravel(), prediction.ravel())
    pairs, inverse = np.unique(wanted.astype(np.uint32) << 16 | found, return_inverse=True)
    pixels = np.bincount(inverse, lengths).astype(np.int64)
    rows, columns = (pairs >> 16).astype(np.intp), (pairs & 0xFFFF).astype(np.intp)
    if labels.ignore is not None:
        scored = rows != labels.ignore
        rows, columns, pixels = rows[scored], columns[scored], pixels[scored]
    if rows.size and max(rows.max(), columns.max()) >= len(labels):
        _refuse_values(rows, columns, labels)
    return rows, columns, pixels


def _check_pair(target: ClassMap, prediction: ClassMap) -> None:
    if target.shape != prediction.shape:
        raise DatasetError(f"target is {target.shape}, prediction is {prediction.shape}: they must have the same shape")
    if not {target.dtype, prediction.dtype} <= {np.dtype(np.uint8), np.dtype(np.uint16)}:
        raise DatasetError(f"class maps must be uint8 or uint16, found {target.dtype} and {prediction.dtype}")
    if target.ndim != 2 or target.size == 0:
        raise DatasetError(f"class maps must be (H, W) with at least one pixel, found {target.shape}")


def _refuse_values(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp], labels: LabelSet) -> None:
    wanted = f"0 to {len(labels) - 1}"
    bad_target = np.unique(rows[rows >= len(labels)])
    if bad_target.size:
        ignore = "" if labels.ignore is None else f", or {labels.ignore}"
        found = bad_target[:_MOST_SHOWN].tolist()
        raise DatasetError(f"target has values that are not a class: {found}; wanted {wanted}{ignore}")
    found = np.unique(columns[columns >= len(labels)])[:_MOST_SHOWN].tolist()
    raise DatasetError(f"prediction has values that are not a class: {found}; wanted {wanted}")


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


def scores(matrix: ConfusionMatrix, boundary: BoundaryCounts | None = None) -> Floats:
    """Return all figures, float64 (..., n + 6), in the order of `score_names`; NaN where undefined: see `class_scores`.

    Args:
        matrix: int64 (..., n, n), any number of leading axes.
        boundary: int64 (..., n, 3) of `boundary_counts`; boundary IoU is NaN without it.
    """
    return class_scores(class_counts(matrix), boundary)


def iou_per_class(matrix: ConfusionMatrix) -> Floats:
    """Return IoU per class, float64 (n,), NaN where a class is in neither target nor prediction."""
    return scores(matrix)[len(MEANS) :]


def mean_iou(matrix: ConfusionMatrix) -> float:
    """Return the mean IoU over the classes present in target or prediction; NaN if nothing was scored."""
    return float(scores(matrix)[MEANS.index("miou")])


def pixel_accuracy(matrix: ConfusionMatrix) -> float:
    """Return the share of scored pixels with the right class; NaN if nothing was scored."""
    return float(scores(matrix)[MEANS.index("pixel_accuracy")])
