"""COCO instances as class masks, drawn as torchvision's segmentation references do (``coco_utils.py`` there).

For the classes of VOC, its 20 categories are drawn, whatever their numbers, the rest is background, and 255 marks where
two instances overlap. For other classes a map says what is drawn. Annotations lie on the photo as stored, unless only
the upright photo has the size that is stated for it.
"""

from __future__ import annotations

import glob
import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from segcore.core.errors import DatasetError, NotInstalledError
from segcore.core.files import read_file
from segcore.core.labels import IGNORE_INDEX, MAX_CLASSES, MAX_NAME, VOC, VOC_CLASSES, LabelSet
from segcore.core.text import printable
from segcore.inputs.datasets.geometry import Instance, draw_mask, shown
from segcore.inputs.datasets.label_map import LabelMap
from segcore.inputs.datasets.pairs import Dataset, one_spelling
from segcore.inputs.images import Pair, lies_upright, load_stored, turned

MAX_ANNOTATION_BYTES = 2 << 30
"""Of COCO's files, the largest has 450 MB; of LVIS', 1.1 GB."""
COCO_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "motorcycle": "motorbike",
    "tv": "tvmonitor",
}
"""VOC classes that COCO calls by another name."""


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
    label_map: LabelMap
    """What the categories count as."""

    def read(self, name: str) -> Pair:
        """Return one pair; raise like `Dataset.load`."""
        photo, orientation = load_stored(self.directory / name)
        image = self.images[name]
        if None not in image.size and lies_upright(name, photo, orientation, image.size):
            photo = turned(photo, orientation)
        overlap = IGNORE_INDEX if self.label_map.target.ignore is None else self.label_map.target.ignore
        values = tuple(overlap if index is None else index for index in self.label_map.indices)
        height, width = photo.shape[:2]
        return photo, draw_mask(name, image.instances, height, width, values, overlap)


def open_coco(root: Path, split: str | None) -> Dataset:
    """List the pairs of ``val2017/`` and ``annotations/instances_val2017.json``, any year, or of another split."""
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
        names, images, labels = _images_of(document, f"coco-{split}")
    except DatasetError as error:
        raise DatasetError(f"{found[0]}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(f"{found[0]}: not COCO instances: {type(error).__name__} {error}") from error
    directory = root / found[0].stem.removeprefix("instances_")
    label_map = LabelMap(labels, VOC, tuple(_voc_class(name) or 0 for name in labels.names), "layout")
    reader = CocoReader(directory, images, label_map)
    return Dataset(f"coco-{split}", names, reader, labels, label_map)


def _images_of(document: Any, name: str) -> tuple[tuple[str, ...], dict[str, CocoImage], LabelSet]:
    """Return the names of the images in the order of their ids, what the annotations say of each, and the categories.

    The categories are classes from 1 on, in the order of the file; 0 is the background.
    """
    categories: dict[Any, str] = {}
    for category in document["categories"]:
        key, spelled = category["id"], _spelled(category["name"])
        if _class_key(categories.setdefault(key, spelled)) != _class_key(spelled):
            twice = f"that of two categories, one of them {shown(category['name'])}"
            raise DatasetError(f"category id {shown(key)} is {twice}")
    labels = _labels_of(name, categories)
    images: dict[Any, Any] = {}
    for image in document["images"]:
        if images.setdefault(image["id"], image) is not image:
            raise DatasetError(f"image id {shown(image['id'])} is that of two images: wanted another for each")
    indices = {key: labels.index(text) for key, text in categories.items()}
    instances: dict[Any, list[Instance]] = defaultdict(list)
    for number, annotation in enumerate(document["annotations"], start=1):
        image_id, category_id = annotation["image_id"], annotation["category_id"]
        title = annotation.get("id", f"number {number}")
        if image_id not in images or category_id not in categories:
            kind, key = ("image", image_id) if image_id not in images else ("category", category_id)
            raise DatasetError(f"annotation {shown(title)}: there is no {kind} of id {shown(key)}")
        instances[image_id].append(Instance(title, indices[category_id], annotation.get("segmentation")))
    # Windows separates directories by backslashes.
    names = {key: one_spelling(images[key]["file_name"]).replace("\\", "/") for key in sorted(images)}
    found = {
        name: CocoImage((images[key].get("height"), images[key].get("width")), tuple(instances[key]))
        for key, name in names.items()
    }
    return tuple(names.values()), found, labels


def _spelled(name: str) -> str:
    """Return the name of a category as that of a class: printable, and not longer than a class may be named."""
    text = printable(name.replace("_", " ")).strip()
    return text[:MAX_NAME].strip() or "nameless"


def _class_key(name: str) -> object:
    """Return what two names of one category share: the VOC class if it is one, else how it is spelled."""
    known = _voc_class(name)
    return name.lower() if known is None else known


def _labels_of(name: str, categories: Mapping[Any, str]) -> LabelSet:
    spelled = {text.lower(): text for text in ("background", *categories.values())}
    names = tuple(spelled.values())
    ids = {str(key): spelled[text.lower()] for key, text in categories.items() if type(key) is int}
    ids = {key: text for key, text in ids.items() if key not in spelled}
    return LabelSet(name, names, aliases=ids, background=0, ignore=MAX_CLASSES if len(names) > 255 else 255)


def _voc_class(name: str) -> int | None:
    """Return the VOC class that a category's name stands for, None if it is no VOC class."""
    key = re.sub(r"[\s_-]+", "", name.lower())
    key = COCO_NAMES.get(key, key)
    return VOC_CLASSES.index(key) if key in VOC_CLASSES else None
