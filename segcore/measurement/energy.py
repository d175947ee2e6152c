"""Energy of measured calls, by RAPL of processors and NVML of GPUs.

Both count everything that a processor package (with its memory) or a board uses, including other processes and idle
power.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from segcore.core.errors import DeviceError
from segcore.core.records import EnergyRecord
from segcore.measurement.gpu import open_board

POWERCAP = "sys/class/powercap"
"""Where Linux exposes RAPL, also of AMD's processors: the kernel's power/powercap/powercap."""


@dataclass(frozen=True)
class EnergyCounter:
    """A cumulative counter of energy in one part or several."""

    name: str
    """What it counts, for example ``RAPL package-0 + dram``."""
    read: Callable[[], tuple[int, ...]]
    """Returns the state of each part; raises OSError if it can no longer be read."""
    per_joule: float
    ranges: tuple[int, ...]
    """Where each part restarts at zero: RAPL after an hour or less at full load, NVML's 64 bits never."""

    def joules(self, before: tuple[int, ...], after: tuple[int, ...]) -> float:
        """Return the joules between two states; each part may have restarted once."""
        parts = zip(self.ranges, before, after, strict=True)
        return sum(new - old if new >= old else new - old + wrap for wrap, old, new in parts) / self.per_joule


def open_counter(device: str, root: Path = Path("/")) -> EnergyCounter:
    """Return the counter of a device such as ``cpu`` or ``cuda:1``; `root` is the directory that contains ``sys``.

    Raises:
        DeviceError: there is none, or it cannot be read.
    """
    kind, _, index = device.partition(":")
    if kind == "cpu":
        return _rapl(root / POWERCAP)
    if kind == "cuda":
        return _nvml(int(index or 0))
    raise DeviceError(f"no energy counter of {kind} is known")


def _rapl(directory: Path) -> EnergyCounter:
    # A package includes core and uncore but not dram, its other subzone; psys is the whole board.
    names = {path: _name(path) for path in sorted(directory.glob("intel-rapl:*"))}
    zones = {path: name for path, name in names.items() if name.startswith("package") or name == "dram"}
    if not any(name.startswith("package") for name in zones.values()):
        raise DeviceError(f"{directory} shows no RAPL package: a virtual machine, another processor, or not Linux")

    def microjoules(file: str) -> tuple[int, ...]:
        return tuple(int((zone / file).read_text(encoding="ascii")) for zone in zones)

    try:
        microjoules("energy_uj")
        ranges = microjoules("max_energy_range_uj")
    except PermissionError as error:
        raise DeviceError(
            f"{error.filename} can be read by root alone; allow it: sudo chmod a+r {directory}/intel-rapl:*/energy_uj"
        ) from error
    except (OSError, ValueError) as error:
        raise DeviceError(f"a RAPL counter in {directory} cannot be read: {error}") from error
    return EnergyCounter(f"RAPL {' + '.join(zones.values())}", lambda: microjoules("energy_uj"), 1e6, ranges)


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _nvml(index: int) -> EnergyCounter:
    """Return the counter of one board since its driver was loaded; Volta or newer."""
    board = open_board(index)

    def millijoules() -> tuple[int, ...]:
        try:
            return (int(board.nvml.nvmlDeviceGetTotalEnergyConsumption(board.handle)),)
        except board.nvml.NVMLError as error:
            raise OSError(f"NVML: {error}") from error

    try:
        millijoules()
    except OSError as error:
        raise DeviceError(f"{board.name} has no energy counter that can be read: {error}") from error
    return EnergyCounter(f"NVML {board.name}", millijoules, 1e3, (1 << 64,))


class EnergyMeter:
    """Measures energy from `start` to `stop`; nothing if there is no counter."""

    def __init__(self, counter: EnergyCounter | None) -> None:
        self._counter = counter
        self._before: tuple[int, ...] | None = None

    def start(self) -> None:
        """Read the counter."""
        self._before = self._read()

    def stop(self, calls: int) -> EnergyRecord | None:
        """Return the energy of this many calls since `start`; None if it was not counted."""
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
