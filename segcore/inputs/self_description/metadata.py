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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from segcore.core.model_spec import Colour

LABEL_KEYS = ("labels", "names", "classes", "class_names")
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
    fill: int | None = None
    threshold: float | None = None
    embedded: bool = False
    """Whether resizing and normalising are part of the graph."""
    understood: Mapping[str, str] = field(default_factory=dict)


def read_metadata(entries: Mapping[str, str]) -> Metadata:
    """Return what entries mean; those that are unknown or make no sense are left out."""
    plain = {key.rpartition(" ")[2].lower(): key for key in entries}
    found: dict[str, object] = {}
    used: dict[str, str] = {}

    def take(key: str, name: str, value: object) -> None:
        if value is not None and value != () and name not in found:
            found[name] = value
            used[plain[key]] = entries[plain[key]]

    texts = {key: entries[name].strip() for key, name in plain.items()}
    for key in filter(texts.__contains__, LABEL_KEYS):
        take(key, "labels", read_names(texts[key]))
    for key, text in texts.items():
        if key == "image.bitmappixelformat":
            take(key, "colour", PIXEL_FORMATS.get(text.lower()))
        elif key == "image.nominalpixelrange" and text.lower() in RANGES:
            scale, mean, std = RANGES[text.lower()]
            take(key, "scale", scale)
            found |= {"mean": (mean,), "std": (std,)}
        elif key == "resize_type":
            take(key, "resize", FIT.get(text.lower()))
        elif key == "reverse_input_channels":
            take(key, "reversed_channels", TRUTH.get(text.lower()))
        elif key == "embedded_processing":
            take(key, "embedded", TRUTH.get(text.lower()))
        elif key == "pad_value":
            values = read_numbers(text)
            take(key, "fill", int(values[0]) if len(values) == 1 and 0 <= values[0] <= 255 else None)
        elif key == "soft_threshold":
            values = read_numbers(text)
            take(key, "threshold", values[0] if len(values) == 1 and 0 <= values[0] <= 1 else None)
    for key, name in (("mean_values", "mean"), ("scale_values", "std")):  # of values from 0 to 255
        if values := read_numbers(texts.get(key, "")):
            take(key, name, values)
            found["scale"] = 1.0
    return Metadata(**found, understood=used)  # type: ignore[arg-type]  # names and types are those of the fields


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
