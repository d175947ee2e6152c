"""Datasets with other classes than the model, held against the tools of their makers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from segcore.core.errors import UsageError
from segcore.core.labels import CITYSCAPES, VOC, LabelSet
from segcore.evaluation.datasets import evaluate
from segcore.evaluation.metrics import confusion_matrix
from segcore.inference.pipeline import Segmenter
from segcore.inputs.datasets import fit, open_dataset
from tests.support.figures import iou_per_class
from tests.support.pairs import TRAIN_IDS, PaletteNet, make_cityscapes

SCORED = list(TRAIN_IDS)
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
    matrix = sum(confusion_matrix(target, prediction, CITYSCAPES) for _, target, prediction in pairs)
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
    np.testing.assert_array_equal(iou_per_class(ours), wanted)


@pytest.mark.slow
def test_the_confusion_matrix_equals_that_of_torchmetrics(pairs: list[tuple[Path, np.ndarray, np.ndarray]]) -> None:
    from torchmetrics.classification import MulticlassConfusionMatrix

    metric = MulticlassConfusionMatrix(num_classes=19, ignore_index=255)
    for _, target, prediction in pairs:
        metric.update(torch.from_numpy(prediction.astype(np.int64)), torch.from_numpy(target.astype(np.int64)))
    np.testing.assert_array_equal(matrix_of(pairs), metric.compute().numpy())


def test_classes_that_no_mask_can_have_are_not_judged(tmp_path: Path) -> None:
    """A VOC model on a set of cars and people: what it takes for a cat is wrong, but there is no IoU of cats."""
    names = np.array(["person", "car"])
    rng = np.random.default_rng(0)
    matrix = np.zeros((21, 21), dtype=np.int64)
    for number in range(3):
        mask = rng.integers(0, 2, (12, 16), dtype=np.uint8)
        seen = np.array([VOC.index(name) for name in names], dtype=np.uint8)[mask]
        seen[:2] = VOC.index("cat")
        for part, pixels in (("images", VOC.palette[seen]), ("masks", mask)):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / part / f"{number}.png")
        matrix += confusion_matrix(np.array([VOC.index(name) for name in names], dtype=np.uint8)[mask], seen)
    (tmp_path / "map.yaml").write_text("{classes: {human: people, auto: 7}}")
    labels = LabelSet("streets", ("human", "auto"))
    dataset = open_dataset("folder", tmp_path, labels=labels, label_map=tmp_path / "map.yaml")
    found = evaluate(Segmenter(PaletteNet(), device="cpu", size=12), dataset)["voc-original"]
    assert found.label_map == {"human": "person", "auto": "car"}
    assert found.masks == f"indices of streets (sha256 {labels.digest[:12]})"
    assert np.array_equal(found.matrix or (), matrix)
    ious = [matrix[i, i] / (matrix[i].sum() + matrix[:, i].sum() - matrix[i, i]) for i in (7, 15)]
    assert {name for name in found.scores if name.startswith("iou ")} == {"iou car", "iou person"}
    assert found.scores["miou"] == pytest.approx(sum(ious) / 2, abs=1e-12)
    assert found.scores["pixel_accuracy"] == np.trace(matrix) / matrix.sum()
    assert all(set(counts) == {"car", "person"} for counts in found.counts.values())
    with pytest.raises(UsageError, match=r"lack auto: say by --map"):
        evaluate(Segmenter(PaletteNet(), device="cpu", size=12), open_dataset("folder", tmp_path, labels=labels))
