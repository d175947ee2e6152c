"""Every kind of photo is read as RGB, every kind of broken one is an ImageError."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segcore.core.errors import ImageError
from segcore.core.labels import VOC_PALETTE
from segcore.inputs.images import (
    OWN_PHOTOS,
    RESOURCE_SUFFIXES,
    as_rgb_array,
    find_photos,
    resource_path,
)
from tests.support.examples import examples
from tests.support.images import GREY, MASK, RAMP, RGB, H, W, encoded, photo, png, saved, with_alpha


def transparent_palette() -> Image.Image:
    image = Image.fromarray(MASK)
    image.putpalette(VOC_PALETTE.tobytes())
    image.info["transparency"] = bytes([0, 128, 255])
    return image


# --- what is read: each beside the plain recipe, Image.open(path).convert("RGB")

AS_PILLOW: dict[str, Callable[[Path], Path]] = {
    "png": lambda d: saved(d / "a.png", photo()),
    "jpeg": lambda d: saved(d / "a.jpg", photo()),
    "progressive jpeg": lambda d: saved(d / "a.jpg", photo(), progressive=True),
    "grey jpeg": lambda d: saved(d / "a.jpg", photo("L")),
    "cmyk jpeg": lambda d: saved(d / "a.jpg", photo("CMYK")),
    "webp": lambda d: saved(d / "a.webp", photo(), lossless=True),
    "webp with alpha": lambda d: saved(d / "a.webp", with_alpha("RGBA"), lossless=True, exact=True),
    "tiff": lambda d: saved(d / "a.tif", photo(), compression="tiff_lzw"),
    "cmyk tiff": lambda d: saved(d / "a.tif", photo("CMYK")),
    "lab tiff": lambda d: saved(d / "a.tif", photo("LAB")),
    "bmp": lambda d: saved(d / "a.bmp", photo()),
    "ppm": lambda d: saved(d / "a.ppm", photo()),
    "jpeg 2000": lambda d: saved(d / "a.jp2", photo()),
    "rgba": lambda d: saved(d / "a.png", with_alpha("RGBA")),
    "la": lambda d: saved(d / "a.png", with_alpha("LA")),
    "grey": lambda d: saved(d / "a.png", photo("L")),
    "1 bit": lambda d: saved(d / "a.png", photo("1")),
    "palette": lambda d: saved(d / "a.png", photo("P")),
    "palette with transparency": lambda d: saved(d / "a.png", transparent_palette()),
    "gif": lambda d: saved(d / "a.gif", photo()),
    "wrong suffix": lambda d: saved(d / "a.jpg", photo(), format="PNG"),
    "1 x 1": lambda d: saved(d / "a.png", photo().crop((0, 0, 1, 1))),
}


@pytest.mark.parametrize("make", AS_PILLOW.values(), ids=AS_PILLOW.keys())
@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")  # of the recipe, not of ours
def test_pixels_equal_those_of_the_recipe(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    path = make(tmp_path)
    found = as_rgb_array(str(path))
    with Image.open(path) as image:
        expected = np.array(image.convert("RGB"))
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(as_rgb_array(image), expected)


@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "tif"])
def test_the_first_frame_is_read(tmp_path: Path, suffix: str) -> None:
    first, second = (Image.new("RGB", (W, H), colour) for colour in ("red", "blue"))
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", first, save_all=True, append_images=[second], **options)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert (as_rgb_array(path) == (255, 0, 0)).all()


# What makes a photo upright whose rows and columns are stored as the orientation says (EXIF 2.32, tag 0x0112).
UPRIGHT: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[:, ::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[::-1],
}


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", photo(), exif=exif, **options)
    np.testing.assert_array_equal(as_rgb_array(path), UPRIGHT[orientation](RGB))


def test_exif_orientation_of_a_jpeg(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert as_rgb_array(saved(tmp_path / "a.jpg", photo(), exif=exif)).shape == (W, H, 3)


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        found = as_rgb_array(saved(tmp_path / name, Image.fromarray(deep)))
        assert found[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
        assert (found == found[:, :, :1]).all()


@given(st.integers(0, 65535))
def test_sixteen_bits_are_rounded_to_the_nearest(value: int) -> None:
    found = as_rgb_array(Image.fromarray(np.array([[value]], dtype=np.uint16)))[0, 0, 0]
    assert found == round(value * 255 / 65535)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 254.6]], np.float32), [0, 0, 255]),
        (np.array([[0.0, 257.0, 65535.0]], np.float32), [0, 1, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[-7.0, -7.0, -7.0]], np.float32), [0, 0, 0]),
        (np.array([[0, 1, 255]], np.int32), [0, 1, 255]),
        (np.array([[0, 1000, 65535]], np.int32), [0, 4, 255]),
        (np.array([[-(2**31), 0, 2**31 - 1]], np.int32), [0, 128, 255]),
    ],
)
def test_deep_greyscale_by_range(tmp_path: Path, values: npt.NDArray[Any], expected: list[int]) -> None:
    found = as_rgb_array(saved(tmp_path / "a.tif", Image.fromarray(values)))
    assert found[0, :, 0].tolist() == expected


# --- what is refused


BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "text": (b"<!DOCTYPE html><p>not found", r"not an image of a known format: begins with b'<!DOCTYPE html>"),
    "head only": (encoded("JPEG")[:4], "not an image of a known format"),
    "truncated jpeg": (encoded("JPEG")[:-20], "cannot be decoded: .*truncated"),
    "truncated png": (encoded("PNG")[:-30], "cannot be decoded"),
    "truncated tiff": (encoded("TIFF")[:60], "cannot be decoded|not an image"),
    "truncated webp": (encoded("WEBP")[:-10], "cannot be decoded|not an image"),
    "zero width": (png(0, 1, 8, 0, b"\0"), "cannot be decoded|not an image|no pixels"),
    "bomb": (png(30000, 30000, 8, 0, b"\0"), "too large to be a photo"),
    "lying length": (png(W, H, 8, 2, b"\0\0\0\0"), "cannot be decoded"),
    "not finite": (encoded("TIFF", Image.fromarray(np.array([[0, np.nan]], np.float32))), "not finite"),
    "postscript": (encoded("EPS"), "EPS is not read: wanted one of AVIF"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_broken_photos(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "broken.jpg"
    path.write_bytes(data)
    with pytest.raises(ImageError, match=message) as caught:
        as_rgb_array(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none.jpg", "there is no such file"),
        (".", "is a directory"),
        ("/dev/zero", "not a regular file"),
        ("https://example.org/dog.jpg", r"^https://example.org/dog.jpg: is a URL, wanted a path"),
        ("nul\0.jpg", "there is no such file"),
        ("skimage:cat.png", "has no such photo.*; it has .*chelsea.png"),
    ],
)
def test_sources_that_are_no_photo_file_are_refused(source: str, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        as_rgb_array(source)


def test_a_large_photo_is_read_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", H * W - 1)  # Pillow warns above this, refuses above its double
    assert as_rgb_array(saved(tmp_path / "a.png", photo())).shape == (H, W, 3)


@examples(150)
@given(data=st.data())
def test_damaged_bytes_give_pixels_or_one_error(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(encoded(data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP", "PPM"]))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = as_rgb_array(path)
    except ImageError as error:
        assert str(path) in str(error)  # noqa: PT017 - both outcomes are right, and each is checked
    else:
        assert found.dtype == np.uint8
        assert found.ndim == 3


# --- arrays


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB),
        (RAMP, GREY),
        (RAMP[:, :, None], GREY),
        (np.dstack([RGB, RAMP]), RGB),
        (RGB[::2, ::-1], RGB[::2, ::-1]),
    ],
)
def test_arrays(array: npt.NDArray[np.uint8], expected: npt.NDArray[np.uint8]) -> None:
    found = as_rgb_array(array)
    np.testing.assert_array_equal(found, expected)
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (RGB / 255, r"dtype float64: wanted uint8.*\(image \* 255\)"),
        (RGB.astype(np.int64), "dtype int64: wanted uint8"),
        (RGB > 9, "dtype bool: wanted uint8"),
        (RGB.transpose(2, 0, 1), r"shape \(3, 6, 8\): wanted \(H, W\).*channels come last"),
        (RGB[None], r"shape \(1, 6, 8, 3\)"),
        (RGB[:, :, :2], r"shape \(6, 8, 2\)"),
        (RGB[:0], r"shape \(0, 8, 3\)"),
        (Image.new("RGB", (0, 3)), r"PIL image: has no pixels \(size 0 x 3\)"),
        (None, "wanted a path, PIL image or numpy array; found NoneType"),
    ],
)
def test_invalid_arrays_are_refused(image: Any, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        as_rgb_array(image)


def test_a_truncated_pil_image(tmp_path: Path) -> None:
    with (
        Image.open(io.BytesIO(encoded("JPEG")[:-20])) as image,
        pytest.raises(ImageError, match=r"^PIL image: .*trunc"),
    ):
        as_rgb_array(image)


# --- package resources


def test_bundled_photos_need_neither_network_nor_import() -> None:
    imported = "skimage" in sys.modules
    for name, shape in {"astronaut": (512, 512, 3), "chelsea": (300, 451, 3), "camera": (512, 512, 3)}.items():
        assert as_rgb_array(f"segcore:{name}.png").shape == shape
        np.testing.assert_array_equal(as_rgb_array(f"segcore:{name}.png"), as_rgb_array(f"skimage:{name}.png"))
    assert ("skimage" in sys.modules) == imported


@pytest.mark.parametrize("name", ["skimage:", "skimage:../__init__.py", "skimage:README.txt", "skimage:/etc/passwd"])
def test_an_unknown_resource_lists_the_available_ones(name: str) -> None:
    with pytest.raises(ImageError, match=r"it has astronaut\.png, .*rocket\.jpg"):
        resource_path(name)


def test_the_licence_of_each_photo_is_beside_it() -> None:
    photos = {path.name for path in OWN_PHOTOS.iterdir() if path.suffix in RESOURCE_SUFFIXES}
    rows = (OWN_PHOTOS / "LICENCES.md").read_text(encoding="utf-8").splitlines()
    assert {row.split("`")[1] for row in rows if row.startswith("| `")} == photos


def test_resources_of_other_packages_are_refused() -> None:
    with pytest.raises(ImageError, match="wanted segcore: or skimage: and its name"):
        resource_path("torch:cat.png")


# --- files


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "deep").mkdir()
    for name in ("b.jpg", "a.PNG", "deep/c.jpg"):
        Image.new("RGB", (4, 3)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no photo")
    return tmp_path


@pytest.mark.parametrize(
    ("locations", "found"),
    [
        (["{}"], ["a.PNG", "b.jpg"]),
        (["{}/b.jpg", "{}"], ["b.jpg", "a.PNG"]),
        (["{}/*.jpg"], ["b.jpg"]),
        (["{}/**/*"], ["a.PNG", "b.jpg", "deep/c.jpg"]),
    ],
)
def test_photos_are_found_by_file_directory_and_pattern(photos: Path, locations: list[str], found: list[str]) -> None:
    assert find_photos(location.format(photos) for location in locations) == tuple(str(photos / name) for name in found)


def test_package_resources_are_found_by_name() -> None:
    assert find_photos(["skimage:chelsea.png"]) == (str(resource_path("skimage:chelsea.png")),)


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("{}/missing.jpg", r"missing.jpg: there is no such file"),
        ("{}/*.webp", r"photo that fits the pattern"),
        ("{}/empty", r"empty: no photo in it; formats: AVIF"),
        ("skimage:chelsae.png", "did you mean 'chelsea.png'"),
    ],
)
def test_a_location_without_photos_is_refused(photos: Path, location: str, message: str) -> None:
    (photos / "empty").mkdir()
    with pytest.raises(ImageError, match=message):
        find_photos([location.format(photos)])
