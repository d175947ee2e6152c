"""Cityscapes: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``.

If a split has only ``*_gtFine_labelTrainIds.png``, those are read.
"""

from __future__ import annotations

from pathlib import Path

from segcore.core.errors import DatasetError
from segcore.core.labels import CITYSCAPES, CITYSCAPES_IDS
from segcore.inputs.datasets.pairs import Dataset, FileReader, one_spelling

_PHOTO = "_leftImg8bit.png"
_IDS, _TRAIN_IDS = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


def open_cityscapes(root: Path, split: str | None) -> Dataset:
    """List the pairs of a split (``val`` if None), by the names of city and photo."""
    split = split or "val"
    photos, masks = root / "leftImg8bit" / split, root / "gtFine" / split
    for directory in (photos, masks):
        if not directory.is_dir():
            raise DatasetError(f"{directory}: no such directory; wanted leftImg8bit/{split}/ and gtFine/{split}/")
    found = {ending: _names(masks, ending) for ending in (_IDS, _TRAIN_IDS)}
    ending = next((ending for ending, names in found.items() if names), None)
    if ending is None:
        raise DatasetError(f"{masks}: no masks: wanted CITY/*{_IDS} or CITY/*{_TRAIN_IDS}")
    names = _names(photos, _PHOTO)
    if orphans := sorted(set(found[ending]) - set(names)):
        raise DatasetError(f"{masks}: {len(orphans)} masks have no photo, the first is {orphans[0]}{ending}")
    labels = CITYSCAPES_IDS if ending == _IDS else CITYSCAPES
    return Dataset(f"cityscapes-{split}", names, FileReader(photos, masks, _PHOTO, ending), labels)


def _names(directory: Path, ending: str) -> tuple[str, ...]:
    """Return ``CITY/NAME`` for each file of an ending, sorted."""
    files = (file for file in directory.glob(f"*/[!.]*{ending}") if file.is_file())
    return tuple(sorted(one_spelling(f"{file.parent.name}/{file.name.removesuffix(ending)}") for file in files))
