from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage
import sklearn.metrics
import torch
from hypothesis import given
from hypothesis import strategies as st

from segcore.core.errors import DatasetError
from segcore.core.labels import (
    CITYSCAPES,
    IGNORE_INDEX,
    NUM_CLASSES,
    VOC,
    ClassMap,
    LabelSet,
    class_map_dtype,
    numbered,
)
from segcore.core.scores import MEANS, class_scores, score_names
from segcore.evaluation.metrics import (
    BOUNDARY_WIDTH,
    boundary_counts,
    class_counts,
    class_totals,
    confusion_matrix,
    metric_name,
)
from tests.support.examples import examples
from tests.support.figures import iou_per_class, mean_iou, pixel_accuracy, scores

ByteMap = npt.NDArray[np.uint8]
SCORES = score_names(VOC.names)
EVERY_CLASS = list(range(NUM_CLASSES))


def noise(seed: int, shape: tuple[int, int], values: list[int]) -> ByteMap:
    return np.random.default_rng(seed).choice(values, shape).astype(np.uint8)


def blocks(seed: int, shape: tuple[int, int], values: list[int]) -> ByteMap:
    """Piecewise constant, as masks are."""
    small = noise(seed, (-(-shape[0] // 9), -(-shape[1] // 13)), values)
    return np.kron(small, np.ones((9, 13), dtype=np.uint8))[: shape[0], : shape[1]]


PAIRS = {
    "noise": (noise(1, (61, 47), [*EVERY_CLASS, 255]), noise(2, (61, 47), EVERY_CLASS)),
    "masks": (blocks(3, (120, 90), [*EVERY_CLASS, 255]), blocks(4, (120, 90), EVERY_CLASS)),
    "mask and noise": (blocks(5, (60, 50), [0, 8, 255]), noise(6, (60, 50), EVERY_CLASS)),
    "perfect": (blocks(7, (50, 50), EVERY_CLASS), blocks(7, (50, 50), EVERY_CLASS)),
    "all wrong": (np.full((20, 30), 3, np.uint8), np.full((20, 30), 20, np.uint8)),
    "absent classes": (blocks(8, (40, 40), [0, 20]), blocks(9, (40, 40), [0, 1])),
    "mostly void": (noise(10, (40, 40), [255] * 50 + [7]), noise(11, (40, 40), EVERY_CLASS)),
    "one pixel": (np.array([[20]], np.uint8), np.array([[0]], np.uint8)),
    "all void": (np.full((9, 9), 255, np.uint8), noise(12, (9, 9), EVERY_CLASS)),
    "one row": (noise(13, (1, 500), [0, 1, 255]), noise(14, (1, 500), [0, 1])),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PAIRS)
def test_confusion_matrix_equals_scikit_learn_and_torchmetrics(name: str) -> None:
    from torchmetrics.classification import MulticlassConfusionMatrix  # which imports transformers

    target, prediction = PAIRS[name]
    found = confusion_matrix(target, prediction)
    scored = target != IGNORE_INDEX
    if scored.any():
        np.testing.assert_array_equal(
            found, sklearn.metrics.confusion_matrix(target[scored], prediction[scored], labels=EVERY_CLASS)
        )
    theirs = MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=IGNORE_INDEX)
    theirs.update(torch.from_numpy(prediction).long(), torch.from_numpy(target).long())
    np.testing.assert_array_equal(found, theirs.compute().numpy())
    assert found.dtype == np.int64
    assert found.sum() == scored.sum()


@pytest.mark.slow
def test_sums_over_images_equal_torchmetrics_at_dataset_level() -> None:
    from torchmetrics.classification import MulticlassJaccardIndex

    matrix = sum((confusion_matrix(*pair) for pair in PAIRS.values()), np.zeros((21, 21), np.int64))
    theirs = MulticlassJaccardIndex(NUM_CLASSES, average="none", ignore_index=IGNORE_INDEX)
    macro = MulticlassJaccardIndex(NUM_CLASSES, average="macro", ignore_index=IGNORE_INDEX)
    for target, prediction in PAIRS.values():
        for metric in (theirs, macro):
            metric.update(torch.from_numpy(prediction).long(), torch.from_numpy(target).long())
    np.testing.assert_allclose(iou_per_class(matrix), theirs.compute().numpy(), rtol=1e-6)
    assert mean_iou(matrix) == pytest.approx(float(macro.compute()), rel=1e-6)


@pytest.mark.parametrize("name", [name for name in PAIRS if name != "all void"])
def test_means_equal_scikit_learn(name: str) -> None:
    target, prediction = PAIRS[name]
    found = dict(zip(SCORES, scores(confusion_matrix(target, prediction)).tolist(), strict=True))
    wanted, seen = target[target != 255], prediction[target != 255]
    present = sorted({*wanted.tolist(), *seen.tolist()})
    iou = sklearn.metrics.jaccard_score(wanted, seen, labels=present, average=None, zero_division=0)
    in_target = sorted(set(wanted.tolist()))
    recall = sklearn.metrics.recall_score(wanted, seen, labels=in_target, average="macro", zero_division=0)
    assert found["miou"] == pytest.approx(iou.mean())
    assert found["dice"] == pytest.approx(
        sklearn.metrics.f1_score(wanted, seen, labels=present, average="macro", zero_division=0)
    )
    assert found["mean_accuracy"] == pytest.approx(recall)
    assert found["pixel_accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(wanted, seen))
    shares = [(wanted == index).mean() for index in present]
    assert found["frequency_weighted_iou"] == pytest.approx(float(np.dot(shares, iou)))


def test_nothing_scored_is_nan_not_zero() -> None:
    matrix = confusion_matrix(*PAIRS["all void"])
    assert np.isnan(scores(matrix, boundary_counts(*PAIRS["all void"]))).all()
    assert np.isnan(mean_iou(matrix))
    assert np.isnan(pixel_accuracy(matrix))


def test_absent_classes_are_left_out_of_the_mean() -> None:
    matrix = np.zeros((21, 21), np.int64)
    matrix[0, 0], matrix[8, 8], matrix[8, 0] = 60, 30, 10
    assert np.isnan(iou_per_class(matrix)).sum() == 19
    assert mean_iou(matrix) == pytest.approx((60 / 70 + 30 / 40) / 2)
    assert pixel_accuracy(matrix) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("target", "prediction", "message"),
    [
        (np.zeros((4, 5), np.uint8), np.zeros((5, 4), np.uint8), r"\(4, 5\), prediction is \(5, 4\)"),
        (np.zeros((4, 5), np.int64), np.zeros((4, 5), np.uint8), "must be uint8 or uint16, found int64"),
        (np.zeros((0, 5), np.uint8), np.zeros((0, 5), np.uint8), "at least one pixel"),
        (np.zeros(5, np.uint8), np.zeros(5, np.uint8), r"must be \(H, W\)"),
        (np.full((4, 5), 21, np.uint8), np.zeros((4, 5), np.uint8), r"target has values that are not a class: \[21\]"),
        (np.full((4, 5), 254, np.uint8), np.zeros((4, 5), np.uint8), r"target .* \[254\]"),
        (np.zeros((4, 5), np.uint8), np.full((4, 5), 255, np.uint8), r"prediction .* \[255\]; wanted 0 to 20"),
        (noise(0, (9, 9), [0, 77]), noise(0, (9, 9), [0, 1]), r"\[77\]"),
    ],
)
def test_bad_pairs_are_refused(target: ByteMap, prediction: ByteMap, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        confusion_matrix(target, prediction)


def test_predictions_under_void_are_not_checked() -> None:
    target = np.array([[255, 0]], np.uint8)
    assert confusion_matrix(target, np.array([[99, 0]], np.uint8)).sum() == 1


@given(seed=st.integers(0, 2**16), height=st.integers(1, 40), width=st.integers(1, 60), dense=st.booleans())
@examples(60)
def test_confusion_matrix_equals_counting_one_by_one(seed: int, height: int, width: int, dense: bool) -> None:
    draw = noise if dense else blocks
    target = draw(seed, (height, width), [*EVERY_CLASS, 255])
    prediction = draw(seed + 1, (height, width), EVERY_CLASS)
    expected = np.zeros((256, 256), np.int64)
    np.add.at(expected, (target, prediction), 1)
    np.testing.assert_array_equal(confusion_matrix(target, prediction), expected[:21, :21])


def slow_boundary(target: ClassMap, prediction: ClassMap, labels: LabelSet = VOC) -> npt.NDArray[np.int64]:
    """Cheng et al.'s definition: each class's mask minus its erosion, d times by a 3x3 square, zero outside."""
    distance = max(1, round(BOUNDARY_WIDTH * float(np.sqrt(target.shape[0] ** 2 + target.shape[1] ** 2))))
    if labels.ignore is not None:
        prediction = np.where(target == labels.ignore, target, prediction)
    rows = []
    for index in range(len(labels)):
        bands = []
        for class_map in (target, prediction):
            mask = class_map == index
            eroded = scipy.ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0)
            bands.append(mask & ~eroded)
        rows.append([(bands[0] & bands[1]).sum(), bands[0].sum(), bands[1].sum()])
    return np.array(rows, np.int64)


@pytest.mark.parametrize("name", PAIRS)
def test_boundary_counts_equal_the_slow_definition(name: str) -> None:
    np.testing.assert_array_equal(boundary_counts(*PAIRS[name]), slow_boundary(*PAIRS[name]))


@given(seed=st.integers(0, 2**16), height=st.integers(1, 130), width=st.integers(1, 130))
@examples(20)
def test_boundary_counts_equal_the_slow_definition_at_any_size(seed: int, height: int, width: int) -> None:
    pair = blocks(seed, (height, width), [0, 1, 2, 255]), blocks(seed + 1, (height, width), [0, 1, 2])
    np.testing.assert_array_equal(boundary_counts(*pair), slow_boundary(*pair))


def test_boundary_iou_is_more_sensitive_than_iou_to_a_shift() -> None:
    target = np.zeros((400, 400), np.uint8)
    target[50:350, 50:350] = 8
    prediction = np.roll(target, 4, axis=1)
    found = dict(
        zip(SCORES, scores(confusion_matrix(target, prediction), boundary_counts(target, prediction)), strict=True)
    )
    assert found["boundary_iou"] < found["miou"] - 0.1


def test_scores_of_stacked_matrices_equal_those_of_each() -> None:
    matrices = np.stack([confusion_matrix(*pair) for pair in PAIRS.values()])
    boundaries = np.stack([boundary_counts(*pair) for pair in PAIRS.values()])
    together = scores(matrices, boundaries)
    assert together.shape == (len(PAIRS), len(MEANS) + NUM_CLASSES)
    for row, matrix, boundary in zip(together, matrices, boundaries, strict=True):
        np.testing.assert_array_equal(row, scores(matrix, boundary))


# Other label sets

OTHERS = [
    numbered(2),
    CITYSCAPES,
    LabelSet("own", ("a", "b", "c"), ignore=None),
    LabelSet("own", ("a", "b", "c"), ignore=3),
    numbered(255),
    numbered(256),
    numbered(300),
]


def pair_of(labels: LabelSet, make: Callable[..., ByteMap]) -> tuple[ClassMap, ClassMap]:
    """A target and a prediction with all classes and, in the target, pixels that are not scored."""
    every = list(range(len(labels)))
    dtype = class_map_dtype((labels.ignore or 0) + 1)
    rng = np.random.default_rng(len(labels))
    target = rng.choice([*every, *([labels.ignore] * 9 if labels.ignore else [])], (60, 50)).astype(dtype)
    prediction = rng.choice(every, (60, 50)).astype(labels.dtype)
    if make is blocks:
        target, prediction = (each[:20, :20].repeat(4, axis=0).repeat(5, axis=1) for each in (target, prediction))
    return target, prediction


@pytest.mark.parametrize("make", [noise, blocks])
@pytest.mark.parametrize("labels", OTHERS, ids=lambda labels: f"{len(labels)}-{labels.ignore}")
def test_figures_of_other_label_sets(labels: LabelSet, make: Callable[..., ByteMap]) -> None:
    target, prediction = pair_of(labels, make)
    found = confusion_matrix(target, prediction, labels)
    scored = target != labels.ignore if labels.ignore is not None else np.ones(target.shape, bool)
    expected = sklearn.metrics.confusion_matrix(target[scored], prediction[scored], labels=list(range(len(labels))))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(class_totals(target, prediction, labels), class_counts(found))
    np.testing.assert_array_equal(class_scores(class_counts(found)), scores(found))
    assert len(score_names(labels.names)) == len(scores(found))
    np.testing.assert_array_equal(
        boundary_counts(target, prediction, labels), slow_boundary(target, prediction, labels)
    )


def test_figures_of_the_most_classes() -> None:
    target = np.array([[0, 65_534, 65_534, 65_535]], np.uint16)
    totals = class_totals(target, np.array([[0, 65_534, 7, 9]], np.uint16), numbered(65_535))
    assert [totals[index].tolist() for index in (0, 7, 9, 65_534)] == [[1, 1, 1], [0, 0, 1], [0, 0, 0], [1, 2, 1]]
    assert class_scores(totals)[MEANS.index("miou")] == pytest.approx((1 + 0 + 0.5) / 3)


@pytest.mark.parametrize("labels", [numbered(3), numbered(300)])
def test_values_that_are_not_scored_are_those_of_the_label_set(labels: LabelSet) -> None:
    assert labels.ignore is not None
    bad = np.array([[0, len(labels)]], labels.dtype)
    fine = np.array([[0, 1]], labels.dtype)
    with pytest.raises(DatasetError, match=rf"target .*\[{len(labels)}\]; wanted 0 to .*, or {labels.ignore}"):
        class_totals(bad, fine, labels)
    with pytest.raises(DatasetError, match=rf"prediction .*\[{len(labels)}\]"):
        class_totals(fine, bad, labels)
    assert class_totals(np.array([[0, labels.ignore]], labels.dtype), bad, labels).sum() == 3


def test_the_convention_names_what_is_ignored() -> None:
    assert metric_name(VOC) == "voc: one confusion matrix, 255 ignored, mean over classes present"
    assert "65535 ignored" in metric_name(numbered(300))
    assert "nothing ignored" in metric_name(OTHERS[2])
