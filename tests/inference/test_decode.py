from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from segcore.core.labels import NUM_CLASSES, VOC_PALETTE
from segcore.inference.decode import (
    argmax_classes,
    blend,
    decode_segmap,
    enlarge,
    enlarged_classes,
    margin_map,
    outlined,
    palette_lookup,
    upsample_class_map,
)

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 40))


def slow_colors(class_map: np.ndarray) -> np.ndarray:
    """The tutorial's method: paint class by class."""
    rgb = np.zeros((*class_map.shape, 3), dtype=np.uint8)
    for index in range(NUM_CLASSES):
        rgb[class_map == index] = VOC_PALETTE[index]
    return rgb


def smooth_logits(shape: tuple[int, int], seed: int, grid: int = 4) -> torch.Tensor:
    """Logits (21, H, W) with regions, as a network that works at a low resolution gives."""
    generator = torch.Generator().manual_seed(seed)
    low = torch.randn(1, NUM_CLASSES, grid, grid, generator=generator)
    return F.interpolate(low, size=shape, mode="bilinear", align_corners=False)[0]


@given(SHAPES, st.integers(1, 3), st.integers(0, 2**31))
def test_argmax_equals_torch(shape: tuple[int, int], batch: int, seed: int) -> None:
    logits = torch.randn(batch, NUM_CLASSES, *shape, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(argmax_classes(logits), logits.argmax(dim=1).to(torch.uint8))


@given(st.integers(0, 2**31))
def test_argmax_breaks_ties_like_torch(seed: int) -> None:
    logits = torch.randint(0, 3, (1, NUM_CLASSES, 5, 7), generator=torch.Generator().manual_seed(seed)).float()
    assert torch.equal(argmax_classes(logits), logits.argmax(dim=1).to(torch.uint8))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_argmax_of_non_finite_logits_equals_torch(value: float) -> None:
    logits = torch.randn(1, NUM_CLASSES, 4, 4)
    logits[0, 7, 1, 2] = value
    logits[0, 3, 2, 2] = value
    assert torch.equal(argmax_classes(logits), logits.argmax(dim=1).to(torch.uint8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_argmax_accepts_other_precisions(dtype: torch.dtype) -> None:
    logits = torch.randn(2, NUM_CLASSES, 3, 5).to(dtype)
    assert torch.equal(argmax_classes(logits), logits.argmax(dim=1).to(torch.uint8))


@given(SHAPES, st.integers(1, 2), st.integers(1, 90), st.integers(1, 90), st.integers(0, 2**31), st.booleans())
def test_enlarged_classes_equal_enlargement_then_argmax(
    shape: tuple[int, int], batch: int, height: int, width: int, seed: int, regions: bool
) -> None:
    logits = torch.randn(batch, NUM_CLASSES, *shape, generator=torch.Generator().manual_seed(seed))
    if regions:  # a few classes far above the others, so that most are left out
        logits[:, seed % 17 : seed % 17 + 3] += 6
    full = F.interpolate(logits, size=(height, width), mode="bilinear", align_corners=False)
    found = enlarged_classes(logits, height, width)
    assert found.dtype == torch.uint8
    differs = (found != full.argmax(dim=1)).numpy()
    # Nothing but a tie to the last bit may fall the other way, at the end of a thread's share: rare, but found.
    margins = np.stack([margin_map(one) for one in full])
    assert not (differs & (margins > 2e-6)).any()
    assert differs.sum() <= 3


@given(SHAPES, st.integers(0, 2**31))
def test_enlarged_classes_of_ties_differ_by_rounding_at_most(shape: tuple[int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(0, 3, (1, NUM_CLASSES, *shape), generator=generator).float()
    full = enlarge(logits, 37, 53)
    differs = (enlarged_classes(logits, 37, 53) != full.argmax(dim=1))[0].numpy()
    assert not (differs & (margin_map(full[0]) > 1e-6)).any()


@given(SHAPES, st.integers(0, 2**31), st.sampled_from([float("nan"), float("inf"), float("-inf")]))
def test_enlarged_classes_of_non_finite_logits_equal_torch(shape: tuple[int, int], seed: int, value: float) -> None:
    logits = torch.randn(1, NUM_CLASSES, *shape, generator=torch.Generator().manual_seed(seed))
    logits[0, seed % NUM_CLASSES, seed % shape[0], seed % shape[1]] = value
    expected = enlarge(logits, 37, 53).argmax(dim=1).to(torch.uint8)
    assert torch.equal(enlarged_classes(logits, 37, 53), expected)


def test_impossible_classes_are_not_enlarged(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = smooth_logits((20, 30), seed=1)[None]
    logits[:, 4:] -= 100
    planes: list[int] = []

    def counted(few: torch.Tensor, *size: int, align_corners: bool) -> torch.Tensor:
        planes.append(few.shape[1])
        return enlarge(few, *size, align_corners=align_corners)

    monkeypatch.setattr("segcore.inference.decode.enlarge", counted)
    enlarged_classes(logits, 160, 240)
    assert planes == [4]


def test_argmax_does_not_change_the_logits() -> None:
    logits = torch.randn(1, NUM_CLASSES, 6, 6)
    before = logits.clone()
    argmax_classes(logits)
    assert torch.equal(logits, before)


def test_margin_is_top_one_minus_top_two() -> None:
    logits = torch.randn(NUM_CLASSES, 5, 4)
    expected = np.sort(logits.numpy(), axis=0)
    np.testing.assert_array_equal(margin_map(logits), expected[-1] - expected[-2])


@given(SHAPES, SHAPES, st.integers(0, 2**31))
def test_upsampling_equals_interpolation_then_argmax(
    source: tuple[int, int], target: tuple[int, int], seed: int
) -> None:
    logits = smooth_logits(source, seed)
    full = F.interpolate(logits[None], size=target, mode="bilinear", align_corners=False)[0]
    expected = full.argmax(dim=0).numpy().astype(np.uint8)
    found = upsample_class_map(logits, *target)
    assert found.dtype == np.uint8
    assert found.shape == target
    # Rounding may decide a tie either way; where there is no tie there is no difference.
    assert not ((found != expected) & (margin_map(full) > 1e-5)).any()


@pytest.mark.parametrize("target", [(97, 161), (640, 853), (33, 55)])
def test_upsampling_of_regions_equals_interpolation_then_argmax(target: tuple[int, int]) -> None:
    logits = smooth_logits((96, 160), seed=3)
    full = F.interpolate(logits[None], size=target, mode="bilinear", align_corners=False)[0]
    found = upsample_class_map(logits, *target)
    differing = found != full.argmax(dim=0).numpy()
    assert not (differing & (margin_map(full) > 1e-5)).any()


def test_upsampling_to_the_same_size_is_argmax() -> None:
    logits = torch.randn(NUM_CLASSES, 9, 7)
    np.testing.assert_array_equal(upsample_class_map(logits, 9, 7), logits.argmax(dim=0).numpy())


@given(SHAPES, st.integers(0, 2**31))
def test_colors_equal_painting_class_by_class(shape: tuple[int, int], seed: int) -> None:
    class_map = np.random.default_rng(seed).integers(0, NUM_CLASSES, shape).astype(np.uint8)
    np.testing.assert_array_equal(decode_segmap(class_map), slow_colors(class_map))


@pytest.mark.parametrize("index", [*range(NUM_CLASSES), 255])
def test_every_class_has_its_color(index: int) -> None:
    colour = decode_segmap(np.full((2, 3), index))
    expected = VOC_PALETTE[index] if index < NUM_CLASSES else (224, 224, 192)
    assert (colour == expected).all()
    assert colour.shape == (2, 3, 3)


def test_decode_segmap_takes_tensors_and_wider_integers() -> None:
    class_map = torch.arange(NUM_CLASSES).view(3, 7)
    np.testing.assert_array_equal(decode_segmap(class_map), slow_colors(class_map.numpy()))


@pytest.mark.parametrize(
    ("class_map", "message"),
    [
        (np.zeros((2, 2)), "integer"),
        (np.zeros((1, 2, 2), dtype=np.uint8), "integer"),
        (np.full((2, 2), 21, dtype=np.uint8), r"found \[21\]"),
        (np.full((2, 2), -1), r"found \[-1\]"),
        (np.full((2, 2), 256), r"found \[256\]"),
    ],
)
def test_an_invalid_class_map_is_refused(class_map: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_segmap(class_map)


def test_blend_leaves_background_and_mixes_the_rest() -> None:
    photo = np.full((1, 2, 3), 100, dtype=np.uint8)
    class_map = np.array([[0, 15]], dtype=np.uint8)
    painted = blend(photo, class_map, alpha=0.25)
    assert painted[0, 0].tolist() == [100, 100, 100]
    assert painted[0, 1].tolist() == [123, 107, 107]  # 0.75 * 100 + 0.25 * (192, 128, 128)
    assert photo.min() == photo.max() == 100
    np.testing.assert_array_equal(blend(photo, class_map, 1.0)[0, 1], palette_lookup(class_map)[0, 1])


@pytest.mark.parametrize(("shape", "alpha", "message"), [((2, 2), 0.5, "one size"), ((1, 2), 1.5, "opacity")])
def test_blend_refuses_bad_arguments(shape: tuple[int, int], alpha: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        blend(np.zeros((1, 2, 3), dtype=np.uint8), np.zeros(shape, dtype=np.uint8), alpha)


def test_a_class_that_looks_like_the_photo_gets_a_line_inside_it() -> None:
    class_map = np.zeros((40, 60), dtype=np.uint8)
    class_map[10:20, 10:20], class_map[10:20, 40:50] = 8, 15  # a cat, a person
    photo = np.full((40, 60, 3), 30, dtype=np.uint8)
    photo[:, :30] = VOC_PALETTE[8]  # as the colour that is painted there
    drawn = outlined(blend(photo, class_map), photo, class_map)
    plain = blend(photo, class_map)
    changed = (drawn != plain).any(axis=2)
    wanted = np.zeros_like(changed)
    wanted[10:20, 10:20] = True
    wanted[11:19, 11:19] = False
    assert (changed == wanted).all(), "around the cat, and not around the person, who is easily seen"
    assert (drawn[changed] == 255).all(), "white on dark"


def test_a_photo_of_one_class_has_no_line() -> None:
    photo, class_map = np.zeros((5, 5, 3), dtype=np.uint8), np.full((5, 5), 8, dtype=np.uint8)
    assert (outlined(blend(photo, class_map), photo, class_map) == blend(photo, class_map)).all()
