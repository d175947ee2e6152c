"""What a model's file says about itself: tensors, the operators that end it, and its metadata."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from segcore.core.errors import ModelError
from segcore.core.model_spec import Layout
from segcore.core.text import first_line

FileKind = Literal["onnx", "openvino", "litert"]
Shape = tuple[int | None, ...]
"""None for a length that is free."""

PASSED_THROUGH = re.compile(
    "cast|convert|(de)?quantize(linear)?|identity|interpolate|pad|reshape|resize(_bilinear|_nearest_neighbor)?|"
    "(strided_)?slice|(un)?squeeze|transpose|upsample"
)
"""Operators, in lower case, that leave it open what values mean: what counts is the one before."""


@dataclass(frozen=True)
class TensorHeader:
    """An input or output of a file."""

    name: str
    dtype: str
    """Name of numpy's type, such as ``float32``."""
    shape: Shape | None
    """None if even the number of lengths is free."""
    scale: float = 0.0
    """Of a quantised tensor: a stored q means ``(q - zero_point) * scale``; 0 if it is not quantised."""
    zero_point: int = 0
    layout: Layout | None = None
    """Order of the dimensions if the file names it."""
    operator: str = ""
    """Of an output: the operator that computes its values (`PASSED_THROUGH` are left out), in lower case."""
    choices: int | None = None
    """Of an output of an argmax: the classes that it chooses from."""

    def __str__(self) -> str:
        """Return for example ``float32 (?, 3, 256, 256)``."""
        lengths = "(of any shape)" if self.shape is None else f"({', '.join(str(n or '?') for n in self.shape)})"
        quantised = f", quantised: scale {self.scale:.6g}, zero point {self.zero_point}" if self.scale else ""
        return f"{self.dtype} {lengths}{quantised}"


@dataclass(frozen=True)
class ModelHeader:
    """What a reader found in a file."""

    kind: FileKind
    path: Path
    inputs: tuple[TensorHeader, ...]
    outputs: tuple[TensorHeader, ...]
    metadata: Mapping[str, str] = field(default_factory=dict)
    others: tuple[Path, ...] = ()
    """Files beside it that belong to the model, such as weights."""

    def sha256(self) -> str:
        """Return the SHA-256 of the file, together with those beside it if it has any, as hex digits."""
        digest = hashlib.sha256()
        for path in (self.path, *self.others):
            try:
                with path.open("rb") as file:
                    hashlib.file_digest(file, lambda: digest)
            except OSError as error:
                raise ModelError(f"{path}, which {self.path.name} needs, cannot be read: {error.strerror}") from error
        return digest.hexdigest()


@dataclass(frozen=True)
class Producer:
    """The operator that computes a tensor."""

    operator: str
    source: str | None
    """Name of its first input that is no constant."""
    axis: int | None = None


ARGMAX = ("argmax", "arg_max", "topk")


def traced(
    output: TensorHeader, tensor: str, producers: Mapping[str, Producer], shapes: Mapping[str, Shape]
) -> TensorHeader:
    """Return an output with the operator that gives it its meaning, and for an argmax its number of choices."""
    seen: set[str] = set()
    while (producer := producers.get(tensor)) is not None and tensor not in seen:
        seen.add(tensor)
        operator = producer.operator.lower()
        if operator in ARGMAX:
            shape = shapes.get(producer.source or "", ())
            axis = producer.axis
            known = axis is not None and -len(shape) <= axis < len(shape)
            return replace(output, operator="argmax", choices=shape[axis] if known and axis is not None else None)
        if not PASSED_THROUGH.fullmatch(operator) or producer.source is None:
            return replace(output, operator=operator)
        tensor = producer.source
    return output


def lengths(values: Iterable[int]) -> Shape:
    """Return a shape with None for lengths that are free, which are written as -1 or 0."""
    return tuple(int(value) if value > 0 else None for value in values)


def unreadable(path: Path, what: str, reason: object) -> ModelError:
    """Return the error for a file that is not what its suffix says."""
    first = first_line(reason) or type(reason).__name__
    return ModelError(f"{path} cannot be read as {what}: {first}; export the model again")
