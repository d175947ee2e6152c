"""What a local directory of a Hugging Face model for semantic segmentation says in its two JSON files.

`do_reduce_labels` is about the masks that the model was trained with: class i of the model is value i + 1 there.
Neither the photo nor the model's own class map changes by it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segcore.core.errors import ModelError, UsageError
from segcore.core.files import read_file
from segcore.core.labels import LabelSet, background_of, numbered
from segcore.core.model_spec import Description, Interpolation, Resize

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
MAX_CONFIG_BYTES = 16 << 20
ARCHITECTURE = "ForSemanticSegmentation"
"""End of the names of architectures that return logits of each pixel."""
RESAMPLE: tuple[Interpolation, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""In the order of Pillow's numbers."""
ACTIONS = {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb", "do_reduce_labels", "reduce_labels"}
"""What is understood; any other action that is switched on is refused by its name."""
FLIP = "do_flip_channel_order"


def describe_directory(directory: Path) -> Description:
    """Return what a directory says of the model in it; ModelError names what cannot be read or is not supported."""
    config = _read(directory / CONFIG)
    names = [str(name) for name in config.get("architectures") or ()]
    if names and not any(name.endswith(ARCHITECTURE) for name in names):
        raise ModelError(f"{directory / CONFIG}: architecture {', '.join(names)}: wanted one that is {ARCHITECTURE}")
    labels, assumed = _labels(config, directory)
    file = directory / PROCESSOR
    if not file.exists():
        assumed["input"] = f"input: there is no {PROCESSOR}, so it is that of torchvision's models"
        return Description(labels, {}, {}, assumed)
    processor = _read(file)
    if processor.get("do_reduce_labels") or processor.get("reduce_labels"):
        assumed["reduce_labels"] = "do_reduce_labels: masks of its dataset count from 1, the model's classes from 0"
    given = _input(processor, file)
    if given["resizer"] == "torchvision":
        assumed["input.resizer"] = "input.resizer: torchvision, as transformers 5 has it; before, it was Pillow"
    return Description(labels, given, {}, assumed)


def _read(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(read_file(file, MAX_CONFIG_BYTES).decode())
    except (OSError, ValueError) as error:
        raise ModelError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file}: holds {type(content).__name__}, wanted a mapping")
    return content


def _labels(config: Mapping[str, Any], directory: Path) -> tuple[LabelSet, dict[str, str]]:
    """Return the labels of `id2label`, and what is assumed of them; transformers' own placeholders are no names."""
    listed = config.get("id2label") or {str(index): f"LABEL_{index}" for index in range(config.get("num_labels", 2))}
    try:
        names = tuple(str(name) for _, name in sorted((int(index), name) for index, name in listed.items()))
        if sorted(map(int, listed)) != list(range(len(names))):
            raise UsageError("id2label has gaps")
        if all(re.fullmatch(r"LABEL_[0-9]+", name) for name in names):
            words = f"labels: {CONFIG} names none, so they are class 0 to class {len(names) - 1}"
            return numbered(len(names)), {"labels": words}
        return LabelSet(directory.name, _each_once(names), background=background_of(names)), {}
    except (ValueError, AttributeError, UsageError) as error:
        raise ModelError(f"{directory / CONFIG}: id2label: {error}") from error


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names with a number behind those that occur again, such as ADE20K's two ``building``."""
    count: dict[str, int] = {}
    found = []
    for name in map(str.strip, names):
        count[name.lower()] = count.get(name.lower(), 0) + 1
        found.append(name if count[name.lower()] == 1 else f"{name} {count[name.lower()]}")
    return tuple(found)


def _input(processor: Mapping[str, Any], file: Path) -> dict[str, Any]:
    other = sorted(key for key, value in processor.items() if key.startswith("do_") and value and key not in ACTIONS)
    if refused := [key for key in other if key != FLIP]:
        raise ModelError(f"{file}: {', '.join(refused)}: is not supported; wanted a model without it")
    rescaled, normalised = processor.get("do_rescale", True), processor.get("do_normalize", True)
    resample = processor.get("resample", 2)
    if resample not in range(len(RESAMPLE)):
        raise ModelError(f"{file}: resample: found {resample}, wanted a number from 0 to {len(RESAMPLE) - 1}")
    try:
        return {
            "resize": _resize(processor, file) if processor.get("do_resize", True) else Resize("none"),
            "interpolation": RESAMPLE[resample],
            "resizer": "pillow" if str(processor.get("image_processor_type")).endswith("Pil") else "torchvision",
            "colour": "bgr" if processor.get(FLIP) else "rgb",
            "scale": float(processor.get("rescale_factor", 1 / 255)) if rescaled else 1.0,
            "mean": _three(processor.get("image_mean", 0.5)) if normalised else (0.0,) * 3,
            "std": _three(processor.get("image_std", 0.5)) if normalised else (1.0,) * 3,
        }
    except (TypeError, ValueError) as error:
        raise ModelError(f"{file}: {error}") from error


def _three(value: Any) -> tuple[float, ...]:
    values = tuple(map(float, value)) if isinstance(value, list) else (float(value),) * 3
    if len(values) != 3:
        raise ValueError(f"image_mean and image_std: found {len(values)} numbers, wanted 3")
    return values


def _resize(processor: Mapping[str, Any], file: Path) -> Resize:
    size = processor.get("size", {"height": 512, "width": 512})
    if isinstance(size, int):
        return Resize("fixed", (size, size))
    keys = set(size) if isinstance(size, dict) else set()
    if keys == {"height", "width"}:
        return Resize("fixed", (int(size["height"]), int(size["width"])))
    if keys == {"shortest_edge"}:
        return Resize("shorter", (int(size["shortest_edge"]),))
    raise ModelError(f"{file}: size: found {size}, wanted height and width, or shortest_edge")
