"""What the metadata of model files means, in the words of those who write it.

- OpenVINO's Model API (``model_info`` in OpenVINO files; the same keys in ONNX files, with and without that prefix):
  https://github.com/openvinotoolkit/model_api/blob/master/docs/source/guides/model-configuration.md
- Windows ML (``Image.*``): https://github.com/onnx/onnx/blob/main/docs/MetadataProps.md
- Names of classes as Ultralytics and others write them: ``names``, ``classes``, ``class_names``.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from segcore.core.model_spec import Colour

PIXEL_FORMATS: dict[str, Colour] = {"rgb8": "rgb", "rgba8": "rgb", "bgr8": "bgr", "bgra8": "bgr", "gray8": "grey"}
RANGES = {
    "nominalrange_0_255": (1.0, 0.0, 1.0),
    "normalized_0_1": (1 / 255, 0.0, 1.0),
    "normalized_1_1": (1 / 127.5, 1.0, 1.0),
}
"""Scale, mean and deviation by nominal pixel range."""
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
FIT = {"standard": "fixed", "fit_to_window": "longer", "fit_to_window_letterbox": "letterbox"}
"""Kinds of resizing of the Model API: ``fit_to_window`` fills at the bottom and on the right."""


@dataclass(frozen=True)
class Metadata:
    """The understood part; None where it says nothing."""

    labels: tuple[str, ...] = ()
    colour: Colour | None = None
    reversed_channels: bool | None = None
    """As the Model API has it: photos are BGR, and go in as RGB if this is true."""
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: str | None = None
    """Kind of a `Resize`."""
    fill: float | None = None
    threshold: float | None = None
    embedded: bool = False
    """Whether resizing and normalising are part of the graph."""
    understood: Mapping[str, str] = field(default_factory=dict)


def read_metadata(entries: Mapping[str, str]) -> Metadata:
    """Return what entries mean; those that are unknown or make no sense are left out."""
    keys = {key.rpartition(" ")[2].lower(): key for key in entries}
    found: dict[str, Any] = {}
    used: dict[str, str] = {}
    for plain, (name, meaning) in _MEANINGS.items():
        key = keys.get(plain, "")
        value = meaning(entries.get(key, "").strip())
        if value not in (None, ()) and name not in found:
            found[name], used[key] = value, entries[key]
    scale, mean, std = found.pop("range", (None, 0.0, 1.0))
    if "mean" in found or "std" in found:
        found["scale"] = 1.0  # these are of values from 0 to 255
    elif scale is not None:
        found |= {"scale": scale, "mean": (mean,), "std": (std,)}
    return Metadata(**found, understood=used)


def read_numbers(text: str) -> tuple[float, ...]:
    """Return the numbers of a text such as ``1.5 2`` or ``[1.5, 2]``; none if anything else is in it."""
    try:
        numbers = tuple(float(part) for part in re.split(r"[\s,]+", text.strip().strip("[]()").strip()) if part)
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()


def read_names(text: str) -> tuple[str, ...]:
    """Return the names of classes in a text: a list, a mapping from indices, lines, or words separated by commas.

    Empty if indices are missing or a name is empty or occurs twice.
    """
    names: Sequence[object] = ()
    if text[:1] in ("[", "{", "("):
        for parse in (json.loads, ast.literal_eval):
            try:
                value = parse(text)
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue
            names = _by_index(value) if isinstance(value, dict) else list(value)
            break
    else:
        separator = next((mark for mark in ("\n", ",", ";") if mark in text.strip()), None)
        names = text.strip().split(separator)
    cleaned = tuple(str(name).strip().strip("'\"") for name in names)
    distinct = len({name.lower() for name in cleaned}) == len(cleaned)
    return cleaned if distinct and all(cleaned) else ()


def _by_index(table: Mapping[object, object]) -> list[object]:
    indexed = {str(key): value for key, value in table.items()}
    return [indexed[str(i)] for i in range(len(indexed))] if all(str(i) in indexed for i in range(len(indexed))) else []


def _up_to(most: float, text: str) -> float | None:
    """Return the number of a text, None if it has not exactly one or it is not from 0 to `most`."""
    numbers = read_numbers(text)
    return numbers[0] if len(numbers) == 1 and 0 <= numbers[0] <= most else None


_MEANINGS: dict[str, tuple[str, Callable[[str], object]]] = {
    **dict.fromkeys(("labels", "names", "classes", "class_names"), ("labels", read_names)),
    "image.bitmappixelformat": ("colour", lambda text: PIXEL_FORMATS.get(text.lower())),
    "image.nominalpixelrange": ("range", lambda text: RANGES.get(text.lower())),
    "resize_type": ("resize", lambda text: FIT.get(text.lower())),
    "reverse_input_channels": ("reversed_channels", lambda text: TRUTH.get(text.lower())),
    "embedded_processing": ("embedded", lambda text: TRUTH.get(text.lower())),
    "pad_value": ("fill", partial(_up_to, 255)),
    "soft_threshold": ("threshold", partial(_up_to, 1)),
    "mean_values": ("mean", read_numbers),
    "scale_values": ("std", read_numbers),
}
"""Field of `Metadata`, and how to read it, by key."""
