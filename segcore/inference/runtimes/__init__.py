"""How a model is executed: one small file per runtime, all behind the `Session` protocol.

A runtime's file offers ``refusal(device, precision)``, which says why something is not to be had, and
``open_session(job)``. It is imported when it is asked for, because what it wraps may not be installed.
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
from segcore.inference.allocator import keep_freed_memory
from segcore.inference.devices import Device
from segcore.inference.runtimes.job import Job, OperatorSpan, Profilable, ProfiledSession, Session
from segcore.inference.runtimes.upsampling import without_upsampling
from segcore.inputs.download import FetchSettings

__all__ = [
    "RUNTIMES",
    "OperatorSpan",
    "Profilable",
    "ProfiledSession",
    "Runtime",
    "Session",
    "open_session",
    "why_not",
]


@dataclass(frozen=True)
class Runtime:
    """One way to execute a model."""

    home: str
    """Name of its file in this package."""
    summary: str
    precisions: tuple[str, ...]
    packages: tuple[str, ...] = ()
    """Modules that must be installed."""
    int8_packages: tuple[str, ...] = ()
    """Modules that quantisation needs besides."""
    extra: str | None = None
    """The extra of segcore that installs them all."""

    @property
    def on_torch(self) -> bool:
        """Tell whether its memory comes from torch's allocator, which then knows the high-water mark on a GPU."""
        return not self.packages

    def missing(self, precision: str = "fp32") -> tuple[str, ...]:
        """Return which of the modules are not installed, without importing any."""
        wanted = self.packages + (self.int8_packages if precision == "int8" else ())
        return tuple(name for name in wanted if importlib.util.find_spec(name) is None)

    def module(self) -> ModuleType:
        """Import its file."""
        return importlib.import_module(f"{__name__}.{self.home}")


_HALVES = ("fp32", "bf16", "fp16")
_ONNX = ("onnx", "onnxscript")

RUNTIMES: dict[str, Runtime] = {
    "torch": Runtime("eager", "torch, operator by operator: the reference in fp32", _HALVES),
    "torch-compile": Runtime("inductor", "torch.compile, inductor backend", _HALVES),
    "onnxruntime": Runtime(
        "onnx_runtime",
        "ONNX Runtime: CPU, CUDA and CoreML providers",
        ("fp32", "fp16", "int8"),
        (*_ONNX, "onnxruntime"),
        ("nncf",),
        "onnxruntime",
    ),
    "openvino": Runtime(
        "openvino",
        "OpenVINO on the CPU",
        (*_HALVES, "int8"),
        (*_ONNX, "openvino"),
        ("nncf", "onnxruntime"),
        "openvino",
    ),
    "tensorrt": Runtime(
        "tensorrt",
        "TensorRT, by ONNX Runtime's provider",
        ("fp32", "fp16", "int8"),
        (*_ONNX, "onnxruntime"),
        ("nncf",),
        "tensorrt",
    ),
}
"""Every runtime by the name that ``--runtime`` takes."""


def why_not(name: str, device: Device, precision: str = "fp32") -> str | None:
    """Return why a runtime cannot run in a precision on a device, with the remedy; None where it can.

    Raises:
        DeviceError: there is no such runtime.
    """
    if name not in RUNTIMES:
        raise DeviceError(f"unknown runtime {name!r}{nearest_hint(name, RUNTIMES)}; known: {', '.join(RUNTIMES)}")
    runtime = RUNTIMES[name]
    if precision not in runtime.precisions:
        return f"it has no precision {precision!r}, only {', '.join(runtime.precisions)}"
    if missing := runtime.missing(precision):
        return f"not installed: {', '.join(missing)}; pip install 'segcore[{runtime.extra}]'"
    reason: str | None = runtime.module().refusal(device, precision)
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
    """Return the network ready to run, without the enlargement at its end.

    Args:
        runtime: a name of `RUNTIMES`.
        network: maps (B, 3, H, W) to logits (B, 21, H, W).
        device: where it runs.
        precision: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        settings: the cache that artifacts are kept in; from the environment when None.
        calibration: returns preprocessed photos, (1, 3, H, W), for int8.

    Raises:
        DeviceError: the runtime is unknown or not installed, or the device has no such precision.
    """
    if reason := why_not(runtime, device, precision):
        raise DeviceError(f"runtime {runtime} in {precision} on {device.name}: {reason}; see `segcore runtimes`")
    keep_freed_memory()
    cache_dir = (settings or FetchSettings.from_env()).cache_dir
    job = Job(without_upsampling(network), device, precision, cache_dir, calibration)
    session: Session = RUNTIMES[runtime].module().open_session(job)
    return session
