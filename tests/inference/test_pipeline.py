from __future__ import annotations

import dataclasses
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torchvision import transforms

from segcore import Segmenter, segment_image
from segcore.core.errors import DeviceError, ImageError, UsageError
from segcore.core.labels import NUM_CLASSES, VOC_CLASSES, VOC_PALETTE
from segcore.core.model_spec import InputSpec
from segcore.core.records import STAGES
from segcore.inference.pipeline import StageTimer
from segcore.inference.preprocess import MAX_MODEL_PIXELS, InputTransform, check_memory, preprocess, resized_shape
from segcore.inputs.images import resource_path
from tests.support.fakes import FakeDevice
from tests.support.networks import ConstantNet, TinyNet

OFFLINE_PHOTOS = ["astronaut.png", "chelsea.png", "camera.png", "motorcycle_left.png"]


def recipe(model: nn.Module, image: Image.Image, size: int) -> np.ndarray:
    """The plain recipe of the tutorials, slow and independent of segcore."""
    transform = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    with torch.no_grad():
        output = model(transform(image.convert("RGB")).unsqueeze(0))["out"][0]
    labels = output.argmax(dim=0).numpy()
    rgb = np.zeros((*labels.shape, 3), dtype=np.uint8)
    for label in range(21):
        rgb[labels == label] = VOC_PALETTE[label]
    return rgb


@pytest.mark.parametrize("name", OFFLINE_PHOTOS)
@pytest.mark.parametrize("size", [64, 640])
def test_mask_equals_the_recipe_on_real_photos(name: str, size: int) -> None:
    path = resource_path(f"skimage:{name}")
    model = TinyNet()
    expected = recipe(model, Image.open(path), size)
    np.testing.assert_array_equal(segment_image(model, path, size=size), expected)
    np.testing.assert_array_equal(segment_image(Segmenter(model, device="cpu", size=size), path), expected)


@pytest.mark.parametrize("shape", [(1, 1), (17, 1000), (1000, 17), (30, 90), (90, 30), (64, 64), (63, 65)])
@pytest.mark.parametrize("size", [1, 31, 64])
def test_mask_equals_the_recipe_on_odd_sizes(shape: tuple[int, int], size: int) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (*shape, 3)).astype(np.uint8)
    model = TinyNet(stride=2)
    np.testing.assert_array_equal(segment_image(model, pixels, size=size), recipe(model, Image.fromarray(pixels), size))


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 70), st.integers(0, 2**31))
def test_preprocessing_equals_torchvision(height: int, width: int, size: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    expected = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )(Image.fromarray(pixels))
    found = preprocess(pixels, size)
    assert found.dtype == torch.float32
    assert found.shape[-2:] == resized_shape(height, width, size)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("index", range(NUM_CLASSES))
def test_every_class_reaches_result_and_color(index: int) -> None:
    photo = np.full((6, 9, 3), 77, dtype=np.uint8)
    result = Segmenter(ConstantNet(index), device="cpu", size=5)(photo)
    assert (result.class_map == index).all()
    assert result.class_map.shape == (6, 9)
    assert result.model_class_map.shape == (5, 7)
    assert result.class_map.dtype == result.model_class_map.dtype == np.uint8
    assert result.fractions == {VOC_CLASSES[index]: 1.0}
    assert result.dominant == VOC_CLASSES[index]
    assert (result.colorize() == VOC_PALETTE[index]).all()
    assert (result.model_color_mask == VOC_PALETTE[index]).all()
    expected = 77 if index == 0 else np.rint(0.5 * 77 + 0.5 * VOC_PALETTE[index])
    assert (result.overlay(0.5) == expected).all()


def test_fractions_sum_to_one_and_are_sorted() -> None:
    result = Segmenter(TinyNet(), device="cpu", size=64)(resource_path("skimage:chelsea.png"))
    shares = list(result.fractions.values())
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    for name, share in result.fractions.items():
        assert share == np.mean(result.class_map == VOC_CLASSES.index(name))
    others = {name: share for name, share in result.fractions.items() if name != "background"}
    assert result.dominant == max(others, key=lambda name: others[name])


def test_result_is_frozen_and_shows_no_arrays() -> None:
    result = Segmenter(TinyNet(), device="cpu", size=16)(np.zeros((16, 16, 3), dtype=np.uint8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.timings = {}  # type: ignore[misc]
    assert "array" not in repr(result)
    assert "tensor" not in repr(result)


def test_path_pil_and_array_are_the_same_photo(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(pixels).save(path)
    segmenter = Segmenter(TinyNet(), device="cpu", size=24)
    maps = [segmenter(photo).class_map for photo in (pixels, Image.fromarray(pixels), path, str(path))]
    for class_map in maps[1:]:
        np.testing.assert_array_equal(class_map, maps[0])


def test_a_list_keeps_its_order_whatever_the_shapes() -> None:
    rng = np.random.default_rng(1)
    photos = [rng.integers(0, 256, (h, w, 3)).astype(np.uint8) for h, w in [(20, 30), (30, 20), (20, 30), (9, 9)]]
    segmenter = Segmenter(TinyNet(), device="cpu", size=16)
    results = segmenter(photos)
    assert [result.input_shape for result in results] == [
        (2, 3, 16, 24),
        (1, 3, 24, 16),
        (2, 3, 16, 24),
        (1, 3, 16, 16),
    ]
    for photo, result in zip(photos, results, strict=True):
        np.testing.assert_array_equal(result.class_map, segmenter(photo).class_map)
    assert segmenter([]) == []


def test_every_stage_is_timed_once_and_sums_to_the_whole() -> None:
    ticks = iter(range(0, 10**9, 1000))
    segmenter = Segmenter(TinyNet(), device="cpu", size=16)
    timer = StageTimer(segmenter.device, clock=lambda: next(ticks))
    result = segmenter.run([np.zeros((16, 16, 3), dtype=np.uint8)], timer)[0]
    assert tuple(result.timings) == STAGES
    assert set(timer.seconds.values()) == {1e-6}


def test_the_device_is_synchronised_on_both_sides_of_every_stage() -> None:
    device = FakeDevice()
    log = device.events

    def clock() -> int:
        log.append("clock")
        return len(log)

    segmenter = Segmenter(TinyNet(), device=device, size=16)
    segmenter.run([np.zeros((16, 16, 3), dtype=np.uint8)], StageTimer(device, clock))
    clocks = [position for position, event in enumerate(log) if event == "clock"]
    assert len(clocks) == 2 * len(STAGES)
    assert all(log[position - 1] == "synchronize" for position in clocks)
    assert log.count("put") == 1


def test_margins_are_kept_on_request() -> None:
    segmenter = Segmenter(TinyNet(), device="cpu", size=16)
    photo = np.zeros((16, 16, 3), dtype=np.uint8)
    with_margins = segmenter.run([photo], margins=True)[0]
    assert segmenter.run([photo])[0].margins is None
    assert with_margins.margins is not None
    assert with_margins.margins.shape == (16, 16)
    assert (with_margins.margins >= 0).all()


@pytest.mark.parametrize(
    ("height", "width", "size", "fits"),
    [
        (1, 200_000, 640, False),
        (200_000, 1, 640, False),
        (10, 65_500, 64, False),
        (65_500, 10, 64, False),
        (10, 65_500, 52, False),
        (10, 65_500, 32, True),
        (40, 4000, 320, True),
        (40, 4000, 512, False),
        (2000, 20_000, 1000, True),
        (30_000, 30_000, 5000, True),
        (30_000, 30_000, 6000, False),
    ],
)
def test_memory_at_model_scale_is_bounded(height: int, width: int, size: int, fits: bool) -> None:
    transform = InputTransform(InputSpec())
    if fits:
        rows, columns = transform.frame(height, width, size).input
        assert rows * columns <= MAX_MODEL_PIXELS
    else:
        with pytest.raises(ImageError, match=r"over the limit of \d+ pixels; choose a smaller size"):
            transform.frame(height, width, size)


def test_the_size_of_a_run_is_its_own() -> None:
    segmenter = Segmenter(TinyNet(), device="cpu", size=16)
    photo = np.zeros((20, 30, 3), dtype=np.uint8)
    assert segmenter.run([photo], size=32)[0].input_shape == (1, 3, 32, 48)
    assert segmenter(photo, size=24).input_shape == (1, 3, 24, 36)
    assert [result.input_shape for result in segmenter([photo], size=8)] == [(1, 3, 8, 12)]
    assert segment_image(segmenter, photo, size=10).shape == (10, 15, 3)
    assert segmenter(photo).input_shape == (1, 3, 16, 24)
    with pytest.raises(UsageError, match="at least 1; found 0"):
        segmenter.run([photo], size=0)


def test_class_maps_are_the_same_on_every_access_and_in_every_thread() -> None:
    photo = resource_path("skimage:chelsea.png")
    segmenter = Segmenter(TinyNet(), device="cpu", size=64)
    expected = segmenter(photo).class_map
    result = segmenter.run([photo])[0]
    with ThreadPoolExecutor(4) as pool:
        for class_map in pool.map(lambda _: result.class_map, range(8)):
            np.testing.assert_array_equal(class_map, expected)
    np.testing.assert_array_equal(result.without_logits().class_map, expected)
    np.testing.assert_array_equal(result.class_map, expected)


def test_results_of_a_call_hold_no_logits() -> None:
    segmenter = Segmenter(TinyNet(), device="cpu", size=16)
    photo = np.zeros((16, 16, 3), dtype=np.uint8)
    assert [result.logits for result in (segmenter(photo), *segmenter([photo, photo]))] == [None] * 3
    logits = segmenter.run([photo])[0].logits
    assert logits is not None
    assert logits.shape == (NUM_CLASSES, 16, 16)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"size": 0}, UsageError, "at least 1; found 0"),
        ({"device": "tpu"}, DeviceError, "unknown device tpu"),
        ({"runtime": "torhc"}, DeviceError, "did you mean 'torch'"),
        ({"precision": "int4"}, DeviceError, "int4"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Segmenter(TinyNet(), **options)  # type: ignore[arg-type]


def test_weights_of_a_network_without_a_name_are_hashed() -> None:
    assert Segmenter(TinyNet(0), device="cpu").weights == Segmenter(TinyNet(0), device="cpu").weights
    assert Segmenter(TinyNet(0), device="cpu").weights != Segmenter(TinyNet(1), device="cpu").weights


@pytest.mark.parametrize(
    ("available", "shape", "refused"),
    [
        (0, (1, 3, 640, 853), False),  # usual photos are not checked
        (0, (1, 3, 2048, 2048), False),
        (0, (1, 3, 320, 32000), True),
        (0, (8, 3, 1024, 1024), True),
        (3_000_000_000, (1, 3, 320, 32000), False),
        (1_000_000_000, (1, 3, 320, 32000), True),
    ],
)
def test_a_batch_must_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch, available: int, shape: tuple[int, ...], refused: bool
) -> None:
    monkeypatch.setattr("segcore.inference.preprocess.available_memory", lambda: available)
    with pytest.raises(ImageError, match=f"{shape[3]}x{shape[2]} pixels") if refused else nullcontext():
        check_memory(shape)


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (MemoryError(), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("sizes of tensors must match"), False),
    ],
)
def test_memory_that_runs_out_is_an_error_of_the_photo(
    monkeypatch: pytest.MonkeyPatch, error: Exception, refused: bool
) -> None:
    def fail(*_: object) -> None:
        raise error

    segmenter = Segmenter(ConstantNet(8), device="cpu", size=32)
    monkeypatch.setattr(segmenter, "_logits", fail)
    with pytest.raises(ImageError if refused else type(error), match="48x32 pixels" if refused else "sizes"):
        segmenter(np.zeros((20, 30, 3), dtype=np.uint8))


def test_an_error_that_is_kept_does_not_keep_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[torch.Tensor]] = []

    def fail(batch: torch.Tensor) -> None:
        activations = batch * 2
        held.append(weakref.ref(activations))
        raise MemoryError

    segmenter = Segmenter(ConstantNet(8), device="cpu", size=32)
    monkeypatch.setattr(segmenter, "_logits", fail)
    with pytest.raises(ImageError) as caught:
        segmenter(np.zeros((20, 30, 3), dtype=np.uint8))
    assert isinstance(caught.value.__cause__, MemoryError)
    assert [reference() for reference in held] == [None]
