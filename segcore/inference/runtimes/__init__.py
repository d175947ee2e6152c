"""Runtimes: one file per method of executing a model, all behind the `Session` protocol.

Each file has ``refusal(device, precision)``, which returns why it cannot run, and ``open_session(request)``. It is
imported on use, because its packages may not be installed.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import nn

from segcore.core.errors import DeviceError, nearest_hint
from segcore.core.model_spec import OWN_RUNTIMES, SourceKind
from segcore.inference.devices import Device
from segcore.inference.models.checkpoint import check_weights
from segcore.inference.models.sources.torch_files import FileNetwork
from segcore.inference.runtimes import export
from segcore.inference.runtimes.eager import DTYPES
from segcore.inference.runtimes.file_model import FileModel
from segcore.inference.runtimes.int8 import Int8Source as Int8Source  # for importers of this module
from segcore.inference.runtimes.program import ProgramModel
from segcore.inference.runtimes.session import BuildRequest, Example, Session
from segcore.inference.runtimes.upsampling import without_upsampling
from segcore.inputs.download import FetchSettings


@dataclass(frozen=True)
class Runtime:
    """One method of executing a model.

    Its `packages`, and for quantisation its `int8_packages`, must be installed; segcore's `extra` installs them all.
    """

    home: str
    """Name of its file in this package."""
    summary: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...] = ()
    int8_packages: tuple[str, ...] = ()
    extra: str | None = None
    opens: tuple[SourceKind, ...] = ()
    """Kinds of sources that it runs as they are: files or programs."""
    file_precisions: tuple[str, ...] = ("fp32",)
    """In which it runs them; ``fp32`` leaves the arithmetic to the file."""
    networks: bool = True
    """Whether it runs networks of torch."""
    in_process: bool = True
    """Whether its memory is that of our process."""
    recorded: bool = False
    """Whether it replays passes in memory that was taken when they were recorded."""

    def memory_is_known(self, device: str) -> bool:
        """Return whether the high-water mark of a device counts its calls: of our process, or of torch's allocator."""
        return self.in_process and (device == "cpu" or not (self.packages or self.recorded))

    @property
    def module(self) -> ModuleType:
        """Its file, imported."""
        return importlib.import_module(f"{__name__}.{self.home}")


_FLOATS = ("fp32", "bf16", "fp16")
_ONNX = ("onnx", "onnxscript")
_ORT = (("fp32", "fp16", "int8"), (*_ONNX, "onnxruntime"), ("nncf",))

RUNTIMES: dict[str, Runtime] = {
    "torch": Runtime("eager", "torch, operator by operator: the reference in fp32", _FLOATS),
    "torch-compile": Runtime("inductor", "torch.compile, inductor backend", _FLOATS),
    "torch-graphs": Runtime(
        "graphs", "torch, replayed as a CUDA graph for each shape that recurs", _FLOATS, recorded=True
    ),
    "onnxruntime": Runtime(
        "onnx_runtime",
        "ONNX Runtime: CPU, CUDA and CoreML providers",
        *_ORT,
        "onnxruntime",
        ("onnx",),
        ("fp32", "int8"),
    ),
    "openvino": Runtime(
        "openvino",
        "OpenVINO on the CPU",
        (*_FLOATS, "int8"),
        (*_ONNX, "openvino"),
        ("nncf", "onnxruntime"),
        "openvino",
        ("openvino", "onnx", "litert"),
        (*_FLOATS, "int8"),
    ),
    "litert": Runtime(
        "litert",
        "LiteRT on the CPU: .tflite files",
        ("fp32",),
        ("ai_edge_litert",),
        extra="litert",
        opens=("litert",),
        networks=False,
    ),
    "tensorrt": Runtime("tensorrt", "TensorRT, through ONNX Runtime's provider", *_ORT, "tensorrt"),
    "program": Runtime(
        "program",
        "the program that a model file names, for each photo or serving",
        ("fp32",),
        opens=("command",),
        networks=False,
        in_process=False,
    ),
}
"""Every runtime by the name that ``--runtime`` takes."""


def why_not(name: str, device: Device, precision: str = "fp32", kind: SourceKind | None = None) -> str | None:
    """Return why a runtime cannot run in a precision on a device, with the remedy; None if it can.

    `kind` is that of the model's source; None stands for any that the runtime can run.

    Raises:
        DeviceError: there is no such runtime.
    """
    if name not in RUNTIMES:
        raise DeviceError(f"unknown runtime {name!r}{nearest_hint(name, RUNTIMES)}; known: {', '.join(RUNTIMES)}")
    runtime = RUNTIMES[name]
    is_file = kind in OWN_RUNTIMES
    if is_file and kind not in runtime.opens:
        others = ", ".join(other for other, each in RUNTIMES.items() if kind in each.opens)
        return f"it runs no {kind} models, which run on {others}"
    if not is_file and kind is not None and not runtime.networks:
        return f"it runs {', '.join(runtime.opens)} models only, not networks of torch"
    precisions = runtime.file_precisions if is_file else runtime.precisions
    if precision not in precisions:
        return f"it has no precision {precision!r}{' for files' * is_file}, only {', '.join(precisions)}"
    packages = runtime.packages + (runtime.int8_packages if precision == "int8" else ())
    if missing := [package for package in packages if importlib.util.find_spec(package) is None]:
        return f"not installed: {', '.join(missing)}; pip install 'segcore[{runtime.extra}]'"
    reason: str | None = runtime.module.refusal(device, precision)
    return reason


def open_session(
    runtime: str,
    network: nn.Module,
    device: Device,
    precision: str = "fp32",
    *,
    settings: FetchSettings | None = None,
    calibration: Callable[[], Sequence[torch.Tensor]] = tuple,
    example: Example | None = None,
) -> Session:
    """Return a session: of a copy of a network, without the upsampling at its end, or of a file or program as it is.

    Args:
        runtime: a name of `RUNTIMES`.
        network: maps (B, 3, H, W) to logits (B, classes, H, W), and stays as it is; or a `FileModel` or `ProgramModel`.
        device: where it runs.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        settings: the cache for artifacts; from the environment if None.
        calibration: returns preprocessed photos, (1, 3, H, W), for int8.
        example: an input that the network takes; a small photo if None.

    Raises:
        DeviceError: the runtime is unknown or not installed, or the device has no such precision.
        ModelError: the network cannot be copied, one of its weights is no finite number in that precision, or the
            runtime does not know an operator of the file.
    """
    kind: SourceKind = network.header.kind if isinstance(network, FileModel) else "module"
    kind = "command" if isinstance(network, ProgramModel) else kind
    if reason := why_not(runtime, device, precision, kind):
        raise DeviceError(f"runtime {runtime} in {precision} on {device.name}: {reason}; see `segcore runtimes`")
    for part in network.modules():
        if isinstance(part, FileNetwork) and part.why_only_torch and runtime != "torch":
            raise DeviceError(f"runtime {runtime}: the model {part.why_only_torch}; --runtime torch runs it")
    check_weights(network, DTYPES.get(precision, torch.float32))
    request = _request(network, device, precision, settings, calibration, example)
    session: Session = RUNTIMES[runtime].module.open_session(request)
    return session


def int8_source(
    network: nn.Module,
    device: Device,
    *,
    settings: FetchSettings | None = None,
    calibration: Callable[[], Sequence[torch.Tensor]],
    example: Example | None = None,
) -> Int8Source:
    """Return what a network is quantised from; arguments as those of `open_session`.

    Raises:
        DeviceError: it is a program.
    """
    if isinstance(network, ProgramModel):
        raise DeviceError("a program cannot be quantised: name its model")
    return export.int8_source(_request(network, device, "int8", settings, calibration, example))


def _request(
    network: nn.Module,
    device: Device,
    precision: str,
    settings: FetchSettings | None,
    calibration: Callable[[], Sequence[torch.Tensor]],
    example: Example | None,
) -> BuildRequest:
    is_network = not isinstance(network, FileModel | ProgramModel)
    cache_dir = (settings or FetchSettings.from_env()).cache_dir
    network = without_upsampling(network) if is_network else network
    return BuildRequest(network, device, precision, cache_dir, calibration, example or Example())
