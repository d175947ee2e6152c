"""Fakes for code that measures: a device, an energy counter and a clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from segcore.inference.devices import Device
from segcore.measurement.energy import EnergyCounter


def fake_counter(*states: int) -> EnergyCounter:
    """Return a counter that increases by 10 J per reading, or has these states and then fails."""
    left = iter(states or range(0, 1000, 10))

    def read() -> tuple[int, ...]:
        state = next(left, None)
        if state is None:
            raise OSError("gone")
        return (state,)

    return EnergyCounter("fake", read, per_joule=1.0, ranges=(0,))


@dataclass
class FakeClock:
    """Advances only when slept on, or when a query is served."""

    time: float = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.time += seconds


@dataclass(frozen=True)
class FakeDevice(Device):
    """A CPU that records the order of events."""

    name: str = "fake"
    events: list[str] = field(default_factory=list)

    @property
    def torch_device(self) -> torch.device:
        return torch.device("cpu")

    def put(self, tensor: torch.Tensor) -> torch.Tensor:
        self.events.append("put")
        return tensor

    def synchronize(self) -> None:
        self.events.append("synchronize")

    def reset_peak_memory(self) -> bool:
        self.events.append("reset_peak_memory")
        return True

    def peak_memory_bytes(self) -> int | None:
        return 1 << 20
