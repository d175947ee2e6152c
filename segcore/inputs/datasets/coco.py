"""COCO instances as VOC class masks, drawn as torchvision's segmentation references do (``coco_utils.py`` there).

The instances of the 20 VOC categories are drawn, the rest is background, and 255 marks where two instances overlap,
whatever their classes. Images without any of the categories are kept. Photos are read as they are stored, because
annotations ignore the EXIF orientation.
"""

from __future__ import annotations

import contextlib
import io
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segcore.core.errors import DatasetError, NotInstalledError
from segcore.core.image_files import open_image
from segcore.core.labels import IGNORE_INDEX
from segcore.inputs.datasets.pairs import Dataset, Pair

VOC_CATEGORIES = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO category id of each VOC class, background first (torchvision's ``CAT_LIST``)."""


@dataclass(frozen=True)
class Instance:
    """One object: its VOC class, and its outline in COCO's format (polygons or run lengths)."""

    voc_class: int
    segmentation: Any


@dataclass(frozen=True)
class CocoReader:
    """Reads one photo and draws its class mask."""

    images: Path
    instances: dict[str, tuple[Instance, ...]] = field(repr=False)
    """By file name, of the photos that have any."""

    def read(self, name: str) -> Pair:
        """Return one pair.

        Raises:
            ImageError: the photo cannot be read.
            DatasetError: an annotation cannot be drawn.
        """
        with open_image(self.images / name) as image:
            photo = np.array(image.convert("RGB"))
        try:
            return photo, draw_mask(self.instances.get(name, ()), *photo.shape[:2])
        except Exception as error:  # pycocotools raises Exception itself and whatever its C code does
            raise DatasetError(f"{name}: an annotation cannot be drawn: {error}") from error


def draw_mask(instances: tuple[Instance, ...], height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return the class mask of one image, uint8 (height, width): 0, the classes, and 255 where instances overlap."""
    from pycocotools import mask as coco_mask

    mask = np.zeros((height, width), dtype=np.uint8)
    covered = np.zeros((height, width), dtype=bool)
    for instance in instances:
        runs = instance.segmentation
        if isinstance(runs, list) or isinstance(runs["counts"], list):
            runs = coco_mask.frPyObjects(runs, height, width)
        inside = coco_mask.decode(coco_mask.merge(runs) if isinstance(runs, list) else runs).astype(bool)
        mask[inside] = np.where(covered[inside], IGNORE_INDEX, instance.voc_class)
        covered |= inside
    return mask


def open_coco(root: Path, split: str | None) -> Dataset:
    """List the pairs of a split (``val`` if None): ``val2017/`` and ``annotations/instances_val2017.json``, any year.

    Raises:
        NotInstalledError: pycocotools is not installed.
        DatasetError: the annotations are missing or are not COCO instances.
    """
    try:
        from pycocotools.coco import COCO
    except ImportError:
        raise NotInstalledError("COCO needs pycocotools, which is not installed; pip install 'segcore[coco]'") from None
    split = split or "val"
    found = sorted((root / "annotations").glob(f"instances_{split}*.json"))
    if len(found) != 1:
        shown = ", ".join(path.name for path in found) or "none"
        raise DatasetError(f"{root}: wanted one annotations/instances_{split}*.json, found {shown}; name it by --split")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
            coco = COCO(str(found[0]))
        names = tuple(coco.imgs[key]["file_name"] for key in sorted(coco.imgs))
        instances: dict[str, list[Instance]] = defaultdict(list)
        for annotation in coco.anns.values():
            if annotation["category_id"] in VOC_CATEGORIES:
                name = coco.imgs[annotation["image_id"]]["file_name"]
                instances[name].append(
                    Instance(VOC_CATEGORIES.index(annotation["category_id"]), annotation["segmentation"])
                )
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise DatasetError(f"{found[0]}: not COCO instances: {type(error).__name__} {error}") from error
    images = root / found[0].stem.removeprefix("instances_")
    return Dataset(f"coco-{split}", names, CocoReader(images, {name: tuple(its) for name, its in instances.items()}))
