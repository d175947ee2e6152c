"""NVIDIA boards by NVML: which one torch's device is, and how fast it is allowed to run while items are measured."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from segcore.core.errors import DeviceError
from segcore.core.records import WarningRecord

REASONS = {
    0x02: "application clocks",
    0x04: "power limit",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "temperature",
    0x40: "temperature",
    0x80: "power brake",
}
"""What lowers the clock below the board's highest: bits of ``nvmlClocksEventReasons`` in nvml.h, without idling."""
FAULTS = 0x08 | 0x20 | 0x40 | 0x80
"""Those that a machine in good order does not have under load."""


@dataclass(frozen=True)
class Board:
    """One board, by its handle in NVML's Python bindings."""

    name: str
    nvml: Any
    handle: Any

    def ask(self, what: str, *args: object) -> int | None:
        """Return what a function of the bindings reports of the board; None if board or driver does not report it."""
        try:
            return int(getattr(self.nvml, what)(self.handle, *args))
        except (self.nvml.NVMLError, AttributeError):
            return None


def open_board(index: int) -> Board:
    """Return the board of one of torch's CUDA devices.

    Raises:
        DeviceError: NVML's bindings are not installed, or do not know the board.
    """
    import torch

    try:
        nvml = importlib.import_module("pynvml")
    except ImportError as error:
        raise DeviceError("NVML's Python bindings are not installed; pip install 'segcore[energy]'") from error
    properties = torch.cuda.get_device_properties(index)
    try:
        nvml.nvmlInit()
        # By UUID, because CUDA_VISIBLE_DEVICES renumbers the devices of torch but not those of NVML.
        return Board(properties.name, nvml, nvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}"))
    except nvml.NVMLError as error:
        raise DeviceError(f"NVML does not know {properties.name}: {error}") from error


@dataclass(frozen=True)
class BoardState:
    """A board at one moment; None where it does not report something."""

    clock_mhz: int | None
    """Of the multiprocessors."""
    celsius: int | None
    watts: float | None
    reasons: int
    """Bits of `REASONS`."""


@dataclass
class BoardWatch:
    """States of the board of a device (``cuda`` or ``cuda:1``), read just after its work."""

    device: str
    board: Board
    states: list[BoardState] = field(default_factory=list)

    def look(self) -> None:
        """Read the state."""
        ask = self.board.ask
        reasons = ask("nvmlDeviceGetCurrentClocksEventReasons")
        if reasons is None:  # its name before driver 535
            reasons = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
        power = ask("nvmlDeviceGetPowerUsage")
        self.states.append(
            BoardState(
                clock_mhz=ask("nvmlDeviceGetClockInfo", self.board.nvml.NVML_CLOCK_SM),
                celsius=ask("nvmlDeviceGetTemperature", self.board.nvml.NVML_TEMPERATURE_GPU),
                watts=None if power is None else power / 1e3,
                reasons=reasons or 0,
            )
        )

    def conditions(self) -> dict[str, str]:
        """Return the states as text by name, for `RunRecord.conditions`."""
        if not self.states:
            return {}
        most = self.board.ask("nvmlDeviceGetMaxClockInfo", self.board.nvml.NVML_CLOCK_SM)
        limit = self.board.ask("nvmlDeviceGetEnforcedPowerLimit")
        looks = len(self.states)
        slowed = [f"{name} ({count} of {looks} times)" for name, count in self._counts().items()]
        return {
            f"{self.device} clock": _range([s.clock_mhz for s in self.states], most, "MHz"),
            f"{self.device} temperature": _range([s.celsius for s in self.states], None, "°C"),
            f"{self.device} power": _range([s.watts for s in self.states], limit and limit / 1e3, "W"),
            f"{self.device} slowed by": ", ".join(slowed) or "nothing",
        }

    def warnings(self) -> tuple[WarningRecord, ...]:
        """Return a warning if heat or a fault slowed the board down."""
        found = self._counts(FAULTS)
        if not found:
            return ()
        share = sum(bool(state.reasons & FAULTS) for state in self.states) / len(self.states)
        text = f"{self.device} was slowed down by {' and '.join(found)}, seen after {share:.0%} of the items: cool it"
        return (WarningRecord(code="throttled", value=share, text=text),)

    def _counts(self, mask: int = ~0) -> dict[str, int]:
        """Return in how many states each reason was seen."""
        bits = {bit: name for bit, name in REASONS.items() if bit & mask}
        seen = Counter(n for s in self.states for n in {name for bit, name in bits.items() if s.reasons & bit})
        return {name: seen[name] for name in bits.values() if seen[name]}


def _range(values: Sequence[float | None], most: float | None, unit: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "unknown"
    low, high = f"{min(known):.0f}", f"{max(known):.0f}"
    return (low if low == high else f"{low} to {high}") + (f" of {most:.0f}" if most else "") + f" {unit}"


def open_watch(device: str, board: Callable[[int], Board] = open_board) -> BoardWatch | None:
    """Return a watch of a CUDA device; None for other devices, and where NVML cannot be asked."""
    kind, _, index = device.partition(":")
    if kind != "cuda":
        return None
    try:
        return BoardWatch(device, board(int(index or 0)))
    except DeviceError:
        return None
