"""Indexed PNGs survive the file; everything else is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segcore.core.errors import ImageError, OutputError
from segcore.core.image_files import load_indexed_png, save_indexed_png
from segcore.core.labels import VOC_PALETTE, LabelSet, numbered
from tests.support.examples import examples
from tests.support.images import MASK, RGB, encoded, photo, png, saved, with_alpha


@examples(30)
@given(height=st.integers(1, 9), width=st.integers(1, 9), data=st.data())
def test_class_maps_survive_the_file(tmp_path: Path, height: int, width: int, data: st.DataObject) -> None:
    values = data.draw(st.binary(min_size=height * width, max_size=height * width))
    class_map = np.frombuffer(values, np.uint8).reshape(height, width)
    save_indexed_png(class_map, tmp_path / "m.png")
    np.testing.assert_array_equal(load_indexed_png(tmp_path / "m.png"), class_map)
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_masks_show_the_voc_colours(tmp_path: Path) -> None:
    save_indexed_png(np.array([[*range(21), 255]], np.uint8), tmp_path / "new" / "m.png")
    with Image.open(tmp_path / "new" / "m.png") as image:
        assert image.mode == "P"
        colours = np.array(image.convert("RGB"))[0]
    np.testing.assert_array_equal(colours[:21], VOC_PALETTE)
    assert colours[21].tolist() == [255, 255, 255]


def test_masks_show_the_colours_of_their_labels(tmp_path: Path) -> None:
    labels = LabelSet("own", ("a", "b"), ((1, 2, 3), (4, 5, 6)), ignore=9)
    save_indexed_png(np.array([[0, 1, 9]], np.uint8), tmp_path / "m.png", labels)
    with Image.open(tmp_path / "m.png") as image:
        assert np.array(image.convert("RGB"))[0].tolist() == [[1, 2, 3], [4, 5, 6], [255, 255, 255]]


@pytest.mark.parametrize(("highest", "dtype"), [(255, np.uint8), (256, np.uint16), (65_535, np.uint16)])
def test_maps_of_16_bits_survive_and_are_read_as_narrow_as_they_are(tmp_path: Path, highest: int, dtype: type) -> None:
    class_map = np.array([[0, 7], [highest, 1]], np.uint16)
    save_indexed_png(class_map, tmp_path / "m.png", numbered(300))
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "I;16"
    found = load_indexed_png(tmp_path / "m.png")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, class_map)


def test_greyscale_masks(tmp_path: Path) -> None:
    np.testing.assert_array_equal(load_indexed_png(saved(tmp_path / "m.png", Image.fromarray(MASK))), MASK)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_packed_palettes_are_read(tmp_path: Path, bits: int) -> None:
    image = Image.fromarray(MASK % 2**bits)
    image.putpalette(VOC_PALETTE.tobytes())
    np.testing.assert_array_equal(load_indexed_png(saved(tmp_path / "m.png", image, bits=bits)), MASK % 2**bits)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (encoded("PNG"), "mode RGB"),
        (encoded("PNG", with_alpha("LA")), "mode LA"),
        (encoded("JPEG", photo("L")), "not an image of PNG: .*JFIF"),
        (
            encoded("GIF", photo("P")),
            "not an image of PNG: .*GIF8",
        ),
        (png(4, 1, 2, 0, b"\0\x1b"), "mode L with less than 8 bits"),
        (png(2, 1, 4, 0, b"\0\x12"), "mode L with less than 8 bits"),
        (png(8, 1, 1, 0, b"\0\x55"), "mode 1"),
        (b"text", "not an image of PNG: .*text"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, data: bytes, found: str) -> None:
    (tmp_path / "m.png").write_bytes(data)
    with pytest.raises(ImageError, match=rf"m\.png: .*{found}"):
        load_indexed_png(tmp_path / "m.png")


@pytest.mark.parametrize("class_map", [MASK.astype(np.int64), RGB, MASK[:0], MASK > 3])
def test_invalid_class_maps_are_refused(tmp_path: Path, class_map: Any) -> None:
    with pytest.raises(ImageError, match=r"wanted uint8 or uint16 of shape \(H, W\)"):
        save_indexed_png(class_map, tmp_path / "m.png")
    assert not list(tmp_path.iterdir())


def test_a_mask_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "m.png").mkdir()
    with pytest.raises(OutputError, match=r"m\.png: cannot be written: Is a directory"):
        save_indexed_png(MASK, tmp_path / "m.png")
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]


def test_voc_masks_hold_voc_classes() -> None:
    folder = Path(__file__).parents[3] / "shared" / "voc2012" / "SegmentationClass"
    if not folder.is_dir():
        pytest.skip("no VOC photos beside the repository")
    for path in sorted(folder.glob("*.png"))[:5]:
        assert set(np.unique(load_indexed_png(path))) <= {*range(21), 255}


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    save_indexed_png(MASK, tmp_path / "m.png")
    with pytest.raises(ImageError, match="8 x 6 pixels: wanted at most 47"):
        load_indexed_png(tmp_path / "m.png", max_pixels=47)
    assert load_indexed_png(tmp_path / "m.png", max_pixels=48).shape == (6, 8)
