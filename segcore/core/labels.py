"""The 21 PASCAL VOC classes: names, aliases and the colour palette.

Names and their order are those of the VOC 2012 development kit
(http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html), the palette is its ``VOCcolormap``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from segcore.core.errors import UsageError, nearest_hint

VOC_CLASSES: tuple[str, ...] = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
NUM_CLASSES = len(VOC_CLASSES)
IGNORE_INDEX = 255
"""Pixels of a ground-truth mask with this value are not scored (VOC's void border)."""

ALIASES: dict[str, str] = {
    "airplane": "aeroplane",
    "plane": "aeroplane",
    "bike": "bicycle",
    "couch": "sofa",
    "dining table": "diningtable",
    "table": "diningtable",
    "motorcycle": "motorbike",
    "people": "person",
    "human": "person",
    "plant": "pottedplant",
    "potted plant": "pottedplant",
    "television": "tvmonitor",
    "tv": "tvmonitor",
    "tv/monitor": "tvmonitor",
    "monitor": "tvmonitor",
}


def voc_colormap(n: int = 256) -> npt.NDArray[np.uint8]:
    """Return the VOC colour map as uint8 RGB, shape (n, 3).

    Bits 0, 1, 2 of the index go to the top bits of R, G, B, then bits 3, 4, 5 to the next, and so on: the
    ``VOCcolormap`` function of the VOC development kit.
    """
    index = np.arange(n)
    colours = np.zeros((n, 3), dtype=np.uint8)
    for shift in range(8):
        for channel in range(3):
            colours[:, channel] |= ((index >> (3 * shift + channel) & 1) << (7 - shift)).astype(np.uint8)
    return colours


VOC_PALETTE: npt.NDArray[np.uint8] = voc_colormap(NUM_CLASSES)
"""RGB colours of the 21 classes, uint8, shape (21, 3)."""
VOC_PALETTE.setflags(write=False)


def class_index(name: str | int) -> int:
    """Return the class index (0 to 20) for a VOC name, a common alias or an index.

    Raises:
        UsageError: the name or index is not one of the 21 classes.
    """
    if isinstance(name, bool) or (isinstance(name, int) and not 0 <= name < NUM_CLASSES):
        raise UsageError(f"class {name!r} is not a VOC class: expected an index from 0 to {NUM_CLASSES - 1} or a name")
    if isinstance(name, int):
        return name
    key = name.strip().lower()
    key = ALIASES.get(key, key)
    if key.isdecimal() and key.isascii():
        return class_index(int(key))
    if key not in VOC_CLASSES:
        hint = nearest_hint(key, [*VOC_CLASSES, *ALIASES])
        raise UsageError(f"unknown class {name!r}{hint}; the VOC classes are {', '.join(VOC_CLASSES)}")
    return VOC_CLASSES.index(key)
