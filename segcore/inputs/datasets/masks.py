"""Masks in files: as indices of classes, as their colours, or as black and white."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segcore.core.errors import ImageError, UsageError, nearest_hint
from segcore.core.image_files import exif_orientation, load_indices, open_image
from segcore.core.labels import VOID_COLOR, ClassMap, Color, LabelSet, class_map_dtype
from segcore.core.text import listed
from segcore.inputs.images import MaskReader

MASKS = ("indices", "colours", "binary")
_MOST_NAMED = 5
_WHITE = 255


def mask_reader(kind: str, labels: LabelSet | None) -> MaskReader:
    """Return what reads masks of a kind of `MASKS`; all but indices need the classes of the dataset.

    Raises:
        UsageError: there is no such kind, or the labels do not fit it.
    """
    if kind not in MASKS:
        raise UsageError(f"unknown kind of masks {kind!r}{nearest_hint(kind, MASKS)}; known: {', '.join(MASKS)}")
    if kind == "indices":
        return load_indices
    if labels is None:
        raise UsageError(f"masks as {kind} need the labels of the dataset: --labels NAME or FILE")
    return ColourMasks(labels) if kind == "colours" else BinaryMasks(labels)


@dataclass(frozen=True)
class ColourMasks:
    """Reads masks whose pixels have the colours of a label set; `VOID_COLOR` is not scored."""

    labels: LabelSet

    def __post_init__(self) -> None:
        first: dict[Color, str] = {}
        for name, color in zip(self.labels.names, self.labels.colors, strict=True):
            if first.setdefault(color, name) != name:
                raise UsageError(
                    f"labels {self.labels.name!r}: {first[color]} and {name} both have the colour {_hex(color)}, "
                    "which cannot be told apart in masks of colours: give one another colour"
                )

    def __call__(self, path: Path) -> tuple[ClassMap, int]:
        """Return the class indices and the orientation; ImageError names colours that no class has."""
        with open_image(path, ("PNG",)) as image:
            pixels = np.asarray(image.convert("RGB"))
            orientation = exif_orientation(image)
        codes = _codes(pixels)
        known, values = self._table()
        places = np.minimum(np.searchsorted(known, codes), len(known) - 1)
        fits = known[places] == codes
        if not fits.all():
            raise ImageError(f"{path}: {self._unknown(pixels[~fits])}")
        return values[places], orientation

    def _table(self) -> tuple[npt.NDArray[np.uint32], ClassMap]:
        """Return the codes of the known colours, ascending, and the value of each."""
        values = {} if self.labels.ignore is None else {VOID_COLOR: self.labels.ignore}
        values |= {color: index for index, color in enumerate(self.labels.colors)}
        codes = _codes(np.array(list(values), dtype=np.uint8))
        order = np.argsort(codes)
        indices = np.array(list(values.values()), dtype=class_map_dtype(max(values.values()) + 1))
        return codes[order], indices[order]

    def _unknown(self, pixels: npt.NDArray[np.uint8]) -> str:
        found, counts = np.unique(pixels, axis=0, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_MOST_NAMED]
        named = [f"{_hex(found[i])} ({counts[i]} pixels, {self._nearest(found[i])})" for i in order]
        more = f" and {len(found) - len(named)} others" * (len(found) > len(named))
        return f"has {len(found)} colours that no class of {self.labels.name} has: {', '.join(named)}{more}"

    def _nearest(self, color: npt.NDArray[np.uint8]) -> str:
        index = int(np.abs(np.array(self.labels.colors) - color).sum(axis=1).argmin())
        return f"the nearest is {self.labels.names[index]}, {_hex(self.labels.colors[index])}"


@dataclass(frozen=True)
class BinaryMasks:
    """Reads masks of two classes: 0 is the first, 255 the second."""

    labels: LabelSet

    def __post_init__(self) -> None:
        if len(self.labels) != 2:
            raise UsageError(
                f"binary masks are of two classes, the labels {self.labels.name!r} have {len(self.labels)}: name the "
                "two by --labels, and what they count as by --map"
            )

    def __call__(self, path: Path) -> tuple[ClassMap, int]:
        """Return the class indices and the orientation; ImageError names other values."""
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


def _codes(colors: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
    """Return colours, (..., 3), as numbers 0xRRGGBB."""
    codes: npt.NDArray[np.uint32] = colors.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    return codes


def _hex(color: Color | npt.NDArray[np.uint8]) -> str:
    return "#" + bytes(color).hex()
