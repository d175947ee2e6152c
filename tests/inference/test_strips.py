from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms

from segcore.inference import strips
from segcore.inference.preprocess import _by_pillow, preprocess
from segcore.inference.strips import in_strips
from segcore.inputs.images import as_rgb_image

METHODS = [method for method in Image.Resampling if method != Image.Resampling.NEAREST]
THREADS = [1, 2, 5]


@pytest.fixture(params=THREADS, autouse=True)
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Work in so many threads, on images of any size."""
    before = torch.get_num_threads()
    monkeypatch.setattr(strips, "MIN_PIXELS", 0)
    monkeypatch.setattr("segcore.inference.preprocess.MIN_PIXELS", 0)
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
    np.testing.assert_array_equal(_by_pillow(image, (to_width, to_height), method), wanted.reshape(to_height, to_width, -1))


@pytest.mark.parametrize(("width", "height"), [(1546, 1213), (1213, 1546), (640, 480), (641, 2000), (500, 375), (300, 700)])
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


JPEGS = {
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


@pytest.mark.parametrize("progressive", [False, True])
@given(st.integers(0, 10_000))
def test_a_truncated_jpeg_is_refused_or_whole(progressive: bool, cut: int) -> None:
    from segcore.core.errors import ImageError

    buffer = io.BytesIO()
    noise("RGB", 60, 40).save(buffer, "JPEG", progressive=progressive)
    data = buffer.getvalue()[: max(1, len(buffer.getvalue()) - cut)]
    path = Path(os.environ["PYTEST_CURRENT_TEST"].partition("::")[0]).with_suffix(".jpg")
    assert path  # replaced below
    with pytest.raises(ImageError) if cut > 2 else __import__("contextlib").nullcontext():
        as_rgb_image(Image.open(io.BytesIO(data)))


def test_strips_cover_everything_once(threads: int) -> None:
    lock, found, names = threading.Lock(), [], set()

    def work(start: int, stop: int) -> None:
        with lock:
            found.append((start, stop))
            names.add(threading.get_ident())

    in_strips(work, 37, 10**9)
    covered = sorted(found)
    assert covered[0][0] == 0
    assert covered[-1][1] == 37
    assert all(end == start for (_, end), (start, _) in zip(covered, covered[1:], strict=False))
    assert len(covered) == (1 if threads == 1 else strips.STRIPS_PER_THREAD * threads)
    assert len(names) <= threads
