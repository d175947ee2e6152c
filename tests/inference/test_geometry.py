"""The model's input and its inverse, held against slower code that does the same step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from segcore.core.errors import ImageError
from segcore.core.model_spec import InputSpec, Resize, own_side
from segcore.inference.geometry import Frame, frame_of
from segcore.inference.preprocess import InputTransform, calibration_tensors, preprocess

RNG = np.random.default_rng(7)
PHOTO = RNG.integers(0, 256, (61, 90, 3), dtype=np.uint8)

FRAMES = [
    # resize, multiple_of, photo (H, W) at size 32, then content, input, top and left
    (Resize(), 1, (61, 90), (32, 47), (32, 47), 0, 0),
    (Resize("shorter", (20,)), 1, (61, 90), (20, 29), (20, 29), 0, 0),
    (Resize("longer"), 1, (61, 90), (22, 32), (22, 32), 0, 0),
    (Resize("longer", (48,)), 16, (90, 61), (48, 33), (48, 48), 0, 0),
    (Resize("fixed", (24, 50)), 1, (61, 90), (24, 50), (24, 50), 0, 0),
    (Resize("fixed", (24, 50)), 32, (61, 90), (24, 50), (32, 64), 0, 0),
    (Resize("letterbox", (64, 64)), 1, (61, 90), (43, 64), (64, 64), 10, 0),
    (Resize("letterbox", (64, 64)), 1, (90, 61), (64, 43), (64, 64), 0, 10),
    (Resize("letterbox", (50, 50)), 32, (10, 1000), (1, 50), (64, 64), 24, 0),
    (Resize("none"), 1, (61, 90), (61, 90), (61, 90), 0, 0),
    (Resize("none"), 32, (61, 90), (61, 90), (64, 96), 0, 0),
]


@pytest.mark.parametrize(("resize", "step", "photo", "content", "outer", "top", "left"), FRAMES)
def test_a_photo_has_its_place_in_the_input(
    resize: Resize,
    step: int,
    photo: tuple[int, int],
    content: tuple[int, int],
    outer: tuple[int, int],
    top: int,
    left: int,
) -> None:
    spec = InputSpec(resize=resize, multiple_of=step)
    frame = frame_of(spec, *photo, 32)
    assert frame == Frame(content, outer, top, left)
    assert frame.cut(torch.zeros(2, 3, *outer)).shape == (2, 3, *content)


@pytest.mark.parametrize(("resize", "step", "photo"), [row[:3] for row in FRAMES])
def test_cutting_undoes_the_padding_exactly(resize: Resize, step: int, photo: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (*photo, 3), dtype=np.uint8)
    transform = InputTransform(InputSpec(resize=resize, multiple_of=step, fill=(1, 2, 3)))
    frame = transform.frame(*photo, 32)
    padded = transform(pixels, 32)
    assert padded.shape == (3, *frame.input)
    alone = InputTransform(InputSpec(resize=Resize("fixed", frame.content)))(pixels, 32)
    assert torch.equal(frame.cut(padded), alone)
    outside = torch.ones(frame.input, dtype=torch.bool)
    frame.cut(outside)[:] = False
    fill = [len(set(padded[channel][outside].tolist())) for channel in range(3)]
    assert fill == [int(frame.padded)] * 3


def slow(photo: np.ndarray, **keys: Any) -> np.ndarray:
    """Return the values (C, H, W) of a photo that is not resized, one pixel at a time."""
    spec = InputSpec(**keys)
    rows = []
    for line in photo:
        for red, green, blue in line.tolist():
            grey = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16  # Pillow's luma
            values = {"rgb": (red, green, blue), "bgr": (blue, green, red), "grey": (grey,)}[spec.colour]
            scaled = zip(values, spec.mean, spec.std, strict=True)
            rows.append([(value * spec.scale - mean) / std for value, mean, std in scaled])
    return np.array(rows).reshape(*photo.shape[:2], -1).transpose(2, 0, 1)


VALUES = [
    {},
    {"colour": "bgr"},
    {"colour": "bgr", "scale": 1.0, "mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)},
    {"mean": (0.5,) * 3, "std": (0.5,) * 3, "layout": "nhwc"},
    {"colour": "grey", "mean": (0.4,), "std": (0.2,)},
    {"colour": "grey", "mean": (0.0,), "std": (1.0,), "layout": "nhwc"},
    {"scale": 1 / 128, "mean": (1.0,) * 3, "std": (1.0,) * 3, "dtype": "float16"},
    {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "dtype": "uint8", "layout": "nhwc", "colour": "bgr"},
]


@pytest.mark.parametrize("keys", VALUES)
def test_values_are_scaled_and_ordered(keys: dict[str, Any]) -> None:
    found = InputTransform(InputSpec(resize=Resize("none"), **keys))(PHOTO, 1)
    wanted = slow(PHOTO, **keys)
    assert str(found.dtype) == f"torch.{keys.get('dtype', 'float32')}"
    tolerance = 1e-3 if keys.get("dtype") == "float16" else 1e-6 * np.abs(wanted).max()
    np.testing.assert_allclose(found.numpy(), wanted, rtol=0, atol=tolerance)
    laid_out = found.permute(1, 2, 0) if keys.get("layout") == "nhwc" else found
    assert laid_out.is_contiguous()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("colour", ["rgb", "grey"])
def test_without_antialias_neighbours_alone_count(interpolation: str, colour: str) -> None:
    bytes_alone = {"scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    spec = InputSpec(resize=Resize("fixed", (17, 23)), interpolation=interpolation, antialias=False, **bytes_alone)  # type: ignore[arg-type]
    photo = np.repeat(np.asarray(Image.fromarray(PHOTO).convert("L"))[:, :, None], 3, 2) if colour == "grey" else PHOTO
    values = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float()
    wanted = F.interpolate(values, (17, 23), mode=interpolation).round().clamp(0, 255)[0]
    if colour == "grey":
        spec = InputSpec(**{**vars(spec), "colour": "grey", "mean": (0.0,), "std": (1.0,)})
    found = InputTransform(spec)(PHOTO, 1)
    assert torch.equal(found, wanted[: spec.channels])


def test_the_default_is_the_recipe_of_torchvision() -> None:
    assert torch.equal(InputTransform(InputSpec())(PHOTO, 40), preprocess(PHOTO, 40))


def test_an_input_over_the_limit_is_refused() -> None:
    with pytest.raises(ImageError, match="8192x8192 as input"):
        InputTransform(InputSpec(resize=Resize("letterbox", (8192, 8192))))(PHOTO, 1)


@pytest.mark.parametrize(
    ("resize", "side"),
    [
        (Resize(), None),
        (Resize("none"), None),
        (Resize("longer", (99,)), 99),
        (Resize("fixed", (64, 32)), 32),
        (Resize("letterbox", (64, 96)), 64),
    ],
)
def test_a_model_of_one_size_is_named_by_its_shorter_side(resize: Resize, side: int | None) -> None:
    assert own_side(InputSpec(resize=resize)) == side


def test_a_model_of_one_size_is_calibrated_at_it() -> None:
    transform = InputTransform(InputSpec(resize=Resize("fixed", (16, 24)), multiple_of=32))
    first, mirrored = calibration_tensors([PHOTO], transform)
    assert first.shape == mirrored.shape == (1, 3, 32, 32)
    assert torch.equal(first.flip(-1), mirrored)
