"""Cityscapes: ``leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`` and ``gtFine/SPLIT/CITY/*_gtFine_labelIds.png``.

Names, ids, train ids and colours are those of ``cityscapesscripts/helpers/labels.py``
(github.com/mcordts/cityscapesScripts). If a split has ``*_gtFine_labelTrainIds.png`` alone, those are read.
"""

from __future__ import annotations

from pathlib import Path

from segcore.core.errors import DatasetError
from segcore.core.labels import CITYSCAPES, LabelSet
from segcore.inputs.datasets.pairs import Dataset, FileReader, one_spelling

_PHOTO = "_leftImg8bit.png"
_IDS, _TRAIN_IDS = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
_UNSCORED = {
    0: ("unlabeled", (0, 0, 0)),
    1: ("ego vehicle", (0, 0, 0)),
    2: ("rectification border", (0, 0, 0)),
    3: ("out of roi", (0, 0, 0)),
    4: ("static", (0, 0, 0)),
    5: ("dynamic", (111, 74, 0)),
    6: ("ground", (81, 0, 81)),
    9: ("parking", (250, 170, 160)),
    10: ("rail track", (230, 150, 140)),
    14: ("guard rail", (180, 165, 180)),
    15: ("bridge", (150, 100, 100)),
    16: ("tunnel", (150, 120, 90)),
    18: ("polegroup", (153, 153, 153)),
    29: ("caravan", (0, 0, 90)),
    30: ("trailer", (0, 0, 110)),
}
"""Names and colours of the ids that have no train id. The 35th label, ``license plate``, has the id -1, which is in no
8-bit mask but as 255."""
_COUNT = 34


def _train_ids() -> tuple[int | None, ...]:
    """Return the train id of each id: those of the evaluated classes count up."""
    ids = [index for index in range(_COUNT) if index not in _UNSCORED]
    return tuple(ids.index(index) if index in ids else None for index in range(_COUNT))


TRAIN_IDS = _train_ids()
"""By id; None for classes that are not scored."""


def _all_labels() -> LabelSet:
    names, colors = [], []
    for index, train_id in enumerate(TRAIN_IDS):
        name, color = (
            _UNSCORED[index] if train_id is None else (CITYSCAPES.names[train_id], CITYSCAPES.colors[train_id])
        )
        names.append(name)
        colors.append(color)
    return LabelSet("cityscapes-ids", tuple(names), tuple(colors), CITYSCAPES.aliases)


CITYSCAPES_IDS = _all_labels()
"""The 34 classes that label ids stand for."""


KNOWN_MAPS = {(CITYSCAPES_IDS.digest, CITYSCAPES.digest): TRAIN_IDS}
"""Maps that need no file, by the digests of the dataset's and the model's labels."""


def open_cityscapes(root: Path, split: str | None) -> Dataset:
    """List the pairs of a split (``val`` if None), by the names of city and photo.

    Raises:
        DatasetError: a directory is missing, the masks are neither of ids nor of train ids, or one has no photo.
    """
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
