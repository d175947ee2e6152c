"""Energy of measured calls, by RAPL of processors and NVML of GPUs.

Both count everything that a processor package (with its memory) or a board uses, including other processes and idle
power.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segcore.core.errors import DeviceError
from segcore.core.records import EnergyRecord
from segcore.measurement.gpu import Board, open_board

POWERCAP = "sys/class/powercap"
"""Where Linux exposes RAPL, also of AMD's processors: the kernel's power/powercap/powercap."""


class EnergyCounter(Protocol):
    """A cumulative counter of energy."""

    @property
    def name(self) -> str:
        """What it counts, for example ``RAPL package-0 + dram``."""

    def read(self) -> tuple[int, ...]:
        """Return the current state.

        Raises:
            OSError: it can no longer be read.
        """

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules between two states."""


@dataclass(frozen=True)
class RaplCounter:
    """The packages of the machine and their memory."""

    name: str
    files: tuple[Path, ...]
    """``energy_uj`` of each zone: microjoules."""
    ranges: tuple[int, ...]
    """``max_energy_range_uj`` of each zone, where its counter restarts at zero: after an hour or less at full load."""

    def read(self) -> tuple[int, ...]:
        """Return the microjoules of each zone."""
        return tuple(map(_number, self.files))

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the sum over the zones, each of which may have wrapped around once."""
        steps = zip(self.ranges, before, after, strict=True)
        return sum(new - old if new >= old else new - old + wrap for wrap, old, new in steps) / 1e6


@dataclass(frozen=True)
class NvmlCounter:
    """One board, since its driver was loaded (``nvmlDeviceGetTotalEnergyConsumption``, Volta or newer)."""

    board: Board

    @property
    def name(self) -> str:
        """That of the board."""
        return f"NVML {self.board.name}"

    def read(self) -> tuple[int, ...]:
        """Return the millijoules."""
        nvml = self.board.nvml
        try:
            return (int(nvml.nvmlDeviceGetTotalEnergyConsumption(self.board.handle)),)
        except nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the difference: 64 bits do not wrap around."""
        return (after[0] - before[0]) / 1e3


def open_counter(device: str, root: Path = Path("/")) -> EnergyCounter:
    """Return the counter of a device.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        root: directory that contains ``sys``.

    Raises:
        DeviceError: there is none, or it cannot be read.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return _rapl(root / POWERCAP)
    if kind == "cuda":
        return _nvml(int(index or 0))
    raise DeviceError(f"no energy counter of {kind} is known")


def _rapl(directory: Path) -> RaplCounter:
    # A package includes core and uncore but not dram, its other subzone; psys is the whole board.
    names = {path: _name(path) for path in sorted(directory.glob("intel-rapl:*"))}
    zones = {path: name for path, name in names.items() if name.startswith("package") or name == "dram"}
    if not any(name.startswith("package") for name in zones.values()):
        raise DeviceError(f"{directory} shows no RAPL package: a virtual machine, another processor, or not Linux")
    try:
        ranges = tuple(_number(path / "max_energy_range_uj") for path in zones)
        counter = RaplCounter(f"RAPL {' + '.join(zones.values())}", tuple(p / "energy_uj" for p in zones), ranges)
        counter.read()
    except PermissionError as error:
        raise DeviceError(
            f"{error.filename} can be read by root alone; allow it: sudo chmod a+r {directory}/intel-rapl:*/energy_uj"
        ) from error
    except (OSError, ValueError) as error:
        raise DeviceError(f"a RAPL counter in {directory} cannot be read: {error}") from error
    return counter


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))


def _nvml(index: int) -> NvmlCounter:
    counter = NvmlCounter(open_board(index))
    try:
        counter.read()
    except OSError as error:
        raise DeviceError(f"{counter.board.name} has no energy counter that can be read: {error}") from error
    return counter


class EnergyMeter:
    """Measures energy from `start` to `stop`; without a counter, nothing.

    Args:
        counter: of the device, if it has one.
    """

    def __init__(self, counter: EnergyCounter | None) -> None:
        self._counter = counter
        self._before: tuple[int, ...] | None = None

    def start(self) -> None:
        """Read the counter."""
        self._before = self._read()

    def stop(self, calls: int) -> EnergyRecord | None:
        """Return the energy of so many calls since `start`; None if it was not counted."""
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
