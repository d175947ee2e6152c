from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from segcore.core.errors import ImageError
from segcore.inference import strips
from segcore.inference.decode import argmax_classes
from segcore.inference.preprocess import preprocess
from segcore.inference.recurring import Recurring
from segcore.inference.strips import in_strips, of_each, resized
from segcore.inputs.images import as_rgb_image

METHODS = [method for method in Image.Resampling if method != Image.Resampling.NEAREST]


@pytest.fixture(params=[1, 2, 5], autouse=True, scope="module")
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Work in so many threads, on images of any size."""
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strips, "PIXELS_PER_THREAD", 1)
        patch.setattr(strips, "MIN_RESIZED_PIXELS", 0)
        patch.setattr(strips, "_between", Recurring(8, strips._between_passes, uses=1))
        torch.set_num_threads(request.param)
        yield request.param
    torch.set_num_threads(before)


def noise(mode: str, width: int, height: int, seed: int = 0) -> Image.Image:
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


sides = st.integers(1, 90)


@given(sides, sides, sides, sides, st.sampled_from(METHODS), st.sampled_from(["RGB", "L"]), st.integers(0, 9))
def test_strips_are_resized_to_the_bit_as_pillow_resizes_the_whole(
    width: int, height: int, to_width: int, to_height: int, method: Image.Resampling, mode: str, seed: int
) -> None:
    image = noise(mode, width, height, seed)
    wanted = np.asarray(image.resize((to_width, to_height), method))
    np.testing.assert_array_equal(resized(image, (to_width, to_height), method), wanted)


@pytest.mark.parametrize(
    ("width", "height"), [(1546, 1213), (1213, 1546), (640, 480), (641, 2000), (500, 375), (300, 700)]
)
def test_photos_of_usual_sizes_are_prepared_to_the_bit_as_in_the_recipe(width: int, height: int) -> None:
    image = noise("RGB", width, height)
    recipe = transforms.Compose(
        [
            transforms.Resize(320),
            transforms.ToTensor(),
            transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        ]
    )
    assert torch.equal(preprocess(image, 320), recipe(image))


JPEGS: dict[str, tuple[str, dict[str, Any]]] = {
    "baseline": ("RGB", {}),
    "progressive": ("RGB", {"progressive": True}),
    "4:4:4": ("RGB", {"subsampling": 0}),
    "4:2:2": ("RGB", {"subsampling": 1}),
    "restart markers": ("RGB", {"restart_marker_rows": 1}),
    "greyscale": ("L", {}),
    "progressive greyscale": ("L", {"progressive": True, "optimize": True}),
    "CMYK": ("CMYK", {}),
    "kept as RGB": ("RGB", {"keep_rgb": True}),
}


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("name", JPEGS)
def test_every_kind_of_jpeg_is_prepared_to_the_bit(name: str, orientation: int, tmp_path: Path) -> None:
    mode, options = JPEGS[name]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "photo.jpg"
    noise("RGB", 173, 131).convert(mode).save(path, "JPEG", quality=87, exif=exif, **options)
    with Image.open(path) as file:
        turn = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}.get(orientation)
        upright = file.convert("RGB").transpose(turn) if turn is not None else file.convert("RGB")
    small = transforms.Resize(61)(upright)
    wanted = transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))(transforms.ToTensor()(small))
    assert torch.equal(preprocess(as_rgb_image(path), 61), wanted)


@given(st.booleans(), st.integers(0, 2000))
def test_a_truncated_jpeg_is_refused_where_pillow_refuses_it_and_else_prepared_to_the_bit(
    progressive: bool, cut: int
) -> None:
    buffer = io.BytesIO()
    noise("RGB", 60, 40).save(buffer, "JPEG", progressive=progressive)
    data = buffer.getvalue()[: max(1, len(buffer.getvalue()) - cut)]
    try:
        wanted = Image.open(io.BytesIO(data)).convert("RGB")
    except OSError:
        wanted = None
    if wanted is None:
        with pytest.raises((ImageError, OSError)):
            as_rgb_image(Image.open(io.BytesIO(data)))
    else:
        small = np.asarray(wanted.resize((30, 20), Image.Resampling.BILINEAR))
        found = as_rgb_image(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(resized(found, (30, 20), Image.Resampling.BILINEAR), small)


def test_strips_cover_everything_once(threads: int) -> None:
    lock = threading.Lock()
    found: list[tuple[int, int]] = []
    names: set[int] = set()

    def work(start: int, stop: int) -> None:
        with lock:
            found.append((start, stop))
            names.add(threading.get_ident())

    in_strips(work, 37, 10**9)
    covered = sorted(found)
    assert covered[0][0] == 0
    assert covered[-1][1] == 37
    assert all(end == start for (_, end), (start, _) in pairwise(covered))
    assert len(covered) == (1 if threads == 1 else strips.STRIPS_PER_THREAD * threads)
    assert len(names) <= threads


def test_an_error_in_any_strip_is_raised() -> None:
    def work(start: int, stop: int) -> None:
        if start <= 30 < stop:
            raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        in_strips(work, 37, 10**9)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_has_threads_of_its_own() -> None:
    in_strips(lambda start, stop: None, 37, 10**9)  # the parent has its threads
    child = os.fork()
    if child == 0:
        done: list[int] = []
        in_strips(lambda start, stop: done.append(stop - start), 37, 10**9)
        os._exit(0 if sum(done) == 37 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("source", "target"),
    [((173, 131), (81, 61)), ((131, 173), (61, 81)), ((50, 200), (40, 20)), ((200, 50), (20, 40))],
)
def test_the_order_of_the_passes_is_seen(source: tuple[int, int], target: tuple[int, int]) -> None:
    """Whatever rule this version of Pillow has: both orders are tried, and one of them is what it does."""
    method = Image.Resampling.BILINEAR
    between = strips._between_passes((source, target, method))
    image = noise("RGB", *source, seed=5)
    half = image.resize(between, method)
    assert between in ((target[0], source[1]), (source[0], target[1]))
    np.testing.assert_array_equal(np.asarray(half.resize(target, method)), np.asarray(image.resize(target, method)))


def test_each_result_has_the_place_of_its_item() -> None:
    assert of_each(lambda number: number * number, range(40)) == [number * number for number in range(40)]
    assert of_each(str, []) == []


def test_the_first_item_that_fails_is_the_error() -> None:
    def work(number: int) -> int:
        if number in (3, 4, 17):
            raise ValueError(f"number {number}")
        return number

    with pytest.raises(ValueError, match="number 3"):
        of_each(work, range(20))


@given(st.integers(1, 3), st.integers(1, 4), sides, sides, st.integers(0, 9), st.booleans())
def test_the_largest_class_in_strips_is_that_of_torch(
    batch: int, classes: int, height: int, width: int, seed: int, undefined: bool
) -> None:
    logits = torch.randn(batch, classes, height, width, generator=torch.Generator().manual_seed(seed)).round()
    if undefined:
        logits[-1, 0, -1, -1] = float("nan")
    assert torch.equal(argmax_classes(logits).long(), logits.argmax(dim=1))
