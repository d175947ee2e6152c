"""Datasets of photos with class masks; masks are read when they are needed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from segcore.core.errors import DatasetError, UsageError, nearest_hint
from segcore.inputs.datasets.coco import open_coco
from segcore.inputs.datasets.pairs import Dataset, Reader, open_folder, open_voc

__all__ = ["LAYOUTS", "Dataset", "Reader", "open_dataset"]

LAYOUTS = {"voc": open_voc, "coco": open_coco, "folder": open_folder}


def open_dataset(layout: str, root: str | Path, split: str | None = None) -> Dataset:
    """List the pairs of a dataset on disk.

    Args:
        layout: ``voc`` (VOCdevkit/VOC2012), ``coco`` (images and ``annotations/instances_*.json``) or ``folder``
            (``images/`` and ``masks/`` with files of equal stems).
        root: its directory.
        split: ``val`` if None; for ``folder`` a subdirectory of the root, or the root itself if None.

    Raises:
        UsageError: there is no such layout.
        DatasetError: the root cannot be read or does not have this layout, or the split is empty or names an image
            twice.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"unknown dataset {layout!r}{nearest_hint(layout, LAYOUTS)}; known: {', '.join(LAYOUTS)}")
    try:
        if not Path(root).is_dir():
            raise DatasetError(f"{root}: no such directory; wanted the root of a dataset laid out like {layout}")
        dataset = LAYOUTS[layout](Path(root), split)
    except OSError as error:
        raise DatasetError(f"{error.filename or root}: cannot be read: {error.strerror}") from None
    if not dataset.names:
        raise DatasetError(f"{root}: {dataset.name} lists no images")
    name, count = Counter(dataset.names).most_common(1)[0]
    if count > 1:
        raise DatasetError(f"{root}: {dataset.name} lists {name} more than once: wanted each image once")
    return dataset
