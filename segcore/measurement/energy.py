"""The energy that calls take, where the machine has a counter that may be read: RAPL of processors, NVML of GPUs.

Both count all that a processor package (and its memory) or a board takes, whoever uses it, idle power included.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from segcore.core.errors import DeviceError
from segcore.core.records import EnergyRecord

POWERCAP = "sys/class/powercap"
"""Where Linux shows RAPL, of AMD's processors too: the kernel's power/powercap/powercap."""


class EnergyCounter(Protocol):
    """Something that adds up joules."""

    @property
    def name(self) -> str:
        """What it counts, for example ``RAPL package-0 + dram``."""

    def read(self) -> tuple[int, ...]:
        """Return its state now.

        Raises:
            OSError: it cannot be read any more.
        """

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules between two states."""


@dataclass(frozen=True)
class RaplZone:
    """One domain of running average power limiting that the kernel shows as a directory."""

    name: str
    file: Path
    """Holds microjoules; ``energy_uj``."""
    range_uj: int
    """Where the counter begins at zero again: ``max_energy_range_uj``, an hour or less at full load."""


@dataclass(frozen=True)
class RaplCounter:
    """All packages of the machine and their memory."""

    zones: tuple[RaplZone, ...]

    @property
    def name(self) -> str:
        """The zones by the kernel's names."""
        return f"RAPL {' + '.join(zone.name for zone in self.zones)}"

    def read(self) -> tuple[int, ...]:
        """Return the microjoules of each zone."""
        return tuple(_number(zone.file) for zone in self.zones)

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the sum over the zones; each may have wrapped around once."""
        steps = zip(self.zones, before, after, strict=True)
        return sum(new - old if new >= old else new - old + zone.range_uj for zone, old, new in steps) / 1e6


@dataclass(frozen=True)
class NvmlCounter:
    """One board, since its driver was loaded (``nvmlDeviceGetTotalEnergyConsumption``, Volta or newer)."""

    nvml: Any
    handle: Any
    name: str

    def read(self) -> tuple[int, ...]:
        """Return its millijoules."""
        try:
            return (int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)),)
        except self.nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the difference: 64 bits do not wrap around."""
        return (after[0] - before[0]) / 1e3


def open_counter(device: str, root: Path = Path("/")) -> EnergyCounter:
    """Return the counter of a device.

    Args:
        device: as ``--device`` takes it: ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        root: where ``sys`` is looked for.

    Raises:
        DeviceError: there is none, or it may not be read; the message says why.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return _rapl(root)
    if kind == "cuda":
        return _nvml(int(index or 0))
    raise DeviceError(f"no energy counter of {kind} is known")


def _rapl(root: Path) -> RaplCounter:
    directory = root / POWERCAP
    # Below a package lie core and uncore, which it contains, and dram, which it does not; psys is the whole board.
    names = {path: _text(path / "name") for path in sorted(directory.glob("intel-rapl:*"))}
    wanted = {path: name for path, name in names.items() if name.startswith("package") or name == "dram"}
    if not any(name.startswith("package") for name in wanted.values()):
        raise DeviceError(f"{directory} shows no RAPL package: a virtual machine, another processor, or not Linux")
    try:
        zones = tuple(
            RaplZone(name, path / "energy_uj", _number(path / "max_energy_range_uj")) for path, name in wanted.items()
        )
        counter = RaplCounter(zones)
        counter.read()
    except PermissionError as error:
        raise DeviceError(
            f"{error.filename} may be read by root alone; allow it: sudo chmod a+r {directory}/intel-rapl:*/energy_uj"
        ) from error
    except (OSError, ValueError) as error:
        raise DeviceError(f"a RAPL counter in {directory} cannot be read: {error}") from error
    return counter


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))


def _nvml(index: int) -> NvmlCounter:
    import torch

    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise DeviceError("NVML's Python bindings are not installed; pip install 'segcore[energy]'") from error
    properties = torch.cuda.get_device_properties(index)
    try:
        nvml.nvmlInit()
        # By what it is, not by its number: CUDA_VISIBLE_DEVICES renumbers torch's devices alone.
        handle = nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        counter = NvmlCounter(nvml, handle, f"NVML {properties.name}")
        counter.read()
    except (nvml.NVMLError, OSError) as error:
        raise DeviceError(f"{properties.name} has no energy counter that can be read: {error}") from error
    return counter


class EnergyMeter:
    """Joules from `start` to `stop`.

    Args:
        counter: None where there is none: then nothing is measured.
    """

    def __init__(self, counter: EnergyCounter | None) -> None:
        self._counter = counter
        self._before: tuple[int, ...] | None = None

    def start(self) -> None:
        """Note the counter's state."""
        self._before = self._read()

    def stop(self, calls: int) -> EnergyRecord | None:
        """Return what the calls since `start` took; None without a counter, or where it has not moved.

        Args:
            calls: how many there were.
        """
        after = self._read()
        if self._counter is None or self._before is None or after is None or not calls:
            return None
        joules = self._counter.joules(self._before, after)
        return EnergyRecord(joules=joules, calls=calls, counter=self._counter.name) if joules > 0 else None

    def _read(self) -> tuple[int, ...] | None:
        try:
            return self._counter.read() if self._counter else None
        except OSError:
            return None
