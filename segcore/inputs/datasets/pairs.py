"""Pairs of photo and class mask, and the two layouts that store each of them in a file of its own."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from segcore.core.errors import DatasetError
from segcore.core.files import read_file
from segcore.core.image_files import load_indices
from segcore.core.labels import VOC, LabelSet
from segcore.core.text import decoded
from segcore.inputs.datasets.label_map import LabelMap
from segcore.inputs.images import MaskReader, Pair, is_photo, load_pair

MAX_LIST_BYTES = 64 << 20
"""Of a split: millions of names."""


class Reader(Protocol):
    """Reads pairs of one layout; picklable, so that it can be sent to other machines."""

    def read(self, name: str) -> Pair:
        """Return one pair; raise like `Dataset.load`."""


@dataclass(frozen=True)
class Dataset:
    """Named pairs of photo and mask in a fixed order."""

    name: str
    names: tuple[str, ...]
    reader: Reader
    labels: LabelSet | None = None
    """None for those of whatever model is scored."""
    label_map: LabelMap | None = None
    """How they become those of the model; None if they stay as they are."""
    map_file: Path | None = None
    """The file that says how; None if the names do."""
    masks: str = ""
    """What a user says of the masks, their kind and their labels; empty if the layout says it."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def judged(self) -> frozenset[int] | None:
        """Indices of the model's classes that a mask can have; None for all, and where the layout is known for them."""
        return None if self.label_map is None or self.label_map.origin == "layout" else self.label_map.judged

    @property
    def map_in_file(self) -> dict[str, str]:
        """What its classes count as, by name, if a file says so."""
        return self.label_map.names if self.label_map and self.label_map.origin == "file" else {}

    @property
    def sha256(self) -> str:
        """Hash of the names in order: results over different images are not comparable."""
        return hashlib.sha256("\n".join(self.names).encode(errors="surrogatepass")).hexdigest()

    def first(self, count: int | None) -> Dataset:
        """Return the first `count` pairs, or all if it is None."""
        return self if count is None else replace(self, names=self.names[:count])

    def only(self, names: Collection[str]) -> Dataset:
        """Return the pairs with these names, in the same order."""
        return replace(self, names=tuple(name for name in self.names if name in names))

    def shuffled(self) -> Dataset:
        """Return the pairs in the order of the hashes of their names: the first ones are a random sample of all."""

        def position(name: str) -> bytes:
            return hashlib.sha256(name.encode(errors="surrogatepass")).digest()

        return replace(self, names=tuple(sorted(self.names, key=position)))

    def load(self, index: int) -> Pair:
        """Return one pair; ImageError or DatasetError if a file cannot be read, or photo and mask differ in size."""
        photo, mask = self.reader.read(self.names[index])
        if photo.shape[:2] != mask.shape:
            raise DatasetError(f"{self.names[index]}: the photo has shape {photo.shape}, its mask {mask.shape}")
        return photo, mask


@dataclass(frozen=True)
class FileReader:
    """Reads a photo and its mask from a file each."""

    photos: Path
    masks: Path
    suffix: str = ""
    """Appended to a name to form the name of the photo."""
    mask_suffix: str | None = None
    """Appended to a name to form the name of the mask; None for ``.png`` instead of the photo's own."""
    read_mask: MaskReader = load_indices
    label_map: LabelMap | None = None

    def read(self, name: str) -> Pair:
        """Return one pair."""
        file = name + self.suffix
        own = self.masks / f"{name}{self.mask_suffix}"
        mask = (self.masks / file).with_suffix(".png") if self.mask_suffix is None else own
        photo, labels = load_pair(self.photos / file, mask, read_mask=self.read_mask)
        try:
            return photo, self.label_map.apply(labels) if self.label_map else labels
        except DatasetError as error:
            raise DatasetError(f"{name}: {error}") from None


def open_voc(root: Path, split: str | None) -> Dataset:
    """List the pairs of ``ImageSets/Segmentation/SPLIT.txt`` in ``JPEGImages/`` and ``SegmentationClass/``."""
    path = root / "ImageSets" / "Segmentation" / f"{split or 'val'}.txt"
    try:
        text = decoded(read_file(path, MAX_LIST_BYTES)).rstrip("\x1a")  # with which DOS ends a file
        if "\0" in text:
            raise ValueError("has null characters: save it as UTF-8")
    except (OSError, ValueError) as error:
        others = ", ".join(sorted(other.stem for other in path.parent.glob("[!.]*.txt"))) or "none"
        raise DatasetError(f"{path}: no list of images ({error}); splits there are: {others}") from None
    names = tuple(line.split()[0] for line in one_spelling(text).splitlines() if line.strip())
    reader = FileReader(root / "JPEGImages", root / "SegmentationClass", ".jpg")
    return Dataset(f"voc-{path.stem}", names, reader, VOC)


def one_spelling(name: str) -> str:
    """Return a name in one Unicode normalisation, so that a dataset copied to macOS and back keeps its identity."""
    return unicodedata.normalize("NFC", name)


def open_folder(root: Path, split: str | None) -> Dataset:
    """List the pairs of ``images/NAME.*`` and ``masks/NAME.png`` in the directory, or in its subdirectory `split`."""
    root = root / split if split else root
    images, masks = root / "images", root / "masks"
    if not images.is_dir() or not masks.is_dir():
        raise DatasetError(f"{root}: wanted the directories images/ and masks/ in it")
    photos = sorted(one_spelling(path.name) for path in images.iterdir() if is_photo(path))
    stems = Counter(Path(name).stem for name in photos)
    shared = [stem for stem, count in stems.items() if count > 1]
    if shared:
        raise DatasetError(f"{images}: more than one photo is named {shared[0]}; each needs a mask of its own")
    pngs = (path for path in masks.iterdir() if path.suffix.lower() == ".png" and path.name[0] != ".")
    orphans = sorted({one_spelling(path.stem) for path in pngs} - set(stems))
    if orphans:
        raise DatasetError(f"{masks}: {len(orphans)} masks have no photo, the first is {orphans[0]}.png")
    return Dataset(f"folder-{root.resolve().name}", tuple(photos), FileReader(images, masks))
