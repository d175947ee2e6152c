"""Models that are a file which a runtime executes itself, and how tensors of the pipeline enter and leave it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from segcore.core.errors import ModelError, SegcoreError
from segcore.core.model_spec import ModelSpec
from segcore.core.system import out_of_memory
from segcore.inputs.self_description import ModelHeader, TensorHeader, main_output, photo_input

Array = npt.NDArray[np.generic]


class FileModel(nn.Module):
    """An ONNX, OpenVINO or TFLite file in the place of a network, with its model file completed by what it says."""

    def __init__(self, header: ModelHeader, spec: ModelSpec) -> None:
        super().__init__()
        self.header = header
        self.spec = spec

    @property
    def path(self) -> Path:
        """The file."""
        return self.header.path

    @property
    def boundary(self) -> Boundary:
        """How tensors enter and leave it.

        Raises:
            ModelError: its shape or type is not what the model file says.
        """
        output = main_output(self.header, self.spec.output.name)
        index = self.header.outputs.index(output)
        entry = photo_input(self.header)
        if problem := _problem(entry, self.spec):
            where = self.spec.file or self.path
            raise ModelError(f"{where}: {problem}; {self.path.name} takes {entry.name}, {entry}")
        return Boundary(self.spec, entry, output, index)


@dataclass(frozen=True)
class Boundary:
    """Between the pipeline, whose tensors are (B, C, H, W), and a file with layouts and types of its own."""

    spec: ModelSpec
    input: TensorHeader
    output: TensorHeader
    index: int
    """Of the output among all of the file's."""

    @property
    def one_by_one(self) -> bool:
        """Whether the file takes one photo at a time."""
        return self.input.shape is not None and self.input.shape[0] == 1

    def enter(self, batch: torch.Tensor) -> Array:
        """Return the array for the file: contiguous, in its layout and type, quantised if it is."""
        moved = batch.permute(0, 2, 3, 1) if self.spec.input.layout == "nhwc" else batch
        array = np.asarray(moved.cpu().numpy())
        if self.input.scale and self.spec.input.dtype != "uint8":
            limits = np.iinfo(self.input.dtype)
            steps = np.rint(array / np.float32(self.input.scale)) + self.input.zero_point
            array = np.clip(steps, limits.min, limits.max)
        elif self.input.dtype == "int8" and self.input.scale:
            array = array.astype(np.int16) - 128
        return np.ascontiguousarray(array, dtype=self.input.dtype)

    def leave(self, array: Array) -> torch.Tensor:
        """Return scores, float32 (B, C, h, w), or a class map of integers (B, h, w), of what the file returned."""
        if self.spec.output.kind == "classes":
            return torch.from_numpy(_class_map(array, self.spec.output.layout == "nhwc"))
        values = array
        if self.output.scale:
            values = (array.astype(np.float32) - self.output.zero_point) * np.float32(self.output.scale)
        scores = torch.from_numpy(np.require(values, dtype=np.float32, requirements="W"))
        if scores.dim() == 4 and self.spec.output.layout == "nhwc":
            return scores.permute(0, 3, 1, 2).contiguous()
        return scores

    def run(self, batch: torch.Tensor, call: Callable[[Array], Array]) -> torch.Tensor:
        """Return the output of a batch, photo by photo if the file takes one at a time."""
        array = self.enter(batch)
        if not self.one_by_one or len(array) == 1:
            return self.leave(call(array))
        return self.leave(np.concatenate([np.array(call(array[i : i + 1])) for i in range(len(array))]))


def _class_map(array: Array, channels_last: bool) -> npt.NDArray[np.int64]:
    """Return a class map (B, h, w) of one that may lack the batch or have one channel."""
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        last = array.shape[3] == 1 and (channels_last or array.shape[1] != 1)
        array = array[..., 0] if last else array[:, 0]
    if array.ndim == 2:
        array = array[None]
    return array.astype(np.int64)


def _problem(entry: TensorHeader, spec: ModelSpec) -> str:
    """Return what the model file says of the input that its file does not take; empty if it takes it."""
    given = spec.input
    if entry.dtype == "uint8" and not entry.scale and given.dtype != "uint8":
        return f"input.dtype is {given.dtype}"
    if entry.shape is None:
        return ""
    count, *rest = entry.shape
    channels, height, width = rest if given.layout == "nchw" else (rest[2], rest[0], rest[1])
    if count not in (None, 1):
        return f"it takes {count} photos at once, wanted 1 or any number: export it again"
    if channels not in (None, given.channels):
        return f"input.layout {given.layout} and input.colour {given.colour} give {given.channels} channels"
    if height is None and width is None:
        return ""
    step = given.multiple_of
    size = tuple(-(-side // step) * step for side in given.resize.size)
    if given.resize.kind == "longer" and len(size) == 1 and step >= size[0]:
        size *= 2
    wanted = f"wanted resize: {{fixed: [{height}, {width}]}} or letterbox"
    if len(size) != 2 or any(own not in (None, side) for own, side in zip((height, width), size, strict=True)):
        return f"input.resize {given.resize.kind} {list(given.resize.size) or ''}, {wanted}".replace(" ,", ",")
    return ""


_OPERATOR = re.compile(
    r"implementation for ([\w.:]+)\(|Fatal error: ([\w.:]+)\(|No Op registered for ([\w.:]+)|"
    r"conversion rule found for operations?: ([\w.:, ]+)|following ONNX operations: ([\w.:, ]+)|"
    r"No translator found for (\w+)|unresolved custom op: ([\w.]+)|builtin opcode '(\w+)'|"
    r"Node number \d+ \((\w+)\) failed"
)
"""How onnxruntime, OpenVINO and LiteRT name an operator that they cannot run."""


@contextlib.contextmanager
def failures(runtime: str, path: Path, batch: torch.Tensor | None = None) -> Iterator[None]:
    """Raise a ModelError in place of what a runtime raises in the body, unless memory ran out.

    The body opens the file at a path, or runs it on a batch.
    """
    try:
        yield
    except SegcoreError:
        raise
    except Exception as error:  # each runtime has errors of its own
        if out_of_memory(error):
            raise
        what = f"runtime {runtime} cannot run {path}"
        if batch is not None:
            raise ModelError(
                f"{what} on an input of {tuple(batch.shape)}: {_reason(error)}; "
                "correct input.resize or input.multiple_of, or export the model again"
            ) from error
        if found := _OPERATOR.search(str(error)):
            names = next(name for name in found.groups() if name).strip().rstrip(",.")
            raise ModelError(f"{what}: it has no operator {names}") from error
        raise ModelError(f"{what}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """Return the first line of an error that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("Exception from", "Check '"))] or lines
    return lines[0][:300] if lines else type(error).__name__
