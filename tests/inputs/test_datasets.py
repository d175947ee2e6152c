from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from segcore.core.errors import DatasetError, ImageError, SegcoreError, UsageError
from segcore.inputs.datasets import Dataset, open_dataset
from segcore.inputs.images import Pair
from tests.support.pairs import make_coco, make_voc, save_mask

pytest.importorskip("pycocotools", reason="COCO is an extra: pip install segcore[coco]")
# pycocotools 2.0.11 is not ready for numpy 2 to the last line
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


VOC_CATEGORIES = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO category id of each VOC class, background first (torchvision's ``CAT_LIST``)."""


def test_voc_pairs_in_the_order_of_the_list(tmp_path: Path) -> None:
    names = make_voc(tmp_path, 5)
    dataset = open_dataset("voc", tmp_path)
    assert (dataset.name, dataset.names, len(dataset)) == ("voc-val", tuple(names), 5)
    photo, mask = dataset.load(1)
    np.testing.assert_array_equal(photo, np.array(Image.open(tmp_path / "JPEGImages" / f"{names[1]}.jpg")))
    np.testing.assert_array_equal(mask, np.array(Image.open(tmp_path / "SegmentationClass" / f"{names[1]}.png")))
    assert dataset.first(2).names == tuple(names[:2])
    assert dataset.first(2).sha256 != dataset.sha256
    assert open_dataset("voc", tmp_path, "val") == dataset


def test_folder_pairs_by_stem_in_any_photo_format(tmp_path: Path) -> None:
    (tmp_path / "test" / "images").mkdir(parents=True)
    for name in ("b.png", "a.jpg", ".hidden"):
        Image.new("RGB", (7, 5)).save(tmp_path / "test" / "images" / name, format="PNG")
    for stem in ("a", "b"):
        save_mask(np.full((5, 7), 8, np.uint8), tmp_path / "test" / "masks" / f"{stem}.png")
    dataset = open_dataset("folder", tmp_path, "test")
    assert dataset.names == ("a.jpg", "b.png")
    assert dataset.load(0)[1].tolist() == [[8] * 7] * 5


def references_mask(root: Path, image_id: int) -> np.ndarray:
    """The mask as the conversion in torchvision's references defines it: all instances at once, in torch."""
    from pycocotools import mask as coco_mask

    document = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    wanted = [a for a in document["annotations"] if a["image_id"] == image_id and a["category_id"] in VOC_CATEGORIES]
    if not wanted:
        return np.zeros((30, 40), np.uint8)
    drawn = []
    for annotation in wanted:
        decoded = torch.from_numpy(coco_mask.decode(coco_mask.frPyObjects(annotation["segmentation"], 30, 40)))
        drawn.append(decoded.reshape(30, 40, -1).any(dim=2).to(torch.uint8))
    masks = torch.stack(drawn)
    classes = torch.tensor([VOC_CATEGORIES.index(a["category_id"]) for a in wanted], dtype=torch.uint8)
    target = (masks * classes[:, None, None]).max(dim=0).values
    target[masks.sum(0) > 1] = 255
    return target.numpy()


def test_coco_masks_equal_those_of_the_references(tmp_path: Path) -> None:
    by_hand = make_coco(tmp_path)
    dataset = open_dataset("coco", tmp_path)
    assert dataset.name == "coco-val"
    assert dataset.names == tuple(by_hand)  # in the order of their ids, the one without any category kept
    for index, (name, expected) in enumerate(by_hand.items()):
        photo, mask = dataset.load(index)
        np.testing.assert_array_equal(mask, expected, err_msg=name)
        np.testing.assert_array_equal(mask, references_mask(tmp_path, index + 1))
        assert abs(int(photo[0, 0, 0]) - 50 * (index + 1)) < 5  # JPEG


def test_coco_photos_are_not_rotated(tmp_path: Path) -> None:
    make_coco(tmp_path)
    path = tmp_path / "val2017" / "000000000001.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    with Image.open(path) as image:
        image.save(path, exif=exif)
    photo, mask = open_dataset("coco", tmp_path).load(0)
    assert photo.shape[:2] == mask.shape == (30, 40)


@pytest.mark.parametrize("layout", ["voc", "coco"])
def test_datasets_can_be_pickled(tmp_path: Path, layout: str) -> None:
    make_voc(tmp_path, 2)
    make_coco(tmp_path)
    dataset = open_dataset(layout, tmp_path)
    there = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(there.load(1)[1], dataset.load(1)[1])


def spoil_list_twice(root: Path) -> None:
    (root / "ImageSets/Segmentation/val.txt").write_text("a\nb\na\n")


def spoil_list_empty(root: Path) -> None:
    (root / "ImageSets/Segmentation/val.txt").write_text("\n")


def spoil_list_parent(root: Path) -> None:
    (root / "ImageSets/Segmentation/val.txt").write_text("a\nx/../../../a\n")


def spoil_list_binary(root: Path) -> None:
    (root / "ImageSets/Segmentation/val.txt").write_bytes(b"\xff\xfe\x00")


def spoil_coco_json(root: Path) -> None:
    (root / "annotations/instances_val2017.json").write_text("[1, 2")


def spoil_coco_list(root: Path) -> None:
    (root / "annotations/instances_val2017.json").write_text("[]")


def spoil_coco_annotation(root: Path) -> None:
    document = {"images": [], "categories": [], "annotations": [{"id": 1, "image_id": 9, "category_id": 1}]}
    (root / "annotations/instances_val2017.json").write_text(json.dumps(document))


def spoil_coco_years(root: Path) -> None:
    (root / "annotations/instances_val2014.json").write_text("{}")


def spoil_folder_twins(root: Path) -> None:
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for name in ("a.jpg", "a.png"):
        (root / "images" / name).touch()


def spoil_folder_orphan(root: Path) -> None:
    (root / "images").mkdir()
    (root / "masks").mkdir()
    (root / "masks" / "a.png").touch()


def spoil_nothing(root: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("layout", "split", "spoil", "error", "message"),
    [
        ("vok", None, spoil_nothing, UsageError, "unknown dataset 'vok' .did you mean 'voc'."),
        ("voc", "test", spoil_nothing, DatasetError, "test.txt: no list of images .* splits there are: val"),
        ("voc", None, spoil_list_twice, DatasetError, "voc-val lists a more than once"),
        ("voc", None, spoil_list_empty, DatasetError, "voc-val lists no images"),
        ("voc", None, spoil_list_parent, DatasetError, r"voc-val lists 'x/\.\./\.\./\.\./a', outside its directory"),
        ("voc", None, spoil_list_binary, DatasetError, "val.txt: no list of images"),
        ("coco", "train", spoil_nothing, DatasetError, "wanted one annotations/instances_train.*found none"),
        ("coco", None, spoil_coco_years, DatasetError, "found instances_val2014.json, instances_val2017.json; name it"),
        ("coco", None, spoil_coco_json, DatasetError, "instances_val2017.json: not COCO instances"),
        ("coco", None, spoil_coco_list, DatasetError, "not COCO instances: TypeError"),
        ("coco", None, spoil_coco_annotation, DatasetError, "annotation 1: there is no image of id 9"),
        ("folder", None, spoil_nothing, DatasetError, "wanted the directories images/ and masks/"),
        ("folder", None, spoil_folder_twins, DatasetError, "more than one photo is named a;"),
        ("folder", None, spoil_folder_orphan, DatasetError, "1 masks have no photo, the first is a.png"),
    ],
)
def test_invalid_layouts_are_refused(
    tmp_path: Path, layout: str, split: str | None, spoil: object, error: type[SegcoreError], message: str
) -> None:
    make_voc(tmp_path, 2)
    make_coco(tmp_path)
    assert callable(spoil)
    spoil(tmp_path)
    with pytest.raises(error, match=message):
        open_dataset(layout, tmp_path, split)


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere: no such directory"):
        open_dataset("voc", tmp_path / "nowhere")


def test_pairs_of_two_sizes_are_refused(tmp_path: Path) -> None:
    names = make_voc(tmp_path, 2)
    save_mask(np.zeros((9, 8), np.uint8), tmp_path / "SegmentationClass" / f"{names[0]}.png")
    with pytest.raises(DatasetError, match=f"{names[0]}.png: the photo is 60x40 pixels, its mask 8x9"):
        open_dataset("voc", tmp_path).load(0)


def test_a_reader_that_returns_two_sizes_is_refused() -> None:
    class Careless:
        def read(self, name: str) -> Pair:
            return np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8)

    with pytest.raises(DatasetError, match="a: the photo has shape"):
        Dataset("careless", ("a",), Careless()).load(0)


def test_a_broken_coco_photo_is_refused(tmp_path: Path) -> None:
    make_coco(tmp_path)
    (tmp_path / "val2017" / "000000000002.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(ImageError, match=r"000000000002.jpg: "):
        open_dataset("coco", tmp_path).load(1)
