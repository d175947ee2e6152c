"""A program of a model file as a model: masks at the photo's resolution, stages, datasets, parity with a reference."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcore import Segmenter
from segcore.core.errors import ModelError, ProgramError, UsageError
from segcore.core.labels import LabelSet
from segcore.evaluation.datasets import ScoringOptions, evaluate
from segcore.evaluation.parity import masks_parity
from segcore.inference.models import load
from segcore.inference.pipeline import StageTimer
from segcore.inference.result import SegmentationResult
from segcore.inputs.cases import Case
from segcore.inputs.datasets import open_dataset
from segcore.inputs.download import FetchSettings
from segcore.inputs.model_files import read_model_file
from segcore.plugin.plan import PlanItem
from segcore.plugin.resources import Resources

if os.name != "posix":
    pytest.skip("programs as models need process groups", allow_module_level=True)

PROGRAM = Path(__file__).parents[1] / "support" / "programs" / "segment.py"


def model(directory: Path, how: str = "right", serve: bool = False, more: str = "") -> Segmenter:
    words = ["serve", how] if serve else [how, "{photo}", "{mask}"]
    command = ", ".join(f'"{word}"' for word in (sys.executable, "-I", "-S", str(PROGRAM), *words))
    file = directory / "shipped.yaml"
    source = f"source: {{command: [{command}], photos: ppm, serve: {str(serve).lower()}}}"
    file.write_text(f"{source}\nlabels: [dark, bright]\n{more}\n")
    return Segmenter(str(file), device="cpu")


def noise(seed: int, height: int = 20, width: int = 30) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_masks_have_the_resolution_of_the_photo_and_no_logits(tmp_path: Path) -> None:
    segmenter = model(tmp_path)
    photos = [noise(0), noise(1, 7, 50)]
    for photo, result in zip(photos, segmenter.run(photos, margins=True), strict=True):
        np.testing.assert_array_equal(result.class_map, photo[:, :, 0] > 127)
        assert result.class_map.dtype == np.uint8
        assert result.margins is None
    assert (segmenter.runtime, segmenter.precision, segmenter.is_profilable) == ("program", "fp32", False)
    assert segmenter.weights.name.endswith("segment.py right {photo} {mask}")


def test_a_model_file_may_ask_for_a_size(tmp_path: Path) -> None:
    segmenter = model(tmp_path, more="input: {resize: {fixed: [10, 15]}, interpolation: nearest}")
    photo = np.kron(noise(3, 10, 15), np.ones((2, 2, 1), dtype=np.uint8))
    result = segmenter.run([photo])[0]
    assert result.model_class_map.shape == (10, 15)
    np.testing.assert_array_equal(result.class_map, photo[:, :, 0] > 127)


def test_milliseconds_of_its_own_are_the_forward_pass(tmp_path: Path) -> None:
    segmenter = model(tmp_path, "own-time", serve=True)
    timer = StageTimer(segmenter.device)
    segmenter.run([noise(0), noise(1), noise(2, 5, 5)], timer)
    assert timer.seconds["forward"] == pytest.approx(3e-5, abs=1e-9)
    assert timer.seconds["transfer"] > 1e-3
    silent = model(tmp_path, serve=True)
    timer = StageTimer(silent.device)
    silent.run([noise(0)], timer)
    assert timer.seconds["forward"] > timer.seconds["transfer"]


@pytest.mark.parametrize("batch", [1, 3])
def test_failures_are_errors_of_their_images(tmp_path: Path, batch: int) -> None:
    """The second photo that a server gets makes it crash, and so on every second one after it was started anew."""
    for number in range(6):
        photo = noise(number)
        for part, pixels in (("images", photo), ("masks", (photo[:, :, 0] > 127).astype(np.uint8))):
            (tmp_path / part).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / part / f"{number}.png")
    dataset = open_dataset("folder", tmp_path)
    whole = evaluate(model(tmp_path, serve=True), dataset, options=ScoringOptions(batch=batch))
    assert whole["voc-original"].scores["miou"] == 1
    assert not whole.failed
    found = evaluate(model(tmp_path, "crash", serve=True), dataset, options=ScoringOptions(batch=batch))
    assert found.images >= 1
    assert len(found.failed) + found.images == 6
    assert all("exit code 3" in reason for reason in found.failed.values())
    assert found["voc-original"].scores["miou"] == 1


def test_what_a_program_cannot_be(tmp_path: Path) -> None:
    model(tmp_path)
    spec = read_model_file(tmp_path / "shipped.yaml")
    with pytest.raises(ModelError, match="cannot be random"):
        load(spec, "random")
    with pytest.raises(ProgramError, match="wrote a mask of 15x20 pixels for a photo of 30x20"):
        model(tmp_path, "wrong-size")(noise(0))


def test_items_on_devices_that_a_program_does_not_run_on_are_skipped(tmp_path: Path) -> None:
    model(tmp_path)
    image = tmp_path / "a.png"
    Image.fromarray(noise(0)).save(image)
    case = Case.model_validate({"name": "a", "image": {"path": "a.png"}, "source_file": tmp_path / "a.yaml"})
    item = PlanItem("latency", case, "shipped", "program", "fp32", "cpu", 32, 1, "auto")
    item = replace(item, spec=read_model_file(tmp_path / "shipped.yaml"))
    resources = Resources(FetchSettings(tmp_path / "cache"))
    assert resources.why_not(item) is None
    assert "does not run on cuda: a program decides" in str(resources.why_not(replace(item, device="cuda")))


def result_of(classes: np.ndarray, margins: np.ndarray | None, labels: LabelSet) -> SegmentationResult:
    import torch

    height, width = classes.shape
    photo = np.zeros((height, width, 3), dtype=np.uint8)
    logits = torch.from_numpy(classes)
    if margins is not None:
        logits = torch.zeros(2, height, width).scatter_(0, logits.long()[None], torch.from_numpy(margins)[None])
    return SegmentationResult(photo, classes, photo, {}, (1, 3, height, width), margins, logits, labels)


def test_parity_of_masks_counts_what_differs_where_the_reference_was_sure() -> None:
    labels = LabelSet("two", ("a", "b"))
    wanted = np.zeros((4, 5), dtype=np.uint8)
    wanted[:, 3:] = 1
    seen = wanted.copy()
    seen[0, :2] = 1
    margins = np.full((4, 5), 10.0, dtype=np.float32)
    margins[0, 0] = 0.01
    found = masks_parity(result_of(wanted, margins, labels), result_of(seen, None, labels))
    assert (found.unlike, found.equal_share, found.largest_error) == (1, 0.9, None)
    check = found.check(0.049, "roadnet")
    assert (check.name, check.passed) == ("pixels unlike roadnet", False)
    assert "no logits" in check.found
    without = masks_parity(result_of(wanted, None, labels), result_of(seen, None, labels))
    assert (without.unlike, without.largest_logit) == (2, None)
    with pytest.raises(UsageError, match="only masks of the same classes"):
        masks_parity(result_of(wanted, None, LabelSet("other", ("a", "c"))), result_of(seen, None, labels))
