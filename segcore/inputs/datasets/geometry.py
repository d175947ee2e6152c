"""Draw COCO's polygons and run lengths, after a check: pycocotools draws damaged ones from memory it does not own."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segcore.core.errors import DatasetError
from segcore.core.labels import ClassMap, class_map_dtype

MAX_OUTLINE = 1_000_000
"""Limit of coordinates, and of the length of an annotation's outline, pixels: pycocotools takes 100 bytes for each."""
_MIN_POLYGON = 6
"""Coordinates of a triangle; pycocotools takes four numbers for a box."""
_MAX_DIGITS = 7
"""Limit of the digits of five bits that a compressed run has: 2**35 pixels."""

Region = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Instance:
    """One object: its category, and its outline in COCO's format (polygons or run lengths), not checked yet."""

    id: Any
    category: int
    segmentation: Any


def draw_mask(
    name: str, instances: Iterable[Instance], height: int, width: int, values: tuple[int, ...], overlap: int
) -> ClassMap:
    """Return the class mask of one image, uint8 (height, width), or uint16 if a value needs it.

    `values` are those of the categories; what has the value of category 0, the background, is not drawn. `overlap` is
    where two instances overlap. DatasetError names the image and the annotation that cannot be drawn.
    """
    mask = np.full((height, width), values[0], dtype=class_map_dtype(max(overlap, *values) + 1))
    covered = np.zeros((height, width), dtype=bool)
    for instance in instances:
        value = values[instance.category]
        if value == values[0]:
            continue
        try:
            inside = _region(instance.segmentation, height, width)
        except ValueError as error:
            raise DatasetError(f"{name}: annotation {shown(instance.id)} cannot be drawn: {error}") from None
        mask[inside] = np.where(covered[inside], overlap, value)
        covered |= inside
    return mask


def _region(segmentation: Any, height: int, width: int) -> Region:
    """Return the pixels inside; raise a ValueError if there is anything wrong with them."""
    if isinstance(segmentation, dict):
        size, counts = segmentation.get("size"), segmentation.get("counts")
        if size != [height, width]:
            raise ValueError(f"its run lengths are of an image of height and width {shown(size)}, not {height, width}")
        return _fill(counts if isinstance(counts, list) else list(_decompress(counts)), height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError(f"wanted polygons or run lengths, found {shown(segmentation)}")
    if sum(map(_outline, segmentation)) > MAX_OUTLINE:
        raise ValueError(f"its polygons are longer than {MAX_OUTLINE:,} pixels")
    if all(_is_outside(polygon, height, width) for polygon in segmentation):
        raise ValueError(f"wanted a polygon in the image of {width}x{height} pixels, found {shown(segmentation)}")

    from pycocotools import mask as coco_mask

    drawn = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    inside: Region = coco_mask.decode(drawn).astype(bool)
    return inside


def _outline(polygon: Any) -> float:
    """Return the length of a polygon, the larger of width and height of each edge; raise a ValueError if it is none."""
    if not isinstance(polygon, list) or len(polygon) < _MIN_POLYGON or len(polygon) % 2:
        raise ValueError(f"wanted a polygon of three points or more, x and y of each, found {shown(polygon)}")
    for value in polygon:
        if type(value) not in (int, float) or not abs(value) <= MAX_OUTLINE:
            raise ValueError(f"wanted coordinates up to {MAX_OUTLINE:,}, found {shown(value)}")
    points = np.array(polygon, dtype=np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _is_outside(polygon: list[float], height: int, width: int) -> bool:
    x, y = polygon[::2], polygon[1::2]
    return max(x) < 0 or min(x) > width or max(y) < 0 or min(y) > height


def _fill(runs: list[Any], height: int, width: int) -> Region:
    """Return the pixels of the second, fourth, sixth run and so on, which go down the columns."""
    pixels = height * width
    for run in runs:
        if type(run) not in (int, float) or not 0 <= run <= pixels or run != int(run):
            raise ValueError(f"wanted run lengths from 0 to {pixels}, found {shown(run)}")
    if sum(runs) != pixels:
        raise ValueError(f"its run lengths add up to {sum(runs)} pixels, the image has {pixels}")
    inside: Region = np.repeat(np.arange(len(runs)) % 2 == 1, np.array(runs, dtype=np.int64))
    return inside.reshape(width, height).T


def _decompress(counts: Any) -> Iterator[int]:
    """Yield the run lengths in the text that pycocotools makes of them (``rleFrString`` in its ``maskApi.c``).

    Digits have five bits, the lowest first, and a sixth in all but the last; from the fourth on, a run is given as its
    difference to the one before the last.
    """
    if not isinstance(counts, str):
        raise ValueError(f"wanted run lengths, as a list or as text, found {shown(counts)}")
    before_last, last, number = 0, 0, 0
    value = digits = 0
    for character in counts:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or digits == _MAX_DIGITS:
            raise ValueError(f"its run lengths are damaged: found {shown(counts)}")
        value |= (digit & 0x1F) << 5 * digits
        digits += 1
        if digit & 0x20:
            continue
        if digit & 0x10:
            value -= 1 << 5 * digits
        value += before_last if number > 2 else 0
        yield value
        before_last, last, number = last, value, number + 1
        value = digits = 0
    if digits:
        raise ValueError(f"its run lengths are cut off: found {shown(counts)}")


def shown(value: object) -> str:
    """Return a value of a JSON file for a message, shortened if it is long."""
    return reprlib.repr(value)
