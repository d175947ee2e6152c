"""Pictures of a run: read only from its own directory, made small, colours kept."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segcore.core.errors import RecordError
from segcore.core.labels import VOC_PALETTE, ClassMap, LabelSet, numbered
from segcore.core.records import Run
from segcore.report.pictures import MAX_ROWS, changed_uri, fitted, half_blocks, mask_uri, photo_uri
from segcore.results.pictures import load_indices, load_photo, picture_path
from tests.support.factories import drawn_mask, make_run


def opened(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition("base64,")[2])))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "runs", models=("embedded",))


@pytest.mark.parametrize(
    ("relative", "message"),
    [
        ("../outside.png", "lies outside"),
        ("base-maps/../../outside.png", "lies outside"),
        ("/etc/passwd", "lies outside"),
        ("base-maps", "is missing"),
        ("nothing.png", "is missing"),
        ("a\0b", "not a usable path"),
        ("x" * 5000, "not a usable path|is missing"),
    ],
)
def test_paths_that_are_refused(run: Run, relative: str, message: str) -> None:
    (run.path.parents[1] / "outside.png").write_bytes(b"")
    with pytest.raises(RecordError, match=message):
        picture_path(run, relative)


def test_links_are_resolved_before_the_path_is_checked(run: Run) -> None:
    outside = run.path.parents[1] / "outside.jpg"
    (run.path.parent / "base-maps/chelsea.jpg").rename(outside)
    (run.path.parent / "link.jpg").symlink_to(outside)
    with pytest.raises(RecordError, match="lies outside"):
        load_photo(run, "link.jpg")


def test_pictures_that_cannot_be_read(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.path.parent / "text.png").write_text("no picture")
    with pytest.raises(RecordError, match="cannot be read"):
        load_photo(run, "text.png")
    with pytest.raises(RecordError, match="not an image of PNG"):
        load_indices(run, "base-maps/chelsea.jpg")
    data = (run.path.parent / "base-maps/chelsea.jpg").read_bytes()
    (run.path.parent / "half.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(RecordError, match="cannot be read"):
        load_photo(run, "half.jpg")
    monkeypatch.setattr("segcore.results.pictures.MAX_PIXELS", 1000)
    with pytest.raises(RecordError, match="at most 1,000 pixels"):
        load_photo(run, "base-maps/chelsea.jpg")


def test_fitted_keeps_the_aspect() -> None:
    assert fitted(1600, 1200, 640) == (640, 480)
    assert fitted(100, 50, 640) == (100, 50)
    assert fitted(5000, 1, 640) == (640, 1)


def test_photo_is_made_small() -> None:
    photo = np.full((400, 800, 3), 90, dtype=np.uint8)
    image = opened(photo_uri(photo, (200, 100)))
    assert (image.format, image.size) == ("JPEG", (200, 100))
    assert abs(np.asarray(image).astype(int) - 90).max() <= 2


def test_mask_keeps_its_colours_and_a_clear_background() -> None:
    class_map = drawn_mask(60, 80, 8)
    image = opened(mask_uri(class_map, (80, 60))).convert("RGBA")
    pixels = np.asarray(image)
    assert tuple(pixels[33, 40]) == (*VOC_PALETTE[8], 255)
    assert pixels[0, 0, 3] == 0
    assert (pixels == (255, 255, 255, 255)).all(axis=-1).any()  # the line around the region


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        (LabelSet("own", ("a", "b", "c"), ((9, 8, 7), (0, 99, 0), (0, 0, 99)), background=1), np.uint8),
        (LabelSet("own", ("a", "b", "c"), ((9, 8, 7), (0, 99, 0), (0, 0, 99)), background=1, ignore=254), np.uint8),
        (LabelSet("own", ("a", "b", "c"), ((9, 8, 7), (0, 99, 0), (0, 0, 99))), np.uint8),
        (numbered(256), np.uint8),
        (numbered(1000), np.uint16),
    ],
)
def test_masks_of_other_labels_keep_their_colours(labels: LabelSet, dtype: type) -> None:
    class_map: ClassMap = np.repeat(np.repeat(np.array([[0, 1], [2, len(labels) - 1]], dtype), 20, axis=0), 30, axis=1)
    image = opened(mask_uri(class_map, (60, 40), labels)).convert("RGBA")
    pixels = np.asarray(image)
    for (row, column), index in (((10, 15), 0), ((10, 45), 1), ((30, 15), 2), ((30, 45), len(labels) - 1)):
        assert pixels[row, column, 3] == (0 if index == labels.background else 255)
        if index != labels.background:
            assert tuple(pixels[row, column, :3]) == labels.colors[index]
    assert (pixels == (255, 255, 255, 255)).all(axis=-1).any()


def test_one_changed_pixel_stays_visible_when_made_small() -> None:
    changed = np.zeros((600, 800), dtype=bool)
    changed[411, 123] = True
    image = np.asarray(opened(changed_uri(changed, (80, 60))).convert("RGBA"))
    assert (image[..., 3] == 255).sum() == 1


def test_half_blocks_hold_two_pixels_each() -> None:
    picture = np.zeros((4, 3, 3), dtype=np.uint8)
    picture[0], picture[1], picture[2:] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    art = half_blocks(picture, 10)
    assert art.plain == "▀▀▀\n▀▀▀"
    style = art.spans[0].style
    assert str(style) == "#ff0000 on #00ff00"


@pytest.mark.parametrize(("height", "width"), [(1, 1), (300, 451), (1000, 10), (10, 1000), (7, 7)])
def test_half_blocks_fit_their_space(height: int, width: int) -> None:
    art = half_blocks(np.zeros((height, width, 3), dtype=np.uint8), 36)
    lines = art.plain.split("\n")
    assert len(lines) <= MAX_ROWS
    assert 1 <= max(map(len, lines)) <= 36
