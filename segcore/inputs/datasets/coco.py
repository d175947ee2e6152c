"""COCO instances as VOC class masks, drawn as torchvision's segmentation references do (``coco_utils.py`` there).

The instances of the 20 VOC categories are drawn, the rest is background, and 255 marks where two instances overlap,
whatever their classes. Images without any of the categories are kept. A category is what its name says, whatever its
number. Annotations lie on the photo as stored, whatever its EXIF orientation, unless only the upright photo has the
size that is stated for it.
"""

from __future__ import annotations

import glob
import json
from collections import defaultdict
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segcore.core.errors import DatasetError, NotInstalledError
from segcore.core.files import read_file
from segcore.core.labels import VOC_CLASSES
from segcore.inputs.datasets.geometry import Instance, draw_mask, shown
from segcore.inputs.datasets.pairs import Dataset, one_spelling
from segcore.inputs.images import Pair, lies_upright, load_stored, turned

MAX_ANNOTATION_BYTES = 2 << 30
"""Of COCO's files, the largest has 450 MB; of LVIS', 1.1 GB."""
COCO_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}
"""VOC classes that COCO calls by another name; of all other categories the names are equal."""


@dataclass(frozen=True)
class CocoImage:
    """What the annotations say of one image."""

    size: tuple[Any, Any]
    """Height and width, not checked yet; None where they are not stated."""
    instances: tuple[Instance, ...] = ()


@dataclass(frozen=True)
class CocoReader:
    """Reads one photo and draws its class mask."""

    directory: Path
    images: dict[str, CocoImage] = field(repr=False)
    """By file name."""

    def read(self, name: str) -> Pair:
        """Return one pair.

        Raises:
            ImageError: the photo cannot be read.
            DatasetError: an annotation cannot be drawn, or the annotations are of an image of another size.
        """
        photo, orientation = load_stored(self.directory / name)
        image, size = self.images[name], photo.shape[:2]
        if None not in image.size:
            if lies_upright(name, photo, orientation, image.size):
                photo = turned(photo, orientation)
            size = photo.shape[:2]
        return photo, draw_mask(name, image.instances, *size)


def open_coco(root: Path, split: str | None) -> Dataset:
    """List the pairs of a split (``val`` if None): ``val2017/`` and ``annotations/instances_val2017.json``, any year.

    Raises:
        NotInstalledError: pycocotools is not installed.
        DatasetError: the annotations are missing, are not COCO instances, or give one id to two images or categories.
    """
    if find_spec("pycocotools") is None:
        raise NotInstalledError("COCO needs pycocotools, which is not installed; pip install 'segcore[coco]'")
    split = split or "val"
    found = sorted((root / "annotations").glob(f"instances_{glob.escape(split)}*.json"))
    if len(found) != 1:
        shown_names = ", ".join(path.name for path in found) or "none"
        raise DatasetError(
            f"{root}: wanted one annotations/instances_{split}*.json, found {shown_names}; name it by --split"
        )
    try:
        # In UTF-8, UTF-16 or UTF-32, with or without a byte order mark.
        document = json.loads(read_file(found[0], MAX_ANNOTATION_BYTES))
        names, images = _images_of(document)
    except DatasetError as error:
        raise DatasetError(f"{found[0]}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{found[0]}: not COCO instances: {type(error).__name__} {error}") from error
    return Dataset(f"coco-{split}", names, CocoReader(root / found[0].stem.removeprefix("instances_"), images))


def _images_of(document: Any) -> tuple[tuple[str, ...], dict[str, CocoImage]]:
    """Return the names of the images in the order of their ids, and what the annotations say of each."""
    classes: dict[Any, int | None] = {}
    for category in document["categories"]:
        key, voc_class = category["id"], _voc_class(category["name"])
        if classes.setdefault(key, voc_class) != voc_class:
            raise DatasetError(
                f"category id {shown(key)} is that of two categories, one of them {shown(category['name'])}"
            )
    images: dict[Any, Any] = {}
    for image in document["images"]:
        if images.setdefault(image["id"], image) is not image:
            raise DatasetError(f"image id {shown(image['id'])} is that of two images: wanted another for each")
    instances: dict[Any, list[Instance]] = defaultdict(list)
    for number, annotation in enumerate(document["annotations"], start=1):
        image_id, category_id = annotation["image_id"], annotation["category_id"]
        name = annotation.get("id", f"number {number}")
        if image_id not in images or category_id not in classes:
            kind, key = ("image", image_id) if image_id not in images else ("category", category_id)
            raise DatasetError(f"annotation {shown(name)}: there is no {kind} of id {shown(key)}")
        voc_class = classes[category_id]
        if voc_class is not None:
            instances[image_id].append(Instance(name, voc_class, annotation.get("segmentation")))
    # Windows separates directories by backslashes.
    names = {key: one_spelling(images[key]["file_name"]).replace("\\", "/") for key in sorted(images)}
    found = {
        name: CocoImage((images[key].get("height"), images[key].get("width")), tuple(instances[key]))
        for key, name in names.items()
    }
    return tuple(names.values()), found


def _voc_class(name: str) -> int | None:
    """Return the VOC class that a category's name stands for, None if it is no VOC class."""
    key = name.strip().lower().replace("_", " ")
    key = COCO_NAMES.get(key, key)
    return VOC_CLASSES.index(key) if key in VOC_CLASSES else None
