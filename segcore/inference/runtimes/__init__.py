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
from segcore.inference.devices import Device
from segcore.inference.models.checkpoint import check_weights
from segcore.inference.runtimes.eager import DTYPES
from segcore.inference.runtimes.session import (
    BuildRequest,
    OperatorTime,
    Profilable,
    ProfiledSession,
    RuntimeProfile,
    Session,
)
from segcore.inference.runtimes.upsampling import without_upsampling
from segcore.inputs.download import FetchSettings

__all__ = [
    "RUNTIMES",
    "OperatorTime",
    "Profilable",
    "ProfiledSession",
    "Runtime",
    "RuntimeProfile",
    "Session",
    "open_session",
    "why_not",
]


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

    @property
    def on_torch(self) -> bool:
        """Whether torch's allocator holds its memory, and so knows the high-water mark on a GPU."""
        return not self.packages

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
    "onnxruntime": Runtime("onnx_runtime", "ONNX Runtime: CPU, CUDA and CoreML providers", *_ORT, "onnxruntime"),
    "openvino": Runtime(
        "openvino",
        "OpenVINO on the CPU",
        (*_FLOATS, "int8"),
        (*_ONNX, "openvino"),
        ("nncf", "onnxruntime"),
        "openvino",
    ),
    "tensorrt": Runtime("tensorrt", "TensorRT, through ONNX Runtime's provider", *_ORT, "tensorrt"),
}
"""Every runtime by the name that ``--runtime`` takes."""


def why_not(name: str, device: Device, precision: str = "fp32") -> str | None:
    """Return why a runtime cannot run in a precision on a device, with the remedy; None if it can.

    Raises:
        DeviceError: there is no such runtime.
    """
    if name not in RUNTIMES:
        raise DeviceError(f"unknown runtime {name!r}{nearest_hint(name, RUNTIMES)}; known: {', '.join(RUNTIMES)}")
    runtime = RUNTIMES[name]
    if precision not in runtime.precisions:
        return f"it has no precision {precision!r}, only {', '.join(runtime.precisions)}"
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
) -> Session:
    """Return a session that runs a copy of the network, without the upsampling at its end.

    Args:
        runtime: a name of `RUNTIMES`.
        network: maps (B, 3, H, W) to logits (B, classes, H, W); stays as it is.
        device: where it runs.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        settings: the cache for artifacts; from the environment if None.
        calibration: returns preprocessed photos, (1, 3, H, W), for int8.

    Raises:
        DeviceError: the runtime is unknown or not installed, or the device has no such precision.
        ModelError: the network cannot be copied, or one of its weights is no finite number in that precision.
    """
    if reason := why_not(runtime, device, precision):
        raise DeviceError(f"runtime {runtime} in {precision} on {device.name}: {reason}; see `segcore runtimes`")
    check_weights(network, DTYPES.get(precision, torch.float32))
    cache_dir = (settings or FetchSettings.from_env()).cache_dir
    request = BuildRequest(without_upsampling(network), device, precision, cache_dir, calibration)
    session: Session = RUNTIMES[runtime].module.open_session(request)
    return session
