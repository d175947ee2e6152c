"""Masks in files: as indices of classes, as their colours, or as black and white."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segcore.core.errors import ImageError, UsageError, nearest_hint
from segcore.core.image_files import exif_orientation, load_indices, open_image
from segcore.core.labels import VOID_COLOR, ClassMap, Color, LabelSet, class_map_dtype
from segcore.core.text import listed
from segcore.inputs.images import MaskReader, Pixels

MASKS = ("indices", "colours", "binary")
_MOST_NAMED = 5
_WHITE = 255


def mask_reader(kind: str, labels: LabelSet | None) -> MaskReader:
    """Return what reads masks of a kind of `MASKS`; UsageError if there is none, or the labels do not fit it."""
    if kind not in MASKS:
        raise UsageError(f"unknown kind of masks {kind!r}{nearest_hint(kind, MASKS)}; known: {', '.join(MASKS)}")
    if kind == "indices":
        return load_indices
    if labels is None:
        raise UsageError(f"masks as {kind} need the labels of the dataset: --labels NAME or FILE")
    if kind == "binary":
        if len(labels) != 2:
            raise UsageError(
                f"binary masks are of two classes, the labels {labels.name!r} have {len(labels)}: name the two by "
                "--labels, and what they count as by --map"
            )
        return _load_binary
    first: dict[Color, str] = {}
    for name, color in zip(labels.names, labels.colors, strict=True):
        if first.setdefault(color, name) != name:
            raise UsageError(
                f"labels {labels.name!r}: {first[color]} and {name} both have the colour {_hex(color)}, which cannot "
                "be told apart in masks of colours: give one another colour"
            )
    return partial(_load_colours, labels)


def _load_colours(labels: LabelSet, path: Path) -> tuple[ClassMap, int]:
    """Return the indices of classes in a mask of their colours, and its orientation; `VOID_COLOR` is not scored."""
    with open_image(path, ("PNG",)) as image:
        pixels = np.asarray(image.convert("RGB"))
        orientation = exif_orientation(image)
    values = {} if labels.ignore is None else {VOID_COLOR: labels.ignore}
    values |= {color: index for index, color in enumerate(labels.colors)}
    known = _codes(np.array(list(values), dtype=np.uint8))
    order = np.argsort(known)
    codes = _codes(pixels)
    places = order[np.minimum(np.searchsorted(known, codes, sorter=order), len(order) - 1)]
    fits = known[places] == codes
    if not fits.all():
        raise ImageError(f"{path}: {_unknown(pixels[~fits], labels)}")
    return np.array(list(values.values()), dtype=class_map_dtype(max(values.values()) + 1))[places], orientation


def _unknown(pixels: Pixels, labels: LabelSet) -> str:
    """Return which colours no class has, the commonest first, each with the nearest class."""
    found, counts = np.unique(pixels, axis=0, return_counts=True)
    named = []
    for i in np.argsort(-counts, kind="stable")[:_MOST_NAMED]:
        index = int(np.abs(np.array(labels.colors) - found[i]).sum(axis=1).argmin())
        nearest = f"{labels.names[index]}, {_hex(labels.colors[index])}"
        named.append(f"{_hex(found[i])} ({counts[i]} pixels, the nearest is {nearest})")
    more = f" and {len(found) - len(named)} others" * (len(found) > len(named))
    return f"has {len(found)} colours that no class of {labels.name} has: {', '.join(named)}{more}"


def _load_binary(path: Path) -> tuple[ClassMap, int]:
    """Return the indices in a mask of two classes, 0 and 255, and its orientation."""
    with open_image(path, ("PNG",)) as image:
        if image.mode not in ("1", "L"):
            raise ImageError(f"wanted a black and white PNG, found mode {image.mode}")
        pixels, orientation = np.array(image.convert("L")), exif_orientation(image)
    white = pixels == _WHITE
    others = np.unique(pixels[(pixels != 0) & ~white])
    if others.size:
        found = listed(others, _MOST_NAMED)
        raise ImageError(f"{path}: a binary mask has the values 0 and {_WHITE}, found also {found}")
    return white.astype(np.uint8), orientation


def _codes(colors: Pixels) -> npt.NDArray[np.uint32]:
    """Return colours, (..., 3), as numbers 0xRRGGBB."""
    codes: npt.NDArray[np.uint32] = colors.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    return codes


def _hex(color: Color | Pixels) -> str:
    return "#" + bytes(color).hex()
