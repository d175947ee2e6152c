"""Figures of confusion matrices, for tests of what they are computed from."""

from __future__ import annotations

from segcore.core.scores import MEANS, Floats, class_scores
from segcore.evaluation.metrics import BoundaryCounts, ConfusionMatrix, class_counts


def scores(matrix: ConfusionMatrix, boundary: BoundaryCounts | None = None) -> Floats:
    """Return all figures, float64 (..., n + 6), in the order of `score_names`."""
    return class_scores(class_counts(matrix), boundary)


def iou_per_class(matrix: ConfusionMatrix) -> Floats:
    return scores(matrix)[len(MEANS) :]


def mean_iou(matrix: ConfusionMatrix) -> float:
    return float(scores(matrix)[MEANS.index("miou")])


def pixel_accuracy(matrix: ConfusionMatrix) -> float:
    return float(scores(matrix)[MEANS.index("pixel_accuracy")])
