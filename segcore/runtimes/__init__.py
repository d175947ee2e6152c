"""How a model is executed: one small file per runtime, all behind the `Session` protocol."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import nn

from segcore.devices import Device
from segcore.errors import DeviceError, nearest_hint
from segcore.runtimes import eager


class Session(Protocol):
    """A model made ready to run on one device."""

    @property
    def options(self) -> dict[str, str]:
        """Settings that make a difference, as they are recorded."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, H, W) for a batch (B, 3, H, W) that is on the device."""


RUNTIMES: dict[str, Callable[[nn.Module, Device, str], Session]] = {"torch": eager.EagerSession}
"""Runtime name to a function of network, device and precision."""


def open_session(runtime: str, module: nn.Module, device: Device, precision: str = "fp32") -> Session:
    """Return the network ready to run.

    Raises:
        DeviceError: the runtime is unknown or not installed, or the device has no such precision.
    """
    if runtime not in RUNTIMES:
        hint = nearest_hint(runtime, RUNTIMES)
        raise DeviceError(f"unknown runtime {runtime!r}{hint}; known: {', '.join(RUNTIMES)}")
    return RUNTIMES[runtime](module, device, precision)
