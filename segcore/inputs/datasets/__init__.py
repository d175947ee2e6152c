"""Datasets of photos with class masks; masks are read when they are needed."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from segcore.core.errors import DatasetError, UsageError, nearest_hint
from segcore.core.labels import CITYSCAPES_IDS, LabelSet
from segcore.core.text import listed
from segcore.inputs.datasets.cityscapes import open_cityscapes
from segcore.inputs.datasets.coco import CocoReader, open_coco
from segcore.inputs.datasets.geometry import shown
from segcore.inputs.datasets.label_map import LabelMap, default_map, read_label_map
from segcore.inputs.datasets.masks import mask_reader
from segcore.inputs.datasets.pairs import Dataset as Dataset
from segcore.inputs.datasets.pairs import FileReader, open_folder, open_voc
from segcore.inputs.model_files.spec import read_labels_of

_LEAVES = re.compile(r"^[/\\]|^[A-Za-z]:[/\\]|(^|[/\\])\.\.([/\\]|$)|\0")
"""Finds a name that leads out of the directory that it is looked up in, on any system."""
LAYOUTS = {"voc": open_voc, "coco": open_coco, "cityscapes": open_cityscapes, "folder": open_folder}


def open_dataset(
    layout: str,
    root: str | Path,
    split: str | None = None,
    *,
    labels: LabelSet | str | None = None,
    masks: str = "indices",
    label_map: str | Path | None = None,
) -> Dataset:
    """List the pairs of a dataset on disk.

    Args:
        layout: ``voc`` (VOCdevkit/VOC2012), ``coco`` (images and ``annotations/instances_*.json``), ``cityscapes``
            (``leftImg8bit/`` and ``gtFine/``) or ``folder`` (``images/`` and ``masks/`` with files of equal stems).
        root: its directory.
        split: ``val`` if None; for ``folder`` a subdirectory of the root, or the root itself if None.
        labels: classes of the masks: a label set, its name (also ``cityscapes-ids``) or a file of labels. None for
            those of the layout, and for ``folder`` those of the model.
        masks: how ``voc`` and ``folder`` store them: as ``indices``, as ``colours`` of the labels, or ``binary``.
        label_map: file that says what the classes count as for a model with others.

    Raises:
        UsageError: there is no such layout, or an option does not go with it.
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
    if leaving := next(filter(_LEAVES.search, dataset.names), None):
        raise DatasetError(f"{root}: {dataset.name} lists {shown(leaving)}, outside its directory of photos: rename it")
    name, count = Counter(dataset.names).most_common(1)[0]
    if count > 1:
        raise DatasetError(f"{root}: {dataset.name} lists {name} more than once: wanted each image once")
    dataset = replace(dataset, map_file=None if label_map is None else Path(label_map))
    return _with_masks(dataset, layout, labels, masks)


def _with_masks(dataset: Dataset, layout: str, labels: LabelSet | str | None, masks: str) -> Dataset:
    """Return the dataset with what a user says of its masks."""
    if labels is None and masks == "indices":
        return dataset
    if layout in ("coco", "cityscapes"):
        what = "--labels" if labels is not None else "--masks"
        raise UsageError(f"{what} does not go with the layout {layout}, whose files say what their masks are")
    if isinstance(labels, str):
        labels = CITYSCAPES_IDS if labels == CITYSCAPES_IDS.name else read_labels_of(labels)
    labels = labels or dataset.labels
    assert isinstance(dataset.reader, FileReader)
    said = f"{masks} of {labels.name} (sha256 {labels.digest[:12]})" if labels else masks
    reader = replace(dataset.reader, read_mask=mask_reader(masks, labels))
    return replace(dataset, labels=labels, reader=reader, masks=said)


def fit(dataset: Dataset, target: LabelSet) -> Dataset:
    """Return the dataset with its masks in the classes of a model.

    UsageError if neither names nor a file say what its classes count as, or if all of them are background.
    """
    found = dataset.label_map
    if dataset.map_file is None and found is not None and found.target.digest == target.digest:
        _check_foreground(found)
        return dataset
    source, file = dataset.labels or target, dataset.map_file
    if file is None and found is None and source.digest == target.digest:
        return dataset
    label_map = default_map(source, target) if file is None else read_label_map(file, source, target)
    _check_foreground(label_map)
    assert isinstance(dataset.reader, FileReader | CocoReader)
    return replace(dataset, label_map=label_map, map_file=None, reader=replace(dataset.reader, label_map=label_map))


def _check_foreground(label_map: LabelMap) -> None:
    """Refuse a map that makes everything background: a model that finds nothing would be perfect."""
    if label_map.judged <= {label_map.target.background}:
        named = listed(label_map.source.names, 8)
        raise UsageError(
            f"no class of {label_map.source.name} ({named}) is one of {label_map.target.name} except the background: "
            "say by --map what they count as, or score another model"
        )
