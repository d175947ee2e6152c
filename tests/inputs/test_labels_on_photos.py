"""Masks and annotations lie on the photo they were drawn on, whatever its EXIF orientation says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from segcore.core.errors import DatasetError
from segcore.inputs.datasets import open_dataset
from segcore.inputs.images import as_rgb_array, load_pair

CAT = 8
H, W = 30, 40


def stored() -> tuple[np.ndarray, np.ndarray]:
    """Return a photo with a red corner, and a mask that calls the corner a cat."""
    photo, mask = np.zeros((H, W, 3), np.uint8), np.zeros((H, W), np.uint8)
    photo[:16, :24], mask[:16, :24] = (255, 0, 0), CAT
    return photo, mask


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def save(directory: Path, orientation: int, mask: np.ndarray, own: int = 1, suffix: str = ".jpg") -> tuple[Path, Path]:
    photo, labels = directory / f"photo{suffix}", directory / "mask.png"
    Image.fromarray(stored()[0]).save(photo, exif=exif_of(orientation))
    Image.fromarray(mask).save(labels, exif=exif_of(own))
    return photo, labels


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn stored pixels upright, as Pillow turns images."""
    if orientation == 1:
        return pixels
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.getexif()[0x0112] = orientation
    return np.array(ImageOps.exif_transpose(image))


def red_under(photo: np.ndarray, mask: np.ndarray) -> bool:
    """Return whether the red pixels are those of the cat, give or take the edges of a JPEG."""
    red = photo[:, :, 0] > 128
    return photo.shape[:2] == mask.shape and bool(np.mean(red == (mask == CAT)) > 0.99)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", [1, 5, 6, 7, 8])
@pytest.mark.parametrize("upright", [False, True])
def test_a_mask_drawn_on_the_photo_as_stored(tmp_path: Path, suffix: str, orientation: int, upright: bool) -> None:
    paths = save(tmp_path, orientation, stored()[1], suffix=suffix)
    photo, mask = load_pair(*paths, upright=upright)
    assert red_under(photo, mask)
    np.testing.assert_array_equal(mask, turn(stored()[1], orientation) if upright else stored()[1])
    if upright:
        np.testing.assert_array_equal(photo, as_rgb_array(paths[0]))


@pytest.mark.parametrize(("orientation", "square"), [(2, 0), (3, 0), (4, 0), *((n, 1) for n in range(2, 9))])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_a_mask_that_fits_either_way_is_refused(tmp_path: Path, suffix: str, orientation: int, square: bool) -> None:
    shape = (H, H, 3) if square else (H, W, 3)
    photo = tmp_path / f"photo{suffix}"
    Image.new("RGB", shape[1::-1]).save(photo, exif=exif_of(orientation))
    Image.new("L", shape[1::-1]).save(tmp_path / "mask.png")
    for upright in (False, True):
        with pytest.raises(DatasetError, match=f"without its EXIF orientation, {orientation}$"):
            load_pair(photo, tmp_path / "mask.png", upright=upright)


@pytest.mark.parametrize("orientation", range(5, 9))
@pytest.mark.parametrize("upright", [False, True])
def test_a_mask_that_fits_only_the_upright_photo(tmp_path: Path, orientation: int, upright: bool) -> None:
    photo, mask = load_pair(*save(tmp_path, orientation, turn(stored()[1], orientation)), upright=upright)
    assert red_under(photo, mask)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("own", range(2, 9))
def test_a_mask_with_an_orientation_of_its_own(tmp_path: Path, orientation: int, own: int) -> None:
    """Photo and mask show the same once each is turned as its own orientation says."""
    inverse = {6: 8, 8: 6}.get(own, own)
    mask = turn(turn(stored()[1], orientation), inverse)
    for upright in (False, True):
        photo, labels = load_pair(*save(tmp_path, orientation, np.ascontiguousarray(mask), own), upright=upright)
        assert red_under(photo, labels)


@pytest.mark.parametrize(
    ("orientation", "own", "shape"),
    [
        (1, 1, (W, H)),
        (3, 1, (W, H)),
        (6, 1, (H, H)),
        (6, 1, (H, W + 1)),
        (1, 6, (H, W)),
        (6, 6, (W, H)),
        (9, 1, (W, H)),
    ],
)
def test_a_mask_of_another_size_either_way(tmp_path: Path, orientation: int, own: int, shape: tuple[int, int]) -> None:
    with pytest.raises(DatasetError, match=r"mask\.png: the photo is \d+x\d+"):
        load_pair(*save(tmp_path, orientation, np.zeros(shape, np.uint8), own))


def test_the_orientation_is_named_where_it_may_be_the_cause(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="40x30 as stored or 30x40 pixels turned by EXIF orientation 6, its mask 7x5"
    ):
        load_pair(*save(tmp_path, 6, np.zeros((5, 7), np.uint8)))


@pytest.mark.parametrize("layout", ["voc", "folder", "coco"])
@pytest.mark.parametrize(("orientation", "drawn_upright"), [(1, False), (6, False), (6, True)])
def test_every_layout(tmp_path: Path, layout: str, orientation: int, drawn_upright: bool) -> None:
    mask = turn(stored()[1], orientation) if drawn_upright else stored()[1]
    names = {"voc": ("JPEGImages", "SegmentationClass"), "folder": ("images", "masks"), "coco": ("val2017", "unused")}
    for directory in (*names[layout], "ImageSets/Segmentation", "annotations"):
        (tmp_path / directory).mkdir(parents=True, exist_ok=True)
    Image.fromarray(stored()[0]).save(tmp_path / names[layout][0] / "a.jpg", exif=exif_of(orientation))
    Image.fromarray(np.ascontiguousarray(mask)).save(tmp_path / names[layout][1] / "a.png")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("a\n")
    runs = np.flatnonzero(np.diff(mask.T.ravel() == CAT, prepend=False, append=False))
    document = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": mask.shape[0], "width": mask.shape[1]}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "segmentation": {
                    "size": list(mask.shape),
                    "counts": np.diff(runs, prepend=0, append=mask.size).tolist(),
                },
            }
        ],
    }
    (tmp_path / "annotations/instances_val2017.json").write_text(json.dumps(document))
    assert red_under(*open_dataset(layout, tmp_path).load(0))
