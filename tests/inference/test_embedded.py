"""The shipped weights: pinned, small, quick to load, and right about real photos."""

import math
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from segcore import evaluate, open_dataset
from segcore.core.errors import ModelError
from segcore.inference.embedded import WEIGHTS_PATH, WEIGHTS_SHA256, EmbeddedNet, load_embedded
from segcore.inference.embedded.net import MAX_PENALTY, reduce, suppress_absent
from segcore.inference.pipeline import Segmenter

VOC_ROOT = Path(__file__).parents[3] / "shared" / "voc2012"
needs_voc = pytest.mark.skipif(not VOC_ROOT.is_dir(), reason="no VOC photos beside the repository")

REFERENCES = Path(__file__).parents[3] / "shared" / "reference-images"
REFERENCE_PHOTOS = {
    "darknet-dog": "dog",
    "darknet-eagle": "bird",
    "darknet-horses": "horse",
    "darknet-person": "horse",
    "fcn-demo": "person",
    "hub-samoyed": "dog",
}
PHOTOS = {"chelsea": "cat", "astronaut": "person", "camera": "person", "motorcycle": "motorbike"}


@pytest.fixture(scope="module")
def net() -> EmbeddedNet:
    return load_embedded()


def photo(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    if name == "motorcycle":
        return np.asarray(data.stereo_motorcycle()[0])  # type: ignore[no-untyped-call]  # scikit-image has no types
    pixels = np.asarray(getattr(data, name)())
    return pixels if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)


def test_the_weights_file_is_pinned_and_small() -> None:
    content = WEIGHTS_PATH.read_bytes()
    assert sha256(content).hexdigest() == WEIGHTS_SHA256
    assert len(content) <= 10_000_000


def test_loads_in_half_a_second() -> None:
    def seconds() -> float:
        started = time.process_time()  # not the wall's: other work on the machine must not fail this
        load_embedded()
        return time.process_time() - started

    assert min(seconds() for _ in range(3)) < 0.5


@pytest.mark.parametrize("shape", [(2, 3, 64, 96), (1, 3, 65, 131), (1, 3, 33, 32)])
def test_interface_is_that_of_torchvision(net: EmbeddedNet, shape: tuple[int, ...]) -> None:
    assert not net.training
    with torch.inference_mode():
        output = net(torch.zeros(shape))
    assert list(output) == ["out"]
    assert output["out"].shape == (shape[0], 21, *shape[2:])
    assert output["out"].dtype == torch.float32


def test_only_a_large_photo_is_reduced(net: EmbeddedNet) -> None:
    images = torch.rand(1, 3, 640, 900)
    assert torch.equal(reduce(images), torch.nn.functional.interpolate(images, (320, 450), mode="bilinear"))
    assert torch.equal(reduce(images[..., :320]), images[..., :320])
    with torch.inference_mode():
        assert net.logits(images).shape == (1, 21, 80, 113)
        assert net(images)["out"].shape == (1, 21, 640, 900)


def test_random_weights_fit_the_shipped_ones(net: EmbeddedNet) -> None:
    wanted = {name: tensor.shape for name, tensor in EmbeddedNet().state_dict().items()}
    assert {name: tensor.shape for name, tensor in net.state_dict().items()} == wanted


@pytest.mark.parametrize("size", [320, 480, 640])
@pytest.mark.parametrize("name", PHOTOS)
def test_expected_class_dominates(net: EmbeddedNet, name: str, size: int) -> None:
    result = Segmenter(net, device="cpu", size=size)(photo(name))
    assert result.dominant == PHOTOS[name], result.fractions


@pytest.mark.skipif(not REFERENCES.is_dir(), reason="no reference photos beside the repository")
@pytest.mark.parametrize("size", [320, 480, 640])
@pytest.mark.parametrize("name", REFERENCE_PHOTOS)
def test_expected_class_dominates_reference_photos(net: EmbeddedNet, name: str, size: int) -> None:
    result = Segmenter(net, device="cpu", size=size)(REFERENCES / f"{name}.jpg")
    assert result.dominant == REFERENCE_PHOTOS[name], result.fractions


def test_an_absent_class_is_penalised_by_its_log_probability() -> None:
    scores, presence = torch.zeros(1, 21, 2, 2), torch.full((1, 20, 1, 1), -50.0)
    presence[:, 7], presence[:, 11] = 100.0, 0.0  # cat for certain, dog perhaps
    wanted = torch.full((21,), -MAX_PENALTY)
    wanted[0], wanted[8], wanted[12] = 0.0, 0.0, -math.log(2)
    assert torch.allclose(suppress_absent(scores, presence), wanted[None, :, None, None].expand(1, 21, 2, 2))


def test_changed_bytes_are_refused(tmp_path: Path) -> None:
    content = bytearray(WEIGHTS_PATH.read_bytes())
    content[-1] ^= 1
    changed = tmp_path / "embedded.safetensors"
    changed.write_bytes(content)
    with pytest.raises(ModelError, match=f"were changed: expected sha256 {WEIGHTS_SHA256}, found"):
        load_embedded(changed)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.safetensors: No such file"):
        load_embedded(tmp_path / "nowhere.safetensors")


@pytest.mark.slow
@needs_voc
def test_figures_on_a_part_of_val(net: EmbeddedNet) -> None:
    """A fast guard: every tenth photo; the figures of all are in docs/embedded-model.md."""
    val = open_dataset("voc", VOC_ROOT)
    scores = evaluate(Segmenter(net, device="cpu", size=320), replace(val, names=val.names[::10]))[
        "voc-original"
    ].scores
    trusted = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
    assert scores["pixel_accuracy"] > 0.91, scores
    assert np.mean([scores[f"iou {name}"] for name in trusted]) > 0.84, scores
