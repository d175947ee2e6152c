"""Label sets: the classes that a model tells apart, with their names, colours and indices.

Sources of the constants:

- `VOC`: names and order of the VOC 2012 development kit
  (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/htmldoc/devkit_doc.html), colours of its ``VOCcolormap``.
- `CITYSCAPES`: the 19 train ids of ``cityscapesscripts/helpers/labels.py`` (github.com/mcordts/cityscapesScripts);
  `CITYSCAPES_IDS`: the 34 ids of its label files. The 35th label, ``license plate``, has the id -1.
- `ADE20K`: the 150 classes of the scene parsing challenge, named by the first word of each in its
  ``objectInfo150.txt``; colours of mmsegmentation. Index 0 is ``wall``: labels reduced by one, 255 not scored.
- `COCO_STUFF`: the 171 classes that COCO-Stuff 164k has pixels of (80 things, then 91 stuff; 11 of the 182 ids of its
  ``labels.txt`` never occur), numbered without gaps as in mmsegmentation. The set has no published RGB palette, and
  that of mmsegmentation paints persons like bicycles: colours are those of the VOC colour map.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from segcore.core.errors import UsageError, nearest_hint
from segcore.core.text import listed

MAX_CLASSES = 65_535
"""Most classes of a label set: 16 bits, less one value for pixels that are not scored."""
MAX_NAME = 100
"""Most characters of the name of a class or of a label set."""
VOID_COLOR = (224, 224, 192)
"""Colour of pixels that are not scored: that of 255 in the VOC colour map."""
_BY_DEFAULT = -1

Color = tuple[int, int, int]
ClassMap = npt.NDArray[np.unsignedinteger[Any]]
"""Indices of classes, uint8 or uint16 (H, W)."""


def class_map_dtype(count: int) -> np.dtype[np.unsignedinteger[Any]]:
    """Return the type of maps of so many classes: uint8 up to 256, else uint16."""
    return np.dtype(np.uint8 if count <= 256 else np.uint16)


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


@dataclass(frozen=True)
class LabelSet:
    """The classes of a model: index i is channel i of its logits, and value i of its class maps.

    Raises:
        UsageError: there are no classes or too many, names, colours, aliases or indices contradict each other.
    """

    name: str
    """Of the label set, such as ``voc``; two sets with the same `digest` are the same whatever they are called."""
    names: tuple[str, ...]
    """Of the classes, 1 to 65,535, each once; letter case does not tell them apart."""
    colors: tuple[Color, ...] = ()
    """RGB of each class, 0 to 255; if empty, the VOC colour map is used, with black only for the background."""
    aliases: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Names of classes by other names for them, in lower case."""
    background: int | None = None
    """Index of the class that is painted transparent and never dominant; None if every class is one to look for."""
    ignore: int | None = _BY_DEFAULT
    """Value of pixels of a ground-truth mask that are not scored, None if all are; 255 by default, or 65,535 if a class
    has index 255."""

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the fields of a frozen dataclass are set in no other way
        count = len(self.names)
        if self.ignore == _BY_DEFAULT:
            set_field(self, "ignore", 255 if count <= 255 else MAX_CLASSES)
        if not self.colors:
            colours = voc_colormap(count + 1)[1:]
            if self.background is not None:  # is black
                others = colours[:-1]
                colours = np.insert(others, min(max(self.background, 0), len(others)), 0, axis=0)
            set_field(self, "colors", tuple(map(tuple, colours.tolist())))
        aliases = {alias.strip().lower(): name for alias, name in self.aliases.items()}
        set_field(self, "aliases", aliases)
        if problem := _problem(self):
            raise UsageError(f"label set {self.name!r}: {problem}")

    def __len__(self) -> int:
        """Return the number of classes."""
        return len(self.names)

    def find(self, name: str | int) -> int | None:
        """Return the index of a class by name, alias or index (also as text); None if there is no such class."""
        if isinstance(name, bool):
            return None
        if isinstance(name, int):
            return name if 0 <= name < len(self.names) else None
        key = name.strip().lower()
        if key in self._indices:
            return self._indices[key]
        return self.find(int(key)) if key.isdecimal() and key.isascii() and len(key) <= 5 else None

    def index(self, name: str | int) -> int:
        """Return the index of a class by name, alias or index (also as text); UsageError names the nearest class."""
        found = self.find(name)
        if found is not None:
            return found
        if not isinstance(name, str) or (name.strip().isdecimal() and name.strip().isascii()):
            wanted = f"an index from 0 to {len(self.names) - 1} or a name"
            raise UsageError(f"class {name!r} is not a class of {self.name}: expected {wanted}")
        hint = nearest_hint(name.strip(), self._indices)
        classes = listed(self.names, _MOST_LISTED)
        raise UsageError(f"unknown class {name!r}{hint}; the classes of {self.name} are {classes}")

    @cached_property
    def _indices(self) -> dict[str, int]:
        """Index by name and by alias, in lower case."""
        names = {name.lower(): index for index, name in enumerate(self.names)}
        return {alias: names[name.lower()] for alias, name in self.aliases.items()} | names

    @property
    def background_name(self) -> str | None:
        """Name of the background class, None if there is none."""
        return None if self.background is None else self.names[self.background]

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Type of class maps: see `class_map_dtype`."""
        return class_map_dtype(len(self.names))

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """RGB of the classes, uint8 (n, 3), read-only."""
        colours = np.array(self.colors, dtype=np.uint8)
        colours.setflags(write=False)
        return colours

    @cached_property
    def lookup(self) -> npt.NDArray[np.uint8]:
        """RGB by value of a class map, uint8 (256, 3) or (65536, 3), read-only: classes, `VOID_COLOR`, else black."""
        narrow = self.dtype == np.uint8 and (self.ignore is None or self.ignore < 256)
        colours = np.zeros((256 if narrow else 65_536, 3), dtype=np.uint8)
        colours[: len(self.names)] = self.palette
        if self.ignore is not None:
            colours[self.ignore] = VOID_COLOR
        colours.setflags(write=False)
        return colours

    @cached_property
    def digest(self) -> str:
        """SHA-256, as hex digits, of what figures depend on: names in their order, background and ignore."""
        content = json.dumps([list(self.names), self.background, self.ignore], ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """Return only the fields: tables are made again where they are needed."""
        return {name: self.__dict__[name] for name in self.__dataclass_fields__}


_MOST_LISTED = 25


def _problem(labels: LabelSet) -> str:
    """Return the first thing that is wrong with a label set; empty if nothing is."""
    count = len(labels.names)
    if not 1 <= count <= MAX_CLASSES:
        return f"has {count} classes, wanted 1 to {MAX_CLASSES:,}"
    for text in (labels.name, *labels.names, *labels.aliases):
        if not text.isprintable() or text != text.strip() or not 1 <= len(text) <= MAX_NAME:
            return f"the name {text[: MAX_NAME + 1]!r} is not 1 to {MAX_NAME} printable characters without outer spaces"
    first: dict[str, int] = {}
    for index, name in enumerate(labels.names):
        if first.setdefault(name.lower(), index) != index:
            return f"classes {first[name.lower()]} and {index} are both named {name!r}: wanted each name once"
    for alias, name in labels.aliases.items():
        if name.lower() not in first:
            return f"the alias {alias!r} is for {name!r}, which is not a class{nearest_hint(name, first)}"
        if first.get(alias, first[name.lower()]) != first[name.lower()]:
            return f"the alias {alias!r} of {name!r} is the name of another class"
    if len(labels.colors) != count:
        return f"has {len(labels.colors)} colours for {count} classes"
    for color in labels.colors:
        if len(color) != 3 or not all(isinstance(part, int) and 0 <= part <= 255 for part in color):
            return f"the colour {color} is not three whole numbers from 0 to 255"
    if labels.background is not None and not 0 <= labels.background < count:
        return f"the background is class {labels.background}, wanted an index from 0 to {count - 1}, or none"
    if labels.ignore is not None and not count <= labels.ignore <= MAX_CLASSES:
        return f"ignore is {labels.ignore}, wanted a value from {count} to {MAX_CLASSES:,}, which no class has, or none"
    return ""


def background_of(names: Iterable[str]) -> int | None:
    """Return the index of the class that is called background, None if there is none."""
    return next((index for index, name in enumerate(names) if name.strip().lower() == "background"), None)


def numbered(count: int) -> LabelSet:
    """Return ``class 0``, ``class 1``, ...: the labels of a model that does not say what its classes are."""
    return LabelSet(f"numbered-{count}", tuple(f"class {index}" for index in range(count)))


def _read_table(name: str, table: dict[str, Any]) -> LabelSet:
    colors: Any = tuple(tuple(bytes.fromhex(color)) for color in table.pop("colors"))
    return LabelSet(name, tuple(table.pop("names")), colors, **table)


_TABLES = json.loads(resources.files("segcore.core").joinpath("label_sets.json").read_text(encoding="utf-8"))
LABEL_SETS = {name: _read_table(name, table) for name, table in _TABLES.items()}
"""The label sets that have a name: ``voc``, ``cityscapes``, ``ade20k`` and ``coco-stuff``."""
CITYSCAPES_IDS = LABEL_SETS.pop("cityscapes-ids")  # only of masks: no model tells these apart
VOC = LABEL_SETS["voc"]
CITYSCAPES = LABEL_SETS["cityscapes"]
ADE20K = LABEL_SETS["ade20k"]
COCO_STUFF = LABEL_SETS["coco-stuff"]
VOC_CLASSES = VOC.names
VOC_PALETTE = VOC.palette
NUM_CLASSES = len(VOC)
IGNORE_INDEX = 255
"""Pixels of a ground-truth mask with this value are not scored (VOC's void border)."""


def label_set(name: str) -> LabelSet:
    """Return a label set of `LABEL_SETS` by name; UsageError names the nearest."""
    if name.strip().lower() not in LABEL_SETS:
        hint = nearest_hint(name, LABEL_SETS)
        raise UsageError(f"unknown label set {name!r}{hint}; known: {', '.join(LABEL_SETS)}, or a list of names")
    return LABEL_SETS[name.strip().lower()]
