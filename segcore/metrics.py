"""Accuracy of class maps: one confusion matrix, and what follows from it.

Convention ``voc``: one matrix over everything scored, pixels of 255 in the target ignored, IoU per class
``TP / (TP + FP + FN)`` and its mean over the classes present in target or prediction (the PASCAL VOC measure,
Everingham et al. 2015, section 3.4, with absent classes left out rather than counted as 0).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segcore.errors import DatasetError
from segcore.labels import IGNORE_INDEX, NUM_CLASSES

METRIC_VOC = "voc: one confusion matrix, 255 ignored, mean over classes present"

ClassMap = npt.NDArray[np.uint8]
ConfusionMatrix = npt.NDArray[np.int64]


def confusion_matrix(target: ClassMap, prediction: ClassMap) -> ConfusionMatrix:
    """Return pixel counts, int64 (21, 21): rows are target classes, columns predicted ones.

    Args:
        target: uint8 (H, W), classes 0 to 20, 255 for pixels that are not scored.
        prediction: uint8 (H, W), classes 0 to 20.

    Raises:
        DatasetError: the shapes differ, or a value is not a class.
    """
    if target.shape != prediction.shape:
        raise DatasetError(f"target is {target.shape}, prediction is {prediction.shape}: they must be of one size")
    if target.dtype != np.uint8 or prediction.dtype != np.uint8:
        raise DatasetError(f"class maps must be uint8, found {target.dtype} and {prediction.dtype}")
    # One histogram over both bytes at once: target in the high byte, prediction in the low one.
    pairs = target.astype(np.uint16).ravel() << 8 | prediction.ravel()
    counts = np.bincount(pairs, minlength=1 << 16).reshape(256, 256)
    matrix = counts[:NUM_CLASSES, :NUM_CLASSES]
    scored = int(counts[:IGNORE_INDEX].sum())
    if int(matrix.sum()) != scored:
        bad_target = np.flatnonzero(counts[NUM_CLASSES:IGNORE_INDEX].sum(axis=1)) + NUM_CLASSES
        if bad_target.size:
            raise DatasetError(f"target has values that are no class: {bad_target.tolist()}; wanted 0 to 20, or 255")
        bad = np.flatnonzero(counts[:NUM_CLASSES, NUM_CLASSES:].sum(axis=0)) + NUM_CLASSES
        raise DatasetError(f"prediction has values that are no class: {bad.tolist()}; wanted 0 to 20")
    return matrix.astype(np.int64)


def iou_per_class(matrix: ConfusionMatrix) -> npt.NDArray[np.float64]:
    """Return IoU per class, float64 (21,), NaN where a class is in neither target nor prediction."""
    true_positive = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - true_positive
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(union > 0, true_positive / union, np.nan), dtype=np.float64)


def mean_iou(matrix: ConfusionMatrix) -> float:
    """Return the mean IoU over the classes present in target or prediction; NaN when nothing was scored."""
    iou = iou_per_class(matrix)
    present = iou[~np.isnan(iou)]
    return float(present.mean()) if present.size else float("nan")


def pixel_accuracy(matrix: ConfusionMatrix) -> float:
    """Return the share of scored pixels with the right class; NaN when nothing was scored."""
    total = int(matrix.sum())
    return float(np.trace(matrix) / total) if total else float("nan")
