"""What a model file says: where the model comes from, and what its input and its output mean.

The defaults are those of torchvision's segmentation networks and of `embedded`. `segcore.inputs.model_files.model`
explains the fields that users write.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from segcore.core.labels import LabelSet

SourceKind = Literal[
    "module",
    "embedded",
    "torchvision",
    "python",
    "onnx",
    "openvino",
    "litert",
    "exported",
    "torchscript",
    "transformers",
    "command",
]
ResizeKind = Literal["shorter", "longer", "fixed", "letterbox", "none"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
Resizer = Literal["pillow", "torchvision"]
Colour = Literal["rgb", "bgr", "grey"]
Layout = Literal["nchw", "nhwc"]
InputType = Literal["float32", "float16", "uint8"]
OutputKind = Literal["logits", "probabilities", "sigmoid", "classes"]
PhotoFormat = Literal["png", "ppm"]

PHOTO, MASK = "{photo}", "{mask}"
"""What stands for the paths of a photo and its mask among the arguments of a program."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Resize:
    """The size that a photo gets before it goes into the model."""

    kind: ResizeKind = "shorter"
    """``shorter`` and ``longer``: that side gets a length, and the photo keeps its proportions; ``fixed``: (H, W),
    whatever the proportions; ``letterbox``: as large as fits into (H, W), centred, the rest filled; ``none``."""
    size: tuple[int, ...] = ()
    """(H, W) of ``fixed`` and ``letterbox``; of ``shorter`` and ``longer`` the length, () if each run names it."""


@dataclass(frozen=True)
class InputSpec:
    """How a photo becomes the model's input: resize, pad, choose channels, then ``(value * scale - mean) / std``."""

    resize: Resize = Resize()
    multiple_of: int = 1
    fill: tuple[int, int, int] = (0, 0, 0)
    interpolation: Interpolation = "bilinear"
    resizer: Resizer = "pillow"
    antialias: bool = True
    colour: Colour = "rgb"
    """``grey`` is one channel, the luma of ITU-R 601."""
    scale: float = 1 / 255
    mean: tuple[float, ...] = IMAGENET_MEAN
    """Of each channel in the order of `colour`."""
    std: tuple[float, ...] = IMAGENET_STD
    layout: Layout = "nchw"
    dtype: InputType = "float32"

    @property
    def own_size(self) -> tuple[int, ...] | None:
        """The model's own size, (H, W) or (side,); () if it takes photos as they are; None if runs name a size."""
        return None if self.resize.kind in ("shorter", "longer") and not self.resize.size else self.resize.size

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.colour == "grey" else 3


def own_side(spec: InputSpec) -> int | None:
    """Return the shorter side of a model's own size, None if it has none: what its items are named by."""
    return min(spec.resize.size, default=None)


@dataclass(frozen=True)
class OutputSpec:
    """What the model's output means."""

    name: str | None = None
    """None for the only one, or for ``out`` or ``logits`` of a dict."""
    kind: OutputKind = "logits"
    """``sigmoid``: one channel of probabilities of class 1, or of each class but the background; ``classes``: a class
    map of integers."""
    threshold: float = 0.5
    layout: Layout = "nchw"
    align_corners: bool = False


@dataclass(frozen=True)
class Source:
    """Where a model comes from."""

    kind: SourceKind
    location: str
    """Name of a torchvision model, ``package.module:factory``, absolute path of a file or directory, or a program."""
    arguments: tuple[str, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()
    weights: str | None = None
    """Absolute path or https URL of the weights; None for those of the source itself."""
    sha256: str | None = None
    """Of the weights; checked."""
    serve: bool = False
    timeout_s: float = 60.0
    photos: PhotoFormat = "png"


OWN_RUNTIMES: Mapping[SourceKind, str] = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "litert": "litert",
    "command": "program",
}
"""Runtime of each kind of source that is run as it is, without torch."""


def own_runtime(kind: SourceKind) -> str:
    """Return the runtime that a model runs on, in fp32, if nobody names one: the reference for the others."""
    return OWN_RUNTIMES.get(kind, "torch")


@dataclass(frozen=True)
class Description:
    """What a model's own files say about it: `InputSpec` and `OutputSpec` by field, and its labels if it has any."""

    labels: LabelSet | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    output: Mapping[str, Any] = field(default_factory=dict)
    assumptions: Mapping[str, str] = field(default_factory=dict)
    """What they do not say and was assumed, each in a sentence, by what it is about: ``input.colour``, ``labels``."""


@dataclass(frozen=True)
class ModelSpec:
    """A model file that was read."""

    name: str
    source: Source
    labels: LabelSet | None = None
    """None if nothing has named them yet: then the source's own, else numbered ones."""
    input: InputSpec = InputSpec()
    output: OutputSpec = OutputSpec()
    assumptions: tuple[str, ...] = ()
    """What nobody has said and was assumed, each in a sentence."""
    said: frozenset[str] = field(default=frozenset(), compare=False)
    """What the file says, such as ``input.mean``; the rest are defaults, and a source's own description goes first."""
    reference: str | None = None
    """Name of the model whose masks this one is held against in parity; None for itself on torch in fp32."""
    root: Path = field(default=Path(), compare=False)
    """Directory that modules of ``python:`` are imported from too, and in which a program runs."""
    file: Path | None = field(default=None, compare=False)

    def completed(self, found: Description) -> ModelSpec:
        """Return the same with what the model's own files say wherever the model file says nothing."""
        parts: dict[str, Any] = {}
        for name, values in (("input", found.input), ("output", found.output)):
            new = {key: value for key, value in values.items() if f"{name}.{key}" not in self.said}
            parts[name] = replace(getattr(self, name), **new)
        said = self.said if self.labels is None else {*self.said, "labels"}
        assumed = tuple(t for about, t in found.assumptions.items() if about not in said and t not in self.assumptions)
        return replace(self, labels=self.labels or found.labels, assumptions=(*self.assumptions, *assumed), **parts)

    @property
    def digest(self) -> str:
        """SHA-256 of what the file says, 64 hexadecimal digits: equal wherever it lies and however it is written."""
        content: dict[str, Any] = {"name": self.name, "input": asdict(self.input), "output": asdict(self.output)}
        source = asdict(self.source)
        for key in ("location", "weights"):
            path = Path(source[key] or "")
            if path.is_absolute():  # the same on every machine
                own = Path(os.path.relpath(path, self.file.parent)) if self.file else Path(path.name)
                source[key] = own.as_posix()
        content |= {"source": source, "labels": self.labels.digest if self.labels else None}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
