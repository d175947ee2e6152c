"""Datasets with other classes than the model, held against the tools of their makers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from segcore.core.labels import CITYSCAPES
from segcore.evaluation.metrics import confusion_matrix, iou_per_class
from segcore.inputs.datasets import fit, open_dataset
from segcore.inputs.datasets.cityscapes import TRAIN_IDS
from tests.support.pairs import make_cityscapes

SCORED = [index for index, train_id in enumerate(TRAIN_IDS) if train_id is not None]
"""Label ids in the order of their train ids."""


@pytest.fixture
def pairs(tmp_path: Path) -> list[tuple[Path, np.ndarray, np.ndarray]]:
    """File of the label ids, target in train ids, and a prediction that is right in places; 19 classes, 255 and all."""
    make_cityscapes(tmp_path)
    dataset = fit(open_dataset("cityscapes", tmp_path), CITYSCAPES)
    rng = np.random.default_rng(1)
    found = []
    for index, name in enumerate(dataset.names):
        target = dataset.load(index)[1]
        guess = rng.integers(0, 19, target.shape, dtype=np.uint8)
        prediction = np.where((target < 19) & (rng.random(target.shape) < 0.6), target, guess)
        found.append((Path(f"{tmp_path / 'gtFine' / 'val' / name}_gtFine_labelIds.png"), target, prediction))
    return found


def matrix_of(pairs: list[tuple[Path, np.ndarray, np.ndarray]]) -> np.ndarray:
    matrix = sum(confusion_matrix(target, prediction)[:19, :19] for _, target, prediction in pairs)
    assert isinstance(matrix, np.ndarray)
    return matrix


def test_the_confusion_matrix_equals_that_of_the_scripts_of_cityscapes(
    pairs: list[tuple[Path, np.ndarray, np.ndarray]], tmp_path: Path
) -> None:
    reason = "compares with the scripts of Cityscapes: pip install cityscapesscripts"
    theirs = pytest.importorskip("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling", reason=reason)
    args = SimpleNamespace(evalInstLevelScore=False, evalPixelAccuracy=False)
    matrix = theirs.generateMatrix(args)
    for file, _, prediction in pairs:
        ids = np.array(Image.open(file))
        ids[ids == 255] = 0  # a licence plate, which they do not know as a pixel: unlabeled is not scored either
        Image.fromarray(ids).save(file)
        Image.fromarray(np.array(SCORED, dtype=np.uint8)[prediction]).save(tmp_path / "prediction.png")
        theirs.evaluatePair(str(tmp_path / "prediction.png"), str(file), matrix, {}, {}, args)
    ours = matrix_of(pairs)
    np.testing.assert_array_equal(ours, matrix[np.ix_(SCORED, SCORED)])
    wanted = [theirs.getIouScoreForLabel(label, matrix, args) for label in SCORED]
    np.testing.assert_array_equal(iou_per_class(np.pad(ours, (0, 2)))[:19], wanted)


def test_the_confusion_matrix_equals_that_of_torchmetrics(pairs: list[tuple[Path, np.ndarray, np.ndarray]]) -> None:
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(num_classes=19, ignore_index=255)
    for _, target, prediction in pairs:
        metric.update(torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(target.astype(np.int64)))
    np.testing.assert_array_equal(matrix_of(pairs), metric.compute().numpy())
