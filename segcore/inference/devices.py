"""Devices: finding them, moving tensors, synchronising, peak memory.

All code that measures takes a `Device`, so a test's subclass can prove without an accelerator that no timed region
lacks a synchronisation.
"""

from __future__ import annotations

import contextlib
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from segcore.core.errors import DeviceError, nearest_hint
from segcore.core.quiet import quiet

PROCESS = Path("/proc/self")
"""What Linux reports about this process."""


@dataclass(frozen=True)
class DeviceInfo:
    """A device, or why there is none."""

    name: str
    """``cpu``, ``mps``, ``cuda`` or ``cuda:1``, as ``--device`` takes it."""
    available: bool
    detail: str
    """Product name if available, else the reason."""
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Device:
    """CUDA, MPS or CPU through torch: a device that tensors can be put on and waited for."""

    name: str
    """As ``--device`` takes it: ``cpu``, ``mps``, ``cuda``, ``cuda:1``."""

    @property
    def torch_device(self) -> torch.device:
        """The device as torch names it."""
        return torch.device(self.name)

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the tensor on this device; to a GPU through pinned memory, which torch keeps, at twice the speed."""
        if self.torch_device.type == "cuda" and tensor.device.type == "cpu":
            return tensor.pin_memory().to(self.torch_device, non_blocking=True)
        return tensor.to(self.torch_device)

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done; on the CPU nothing is ever queued."""
        match self.torch_device.type:
            case "cuda":
                torch.cuda.synchronize(self.torch_device)
            case "mps":
                torch.mps.synchronize()

    def reset_peak_memory(self) -> bool:
        """Reset the peak of memory; return False if it cannot be reset.

        CUDA's allocator has one, and Linux one of the process's resident memory. Elsewhere (``ru_maxrss`` of macOS, a
        sandbox) the peak is that of the process's whole life.
        """
        match self.torch_device.type:
            case "cuda":
                torch.cuda.reset_peak_memory_stats(self.torch_device)
                return True
            case "cpu":
                with contextlib.suppress(OSError):
                    (PROCESS / "clear_refs").write_text("5", encoding="ascii")  # see proc(5)
                    return self.peak_memory_bytes() is not None
        return False

    def peak_memory_bytes(self) -> int | None:
        """Return the peak in bytes since the last reset: CUDA's allocator or Linux's resident memory, else None."""
        match self.torch_device.type:
            case "cuda":
                return int(torch.cuda.max_memory_allocated(self.torch_device))
            case "cpu":
                with contextlib.suppress(OSError):
                    status = (PROCESS / "status").read_text(encoding="ascii", errors="replace")
                    if match := re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE):
                        return int(match[1]) * 1024
        return None


def find_devices() -> tuple[DeviceInfo, ...]:
    """Return CUDA (one entry per GPU), MPS and CPU, in the order that ``auto`` prefers them."""
    return (*_cuda_devices(), _mps_device(), _cpu_device())


def _cuda_devices() -> tuple[DeviceInfo, ...]:
    if not torch.cuda.is_available():
        built = torch.version.cuda
        why = f"torch was built for CUDA {built}, but finds no usable GPU or driver" if built else "torch has no CUDA"
        return (DeviceInfo("cuda", False, why),)
    infos = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        detail = f"{properties.name}, compute capability {properties.major}.{properties.minor}"
        infos.append(DeviceInfo(f"cuda:{index}" if index else "cuda", True, detail, properties.total_memory))
    return tuple(infos)


def _mps_device() -> DeviceInfo:
    if torch.backends.mps.is_available():
        return DeviceInfo("mps", True, f"Apple {platform.machine()} GPU")
    if sys.platform != "darwin":
        return DeviceInfo("mps", False, "needs an Apple GPU; this is not macOS")
    built = torch.backends.mps.is_built()
    return DeviceInfo("mps", False, "needs macOS 12.3 or newer and an Apple GPU" if built else "torch has no MPS")


def _cpu_device() -> DeviceInfo:
    capability = torch.backends.cpu.get_cpu_capability()
    return DeviceInfo("cpu", True, f"{platform.machine()}, {capability}, {torch.get_num_threads()} threads")


def detect_device(preference: str | torch.device = "auto") -> torch.device:
    """Return the requested device, or with ``auto`` the best there is: CUDA, else MPS, else CPU.

    Raises:
        DeviceError: the name is unknown, or the device is not available.
    """
    wanted = str(preference).strip().lower()
    infos = find_devices()
    if wanted == "auto":
        return torch.device(next(info.name for info in infos if info.available))
    wanted = "cuda" if wanted == "cuda:0" else wanted
    match = next((info for info in infos if info.name == wanted), None)
    if match is None:
        names = [info.name for info in infos]
        hint = nearest_hint(wanted, names)
        known = ", ".join(names)
        raise DeviceError(f"unknown device {preference!s}{hint}; known here: auto, {known} (see `segcore devices`)")
    if not match.available:
        here = ", ".join(info.name for info in infos if info.available)
        raise DeviceError(f"device {wanted} is not available: {match.detail}; available: {here}")
    return torch.device(match.name)


def open_device(preference: str | torch.device = "auto") -> Device:
    """Return the `Device` for a name; see `detect_device`. On CUDA, TF32 is switched off: fp32 is fp32."""
    device = Device(str(detect_device(preference)))
    if device.torch_device.type == "cuda":
        switch_off_tf32()
    return device


def tf32_option(device: Device) -> dict[str, str]:
    """Return whether fp32 is rounded to TF32, for the record; nothing on other devices than CUDA."""
    if device.torch_device.type != "cuda":
        return {}
    with quiet():
        used = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return {"tf32": "on" if used else "off"}


def switch_off_tf32() -> None:
    """Keep CUDA from rounding fp32 to the 10 bits of TF32, which torch does in convolutions unless told otherwise."""
    with quiet():  # torch 2.9 warns that these names will go; newer ones keep them
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
