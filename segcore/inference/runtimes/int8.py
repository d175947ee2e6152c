"""Networks in int8, some of whose layers may stay in fp32: quantised after training, cached by content.

`segcore quantize` measures which layers those are (`segcore.evaluation.mixed`) and stores its finding here; int8 of the
same network and calibration then uses it.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import json
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import rich
import torch
from pydantic import ValidationError

from segcore.core.errors import DeviceError
from segcore.core.files import sha256_file, write_file
from segcore.core.lazy import Lazy
from segcore.core.quiet import quiet
from segcore.core.record_int8 import Int8Record
from segcore.core.text import first_line
from segcore.inference.allocator import give_back_freed_memory
from segcore.inference.runtimes.artifacts import Artifact, artifact
from segcore.inference.runtimes.file_model import Array, FileModel

_SCHEME = "activations uint8 per tensor, weights int8 per channel"
_MOST_RECORD_BYTES = 1 << 24
_console = threading.Lock()


@dataclass(frozen=True)
class Layer:
    """An operator that has inputs in int8."""

    name: str
    kind: str
    module: str = ""
    """Which its weights belong to, if it has any."""


class QuantisedNetwork(Protocol):
    """A network in fp32 and in int8, from which every mixture of the two can be written."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are in int8, in the order in which they run."""

    def write(self, path: Path, kept: Collection[str]) -> None:
        """Write the network with the named layers in fp32 and the others in int8."""


@dataclass(frozen=True)
class Int8Source:
    """A network that can be quantised, and what with."""

    cache_dir: Path
    content: Mapping[str, str]
    """What identifies the network in fp32."""
    fp32: Callable[[], Path]
    """Returns its file: ONNX, or what else OpenVINO reads."""
    calibration: Callable[[], Sequence[torch.Tensor]]
    """Returns inputs of the pipeline, from which the ranges are taken."""
    enter: Callable[[torch.Tensor], Array]
    """Makes inputs of the file of them."""
    open: Callable[[Path, Sequence[Array]], QuantisedNetwork]
    """Quantises a file with such inputs."""
    suffix: str = ".int8.onnx"
    """Of the file in int8."""

    @cached_property
    def arrays(self) -> Sequence[Array]:
        """The inputs that the ranges are from.

        Raises:
            DeviceError: there are none.
        """
        tensors = self.calibration()
        if not tensors:
            raise DeviceError("int8 needs photos to take its ranges from: calibration is empty")
        return Lazy(len(tensors), lambda index: self.enter(tensors[index]))

    @cached_property
    def key(self) -> dict[str, str]:
        """What identifies the network in int8, but for the layers that stay in fp32."""
        digest = hashlib.sha256()
        for array in self.arrays:
            digest.update(f"{array.shape}".encode() + array.tobytes())
        scheme = {"dtype": "int8", "scheme": _SCHEME, "nncf": version("nncf")}
        return {**self.content, **scheme, "calibration": digest.hexdigest()}

    def record_path(self, **more: str) -> Path:
        """Return where a finding for this network and calibration is stored."""
        digest = hashlib.sha256(json.dumps(self.key | more, sort_keys=True).encode()).hexdigest()
        return self.cache_dir / "artifacts" / f"{digest[:24]}.int8.json"

    def found(self, **more: str) -> Int8Record | None:
        """Return the finding that was stored last, None if there is none.

        Raises:
            DeviceError: its file cannot be read.
        """
        return _read(self.record_path(**more))

    def store(self, record: Int8Record, **more: str) -> None:
        """Store a finding: int8 of this network and calibration uses it from now on."""
        for path in {self.record_path(), self.record_path(**more)}:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, record.model_dump_json(indent=1).encode())

    def quantised(self) -> QuantisedNetwork:
        """Quantise the network.

        Raises:
            DeviceError: it cannot be quantised.
        """
        path = self.fp32()
        os.environ.setdefault("NNCF_CI", "1")  # disables its telemetry
        with quiet(), _without_progress_bars():
            import nncf

            nncf.set_log_level(40)
            try:
                network = self.open(path, self.arrays)
            except Exception as error:  # NNCF and what it runs on have errors of many kinds
                raise DeviceError(
                    f"{path} cannot be quantised to int8: {first_line(error) or type(error).__name__}; choose fp32"
                ) from error
        gc.collect()  # NNCF's sessions and statistics refer to each other
        give_back_freed_memory()
        return network

    def artifact(self, network: QuantisedNetwork | None = None) -> Artifact:
        """Return the file in int8, with those layers in fp32 that were found to need it.

        Args:
            network: the same network, quantised; it is quantised if this is None and the cache has no such file.
        """
        record = self.found()
        kept = record.kept if record else ()
        content = self.key | ({"kept": json.dumps(sorted(kept))} if kept else {})
        built = artifact(
            self.cache_dir, content, self.suffix, lambda path: (network or self.quantised()).write(path, kept)
        )
        if record:
            write_file(_record_of(built.path), record.model_dump_json().encode())
        return built


def open_onnx(name: str, path: Path, arrays: Sequence[Array]) -> QuantisedNetwork:
    """Quantise an ONNX file, given the name of its input."""
    from segcore.inference.runtimes.int8_onnx import OnnxNetwork  # whose packages may not be installed

    return OnnxNetwork(path, name, arrays)


def open_others(path: Path, arrays: Sequence[Array]) -> QuantisedNetwork:
    """Quantise a file that OpenVINO reads."""
    from segcore.inference.runtimes.int8_openvino import OpenVinoNetwork
    from segcore.inference.runtimes.openvino import _core

    return OpenVinoNetwork(_core(), path, arrays)


def file_source(model: FileModel, cache_dir: Path, calibration: Callable[[], Sequence[torch.Tensor]]) -> Int8Source:
    """Return what a file is quantised from, given inputs of the pipeline."""
    boundary, path = model.boundary, model.path
    is_onnx = model.header.kind == "onnx"
    return Int8Source(
        cache_dir,
        {"file": sha256_file(path), "input": str(boundary.spec.input)},
        lambda: path,
        calibration,
        boundary.enter,
        partial(open_onnx, boundary.input.name) if is_onnx else open_others,
        ".int8.onnx" if is_onnx else ".int8.zip",
    )


def int8_record(path: Path | None) -> Int8Record | None:
    """Return the finding that an artifact follows; None for all other artifacts."""
    return _read(_record_of(path)) if path else None


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _read(path: Path) -> Int8Record | None:
    if not path.is_file():
        return None
    try:
        return Int8Record.model_validate_json(path.read_bytes()[:_MOST_RECORD_BYTES])
    except (OSError, ValidationError) as error:
        raise DeviceError(f"{path}: is not what segcore quantize wrote; delete it and quantize again") from error


def quantise(model: Any, arrays: Sequence[Array], name: str | None = None) -> Any:
    """Return a model of ONNX or OpenVINO after static post-training quantisation by NNCF, with biases corrected.

    Args:
        model: in fp32.
        arrays: inputs that the ranges are taken from.
        name: of the input, which ONNX needs.

    Activations have one range for each tensor: onnxruntime has no kernels for more, and OpenVINO is faster so.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters

    per_tensor = QuantizationParameters(per_channel=False)
    return nncf.quantize(
        model,
        nncf.Dataset(arrays, (lambda array: {name: array}) if name else None),
        subset_size=len(arrays),
        preset=nncf.QuantizationPreset.MIXED,
        advanced_parameters=AdvancedQuantizationParameters(activations_quantization_params=per_tensor),
    )


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Silence rich's console, on which NNCF draws progress bars; other output of the process stays as it is."""
    console = rich.get_console()
    with _console:
        before, console.quiet = console.quiet, True
        try:
            yield
        finally:
            console.quiet = before
