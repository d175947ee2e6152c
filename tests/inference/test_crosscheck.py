"""Our figures beside those of twenty independent lines, on real photos, with networks of torch and of LiteRT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcore.evaluation.datasets import evaluate
from segcore.inference.pipeline import Segmenter
from segcore.inputs.datasets import Dataset, open_dataset
from tests.support.crosscheck import crosscheck, torch_model
from training.teacher import DeepLabTflite

SHARED = Path(__file__).parents[3] / "shared"
ROOT = SHARED / "voc2012"
TFLITE = SHARED / "models" / "deeplabv3_257_mv_gpu.tflite"


@pytest.fixture(scope="module")
def val() -> Dataset:
    if not ROOT.is_dir():
        pytest.skip(f"{ROOT} is not here: photos of PASCAL VOC are not part of this repository")
    return open_dataset("voc", ROOT)


@pytest.mark.slow
def test_embedded_scores_equal_the_independent_script(val: Dataset) -> None:
    segmenter = Segmenter("embedded", device="cpu", size=256)
    few = val.first(6)
    found = evaluate(segmenter, few)["voc-original"].scores
    expected = crosscheck(ROOT, list(few.names), torch_model(segmenter.model, 256))
    # Two methods of interpolation differ where two classes are equal to the last bits: a pixel in a million.
    assert [found["miou"], found["pixel_accuracy"]] == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_deeplab_scores_equal_the_independent_script(val: Dataset) -> None:
    pytest.importorskip("ai_edge_litert", reason="the LiteRT interpreter is not installed: pip install ai-edge-litert")
    if not TFLITE.is_file():
        pytest.skip(f"{TFLITE} is not here")
    model, few = DeepLabTflite(TFLITE), val.first(12)
    found = evaluate(model, few)["voc-original"].scores
    expected = crosscheck(ROOT, list(few.names), lambda photo: model.forward(model.prepare(np.array(photo))[None]))
    assert [found["miou"], found["pixel_accuracy"]] == pytest.approx(expected, abs=1e-4)
    assert found["miou"] > 0.4  # it does know these photos
