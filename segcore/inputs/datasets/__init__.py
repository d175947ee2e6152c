"""Datasets of photos with class masks: where they lie, and how one pair is read.

One module per layout, each with a function that lists the pairs; masks are read when they are wanted.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from segcore.core.errors import DatasetError, UsageError, nearest_hint

LAYOUTS: dict[str, str] = {
    "voc": "segcore.inputs.datasets.voc",
    "coco": "segcore.inputs.datasets.coco",
    "folder": "segcore.inputs.datasets.folder",
}


class Reader(Protocol):
    """Reads pairs of one layout; small and picklable, so that it can travel to other machines."""

    def read(self, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return photo, uint8 RGB (H, W, 3), and mask, uint8 (H, W): 0 to 20, 255 for pixels not scored."""


@dataclass(frozen=True)
class Dataset:
    """Named pairs of photo and mask in a fixed order."""

    name: str
    """For example ``voc-val``; part of what a result is known by."""
    names: tuple[str, ...]
    """One per pair, each different."""
    reader: Reader

    def __len__(self) -> int:
        return len(self.names)

    @property
    def sha256(self) -> str:
        """Hash of the names in their order: results over different images are not comparable."""
        return hashlib.sha256("\n".join(self.names).encode()).hexdigest()

    def first(self, count: int | None) -> Dataset:
        """Return the first `count` pairs, all where None."""
        return self if count is None else replace(self, names=self.names[:count])

    def load(self, index: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return photo, uint8 RGB (H, W, 3), and mask, uint8 (H, W), of one pair.

        Raises:
            ImageError: one of the files cannot be read.
            DatasetError: photo and mask differ in size.
        """
        photo, mask = self.reader.read(self.names[index])
        if photo.shape[:2] != mask.shape:
            raise DatasetError(
                f"{self.names[index]}: the photo is {photo.shape[1]}x{photo.shape[0]} pixels, its mask "
                f"{mask.shape[1]}x{mask.shape[0]}: they must be of one size"
            )
        return photo, mask


def open_dataset(layout: str, root: str | Path, split: str | None = None) -> Dataset:
    """List the pairs of a dataset on disk.

    Args:
        layout: ``voc`` (VOCdevkit/VOC2012), ``coco`` (images and ``annotations/instances_*.json``) or ``folder``
            (``images/`` and ``masks/`` with files of equal stems).
        root: its directory.
        split: ``val`` where None, except for ``folder``, which needs none: there it is a subdirectory of the root.

    Raises:
        UsageError: there is no such layout.
        DatasetError: the root is not laid out like that, or the split is empty or names an image twice.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"unknown dataset {layout!r}{nearest_hint(layout, LAYOUTS)}; known: {', '.join(LAYOUTS)}")
    if not Path(root).is_dir():
        raise DatasetError(f"{root}: no such directory; wanted the root of a dataset laid out like {layout}")
    dataset: Dataset = import_module(LAYOUTS[layout]).open_pairs(Path(root), split)
    if not dataset.names:
        raise DatasetError(f"{root}: {dataset.name} lists no images")
    twice = [name for name, times in Counter(dataset.names).items() if times > 1]
    if twice:
        raise DatasetError(f"{root}: {dataset.name} lists {twice[0]} more than once; it would be counted as often")
    return dataset


def read_list(path: Path) -> tuple[str, ...]:
    """Return the names in a text file, one a line; the first column where there are several.

    Raises:
        DatasetError: the file cannot be read.
    """
    try:
        return tuple(line.split()[0] for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        others = ", ".join(sorted(other.stem for other in path.parent.glob("*.txt"))) or "none"
        raise DatasetError(f"{path}: no list of images ({error}); splits there are: {others}") from None
