"""Annotation files as others write them, and as they should not be."""

from __future__ import annotations

import codecs
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from segcore.core.errors import DatasetError, UsageError
from segcore.core.labels import VOC, VOC_CLASSES
from segcore.inputs.datasets import Dataset, fit, open_dataset
from segcore.inputs.datasets.geometry import Instance, draw_mask

coco_mask = pytest.importorskip("pycocotools.mask", reason="COCO is an extra: pip install segcore[coco]")
# pycocotools 2.0.11 is not ready for numpy 2 to the last line
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

H, W = 30, 40
CAT = VOC_CLASSES.index("cat")
VALUES = tuple(range(21)), 255
SQUARE = [[5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]]
SHIFTED = [[20.0, 5.0, 30.0, 5.0, 30.0, 15.0, 20.0, 15.0]]


def image(number: int = 1, name: str = "a.jpg", **fields: Any) -> dict[str, Any]:
    return {"id": number, "file_name": name, "height": H, "width": W, **fields}


def annotation(drawn: Any = SQUARE, **fields: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": 1, "category_id": 17, "iscrowd": 0, "segmentation": drawn, **fields}


def save(root: Path, **document: Any) -> Path:
    """Write a dataset with one image and one cat, but for the fields that are given."""
    whole = {
        "images": [image()],
        "annotations": [annotation()],
        "categories": [{"id": 17, "name": "cat"}],
        **document,
    }
    (root / "annotations").mkdir()
    (root / "val2017").mkdir()
    for entry in whole["images"]:
        Image.new("RGB", (W, H)).save(root / "val2017" / entry["file_name"])
    (root / "annotations/instances_val2017.json").write_text(json.dumps(whole))
    return root


def opened(root: Path, **document: Any) -> Dataset:
    return open_dataset("coco", save(root, **document))


def counts(mask: np.ndarray) -> dict[str, int]:
    return {VOC_CLASSES[value]: int((mask == value).sum()) for value in np.unique(mask) if 0 < value < 21}


# Identities


@pytest.mark.parametrize(
    ("categories", "expected"),
    [
        ([{"id": 17, "name": "cat"}], {"cat": 100}),
        ([{"id": 17, "name": "dog"}], {"dog": 100}),
        ([{"id": 17, "name": " Cat "}], {"cat": 100}),
        ([{"id": 17, "name": "dining_table"}], {"diningtable": 100}),
        ([{"id": 17, "name": "Dining-Table"}], {"diningtable": 100}),
        ([{"id": 17, "name": "tv monitor"}], {"tvmonitor": 100}),
        ([{"id": 17, "name": "zebra"}], {}),
        ([{"id": 17, "name": "18"}], {}),
        ([{"id": 17, "name": "table"}], {}),  # of LVIS and others: any table
        ([{"id": 17, "name": "cat"}, {"id": 3, "name": "cat"}], {"cat": 100}),
        ([{"id": 17, "name": "cat"}, {"id": 17, "name": "cat"}], {"cat": 100}),
    ],
)
def test_a_category_is_what_its_name_says(tmp_path: Path, categories: list[Any], expected: dict[str, int]) -> None:
    assert counts(opened(tmp_path, categories=categories).load(0)[1]) == expected


COCO_NAMES = (
    *("airplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "dining table", "dog"),
    *("horse", "motorcycle", "person", "potted plant", "sheep", "couch", "train", "tv"),
)
"""Names in ``instances_val2017.json``, in the order of the VOC classes."""


@pytest.mark.parametrize(("number", "name"), list(enumerate(COCO_NAMES, start=1)))
def test_names_of_coco_and_of_voc_are_the_classes(tmp_path: Path, number: int, name: str) -> None:
    categories = [{"id": 1, "name": name}, {"id": 2, "name": VOC_CLASSES[number]}]
    annotations = [annotation(category_id=1), annotation(SHIFTED, category_id=2)]
    mask = opened(tmp_path, categories=categories, annotations=annotations).load(0)[1]
    assert counts(mask) == {VOC_CLASSES[number]: 200}


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.jpg", "..\\a.jpg", "x/../../a.jpg", "C:\\a.jpg", "..", "a\0.jpg"]
)
def test_a_name_that_leaves_the_directory_of_the_photos_is_refused(name: str, tmp_path: Path) -> None:
    root = save(tmp_path)
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": [image(name=name)]}))
    with pytest.raises(DatasetError, match=r"lists .*, outside its directory of photos: rename it$"):
        open_dataset("coco", root)


@pytest.mark.parametrize("name", ["a..b.jpg", "...jpg", "x/..a.jpg"])
def test_a_name_with_dots_is_a_name(name: str, tmp_path: Path) -> None:
    root = save(tmp_path)
    path = root / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": [image(name=name)]}))
    assert open_dataset("coco", root).names == (name,)


@pytest.mark.parametrize("second", [{"id": 1}, {"id": "1"}, {}])
def test_annotations_are_all_read_whatever_their_ids(tmp_path: Path, second: dict[str, Any]) -> None:
    other = annotation(SHIFTED)
    del other["id"]
    assert counts(opened(tmp_path, annotations=[annotation(), other | second]).load(0)[1]) == {"cat": 200}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"images": [image(), image(name="b.jpg")]}, "image id 1 is that of two images"),
        ({"images": [image(), image()]}, "image id 1 is that of two images"),
        ({"images": [image(), image(2)]}, "lists a.jpg more than once"),
        ({"categories": [{"id": 17, "name": "cat"}, {"id": 17, "name": "dog"}]}, "category id 17 .* two categories"),
        ({"annotations": [annotation(image_id=2)]}, "annotation 1: there is no image of id 2"),
        ({"annotations": [annotation(image_id="1")]}, "annotation 1: there is no image of id '1'"),
        ({"annotations": [annotation(category_id=18)]}, "annotation 1: there is no category of id 18"),
        ({"annotations": [annotation(id=None, category_id=[])]}, "not COCO instances: TypeError"),
        ({"categories": []}, "annotation 1: there is no category of id 17"),
        ({"categories": [{"id": 17}]}, "not COCO instances: KeyError 'name'"),
        ({"categories": [{"id": 17, "name": 17}]}, "not COCO instances: AttributeError"),
        ({"annotations": None}, "not COCO instances: TypeError"),
        ({"annotations": [3]}, "not COCO instances: TypeError"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path: Path, document: dict[str, Any], message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        opened(tmp_path, **document)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_encodings_of_json(tmp_path: Path, encoding: str) -> None:
    path = save(tmp_path, images=[image(name="é.jpg")]) / "annotations/instances_val2017.json"
    path.write_bytes(
        json.dumps(json.loads(path.read_text()), ensure_ascii=False, indent=1).replace("\n", "\r\n").encode(encoding)
    )
    assert counts(open_dataset("coco", tmp_path).load(0)[1]) == {"cat": 100}


def test_json_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (save(tmp_path) / "annotations/instances_val2017.json").write_bytes(codecs.BOM_UTF8 + b"[" * 100_000)
    with pytest.raises(DatasetError, match="RecursionError"):
        open_dataset("coco", tmp_path)


# Sizes


@pytest.mark.parametrize("stated", [(W, H), (H + 1, W), (10**9, 10**9), ("30", "40"), (-H, -W), ([], {}), (0, 0)])
def test_a_stated_size_that_is_not_the_photos_is_refused(tmp_path: Path, stated: tuple[Any, Any]) -> None:
    with pytest.raises(DatasetError, match=r"a\.jpg: the photo is 40x30 pixels, its mask "):
        opened(tmp_path, images=[image(height=stated[0], width=stated[1])]).load(0)


def test_a_size_that_is_not_stated_is_that_of_the_photo(tmp_path: Path) -> None:
    entry = image()
    del entry["height"]
    assert counts(opened(tmp_path, images=[entry]).load(0)[1]) == {"cat": 100}


# Geometry


def runs(*values: Any, size: Any = (H, W)) -> dict[str, Any]:
    return {"size": list(size), "counts": list(values)}


def text(value: Any, size: Any = (H, W)) -> dict[str, Any]:
    return {"size": list(size), "counts": value}


FULL = H * W
BAD: dict[str, Any] = {
    "runs too short": runs(5, 3),
    "runs too long": runs(0, FULL + 1),
    "no runs": runs(),
    "negative run": runs(-5, FULL + 5),
    "run beyond 32 bits": runs(0, 2**32 + FULL),
    "run of 400 digits": runs(0, 10**400),
    "fractional run": runs(0.5, FULL - 0.5),
    "run that is NaN": runs(float("nan"), FULL),
    "infinite run": runs(float("inf"), FULL),
    "run that is text": runs("0", FULL),
    "run that is true": runs(True, FULL - 1),
    "run that is a list": runs([0], FULL),
    "size of another image": runs(0, 100, size=(10, 10)),
    "size exchanged": runs(0, FULL, size=(W, H)),
    "huge size": runs(0, 10**18, size=(10**9, 10**9)),
    "negative size": runs(0, FULL, size=(-H, -W)),
    "no size": {"counts": [0, FULL]},
    "no counts": {"size": [H, W]},
    "counts null": text(None),
    "counts a number": text(7),
    "text too short": text("53"),
    "text too long": text("0PPPPPPPPPo1"),
    "text with other characters": text("§"),
    "text with control characters": text("\0\x01"),
    "text cut off": text("0`"),
    "text of one endless run": text("o" * 100_000),
    "empty text": text(""),
    "nothing": None,
    "no polygons": [],
    "a polygon of nothing": [[]],
    "a point": [[1.0]],
    "a line, which pycocotools takes for a box": [[1, 2, 9, 9]],
    "a polygon with half a point": [[1, 2, 9, 2, 9, 9, 4]],
    "a second polygon of one point": [*SQUARE, [3, 3]],
    "a polygon without its list": [1, 2, 9, 2, 9, 9],
    "coordinates of 1e9": [[0, 0, 1e9, 0, 1e9, 1e9]],
    "coordinates of -1e9": [[0, 0, -1e9, 0, -1e9, -1e9]],
    "coordinates of 400 digits": [[0, 0, 10**400, 0, 9, 9]],
    "coordinates that are NaN": [[0, 0, float("nan"), 0, 9, 9]],
    "infinite coordinates": [[0, 0, float("inf"), 0, 9, 9]],
    "coordinates that are text": [["0", "0", "9", "0", "9", "9"]],
    "coordinates that are null": [[0, 0, None, 0, 9, 9]],
    "coordinates in pairs": [[[0, 0], [9, 0], [9, 9]]],
    "a zigzag of ten million pixels": [[0, 0, 100_000, 0] * 50],
    "a polygon beside the image": [[W + 1, 0, W + 9, 0, W + 9, 9]],
    "a polygon above the image": [[0, -9, 9, -9, 9, -1]],
    "two polygons far away": [[5000, 5000, 6000, 5000, 6000, 6000], [-9, 0, -1, 0, -1, 9]],
    "a word": "polygon",
    "a number": 3,
}


@pytest.mark.parametrize("drawn", BAD.values(), ids=BAD)
def test_damaged_geometry_is_refused_by_image_and_annotation(drawn: Any) -> None:
    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"a\.jpg: annotation 7 cannot be drawn: ") as caught:
        draw_mask("a.jpg", [Instance(7, CAT, drawn)], H, W, *VALUES)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    assert len(str(caught.value)) < 300


def test_one_damaged_annotation_leaves_the_other_images_alone(tmp_path: Path) -> None:
    images = [image(), image(2, "b.jpg")]
    dataset = opened(tmp_path, images=images, annotations=[annotation(runs(5, 3)), annotation(image_id=2)])
    assert counts(dataset.load(1)[1]) == {"cat": 100}
    with pytest.raises(DatasetError, match="annotation 1 cannot"):
        dataset.load(0)


def test_annotations_of_other_categories_need_no_geometry(tmp_path: Path) -> None:
    annotations = [annotation(), annotation(None, category_id=13)]
    categories = [{"id": 17, "name": "cat"}, {"id": 13, "name": "stop sign"}]
    assert counts(opened(tmp_path, annotations=annotations, categories=categories).load(0)[1]) == {"cat": 100}


def test_polygons_equal_those_of_pycocotools() -> None:
    rng = np.random.default_rng(0)
    for count in range(200):
        sizes = rng.integers(3, 9, 1 + count % 3)
        polygons = [rng.uniform(-50, 90, 2 * points).round(count % 2).tolist() for points in sizes]
        polygons.append([1, 1, 1, 2, 2, 2])  # at least one is inside
        wanted = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, H, W)))
        np.testing.assert_array_equal(draw_mask("a", [Instance(1, 1, polygons)], H, W, *VALUES), wanted)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.integers(1, 60), st.floats(0, 1))
def test_run_lengths_equal_those_of_pycocotools(seed: int, height: int, width: int, share: float) -> None:
    wanted = np.random.default_rng(seed).random((height, width)) < share
    packed = coco_mask.encode(np.asfortranarray(wanted.astype(np.uint8)))
    as_text = {"size": [height, width], "counts": packed["counts"].decode()}
    ends = np.flatnonzero(np.diff(wanted.T.ravel(), prepend=False, append=not wanted.T.ravel()[-1]))
    as_list = {"size": [height, width], "counts": np.diff(ends, prepend=0).tolist()}
    for drawn in (as_text, as_list):
        np.testing.assert_array_equal(draw_mask("a", [Instance("1", 1, drawn)], height, width, *VALUES), wanted)


@pytest.mark.parametrize("names", [[], ["crack"], ["zebra", "stop sign", "background"]])
def test_annotations_without_a_class_of_the_model_score_nothing(tmp_path: Path, names: list[str]) -> None:
    categories = [{"id": n, "name": name} for n, name in enumerate(names)]
    dataset = opened(tmp_path, annotations=[], categories=categories)
    with pytest.raises(UsageError, match="--map"):
        fit(dataset, VOC)
    (tmp_path / "cat").mkdir()
    assert fit(opened(tmp_path / "cat"), VOC)
