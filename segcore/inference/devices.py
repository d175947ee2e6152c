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
    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(index)
            detail = f"{gpu.name}, compute capability {gpu.major}.{gpu.minor}"
            found.append(DeviceInfo(f"cuda:{index}" if index else "cuda", True, detail, gpu.total_memory))
    else:
        built = torch.version.cuda
        why = f"torch was built for CUDA {built}, but finds no usable GPU or driver" if built else "torch has no CUDA"
        found.append(DeviceInfo("cuda", False, why))
    machine, has_mps = platform.machine(), torch.backends.mps.is_available()
    why = "needs macOS 12.3 or newer and an Apple GPU" if torch.backends.mps.is_built() else "torch has no MPS"
    why = why if sys.platform == "darwin" else "needs an Apple GPU; this is not macOS"
    found.append(DeviceInfo("mps", has_mps, f"Apple {machine} GPU" if has_mps else why))
    cpu = f"{machine}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"
    return (*found, DeviceInfo("cpu", True, cpu))


def detect_device(preference: str | torch.device = "auto") -> torch.device:
    """Return the requested device, or with ``auto`` the best there is: CUDA, else MPS, else CPU.

    Raises:
        DeviceError: the name is unknown, or the device is not available.
    """
    wanted = str(preference).strip().lower()
    infos = {info.name: info for info in find_devices()}
    here = [name for name, info in infos.items() if info.available]
    if wanted == "auto":
        return torch.device(here[0])
    wanted = "cuda" if wanted == "cuda:0" else wanted
    if wanted not in infos:
        hint, known = nearest_hint(wanted, infos), ", ".join(infos)
        raise DeviceError(f"unknown device {preference!s}{hint}; known here: auto, {known} (see `segcore devices`)")
    if wanted not in here:
        detail = infos[wanted].detail
        raise DeviceError(f"device {wanted} is not available: {detail}; available: {', '.join(here)}")
    return torch.device(wanted)


def open_device(preference: str | torch.device = "auto") -> Device:
    """Return the `Device` for a name; see `detect_device`.

    On CUDA, fp32 is no longer rounded to the 10 bits of TF32, which torch does in convolutions by default.
    """
    device = Device(str(detect_device(preference)))
    if device.torch_device.type == "cuda":
        with quiet():  # torch 2.9 warns that these names will go; newer ones keep them
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
    return device


def tf32_option(device: Device) -> dict[str, str]:
    """Return whether fp32 is rounded to TF32, for the record; nothing on other devices than CUDA."""
    if device.torch_device.type != "cuda":
        return {}
    with quiet():
        used = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    return {"tf32": "on" if used else "off"}
