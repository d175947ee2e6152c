"""PASCAL VOC: ``ImageSets/Segmentation/SPLIT.txt``, ``JPEGImages/`` and ``SegmentationClass/`` (indexed PNG)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segcore.core.image_files import load_indexed_png
from segcore.inputs.datasets import Dataset, read_list
from segcore.inputs.images import load_image


@dataclass(frozen=True)
class VocReader:
    """Reads one photo and its class mask."""

    root: Path

    def read(self, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return photo and mask; see `segcore.inputs.datasets.Reader`."""
        photo, mask = self.root / "JPEGImages" / f"{name}.jpg", self.root / "SegmentationClass" / f"{name}.png"
        return load_image(photo), load_indexed_png(mask)


def open_pairs(root: Path, split: str | None) -> Dataset:
    """List a split of VOC (``val`` where None).

    Raises:
        DatasetError: there is no list of that split.
    """
    split = split or "val"
    names = read_list(root / "ImageSets" / "Segmentation" / f"{split}.txt")
    return Dataset(f"voc-{split}", names, VocReader(root))
