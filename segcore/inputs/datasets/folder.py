"""A plain folder: ``images/NAME.jpg`` (or any photo format) beside ``masks/NAME.png`` (class indices)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segcore.core.errors import DatasetError
from segcore.core.image_files import load_indexed_png
from segcore.inputs.datasets import Dataset
from segcore.inputs.images import load_image

IMAGES, MASKS = "images", "masks"


@dataclass(frozen=True)
class FolderReader:
    """Reads the photo of a file name, and the mask of its stem."""

    root: Path

    def read(self, name: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return photo and mask; see `segcore.inputs.datasets.Reader`."""
        return load_image(self.root / IMAGES / name), load_indexed_png((self.root / MASKS / name).with_suffix(".png"))


def open_pairs(root: Path, split: str | None) -> Dataset:
    """List the photos of a folder, or of its subdirectory `split`, by name.

    Raises:
        DatasetError: a directory is missing, two photos share a mask, or a mask has no photo.
    """
    root = root / split if split else root
    if not (root / IMAGES).is_dir() or not (root / MASKS).is_dir():
        raise DatasetError(f"{root}: wanted the directories {IMAGES}/ and {MASKS}/ in it")
    photos = sorted(path.name for path in (root / IMAGES).iterdir() if path.is_file() and path.name[0] != ".")
    stems = [Path(name).stem for name in photos]
    twice = [stem for stem, times in Counter(stems).items() if times > 1]
    if twice:
        raise DatasetError(f"{root / IMAGES}: more than one photo is named {twice[0]}; each needs a mask of its own")
    orphans = sorted({path.stem for path in (root / MASKS).glob("*.png")} - set(stems))
    if orphans:
        raise DatasetError(f"{root / MASKS}: {len(orphans)} masks have no photo, the first is {orphans[0]}.png")
    return Dataset(f"folder-{root.resolve().name}", tuple(photos), FolderReader(root))
