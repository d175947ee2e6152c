"""What a runtime is asked to make ready, and what it hands back."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from segcore.inference.devices import Device
from segcore.inference.models.checkpoint import state_sha256


class Session(Protocol):
    """A network made ready to run on one device."""

    build_s: float
    """Seconds spent on exporting, quantising or compiling; 0.0 where the artifact was in the cache."""

    @property
    def options(self) -> dict[str, str]:
        """Settings that make a difference, as they are recorded."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (B, 21, h, w), for a batch (B, 3, H, W) that is on the device.

        They are at the network's own scale where it ends in an enlargement (see `coarse`), else h = H and w = W;
        `segcore.inference.decode.enlarge` brings them to (H, W).
        """


@dataclass(frozen=True)
class OperatorSpan:
    """One operator of one forward pass, as the runtime's own profiler saw it."""

    operator: str
    """Its name: of the node, or of the function."""
    kind: str
    """What carries it out, for example ``Convolution brgconv_avx512``; ``kernel`` on a GPU."""
    start_s: float
    """From the beginning of the forward pass."""
    seconds: float
    own_s: float
    """Without what it calls in turn."""


class ProfiledSession(Session, Protocol):
    """A session whose forward passes are being profiled, and slower for it."""

    def passes(self) -> list[tuple[OperatorSpan, ...]]:
        """Return the operators of every forward pass so far, and end the profile: it is called once."""


@runtime_checkable
class Profilable(Protocol):
    """What a session may be besides."""

    def profiled(self) -> ProfiledSession:
        """Return the same network under the runtime's profiler; this session stays as it is."""


@dataclass(frozen=True, eq=False)
class Job:
    """A network, and how it is to be run."""

    network: nn.Module
    """Maps (B, 3, H, W) to logits (B, 21, h, w); in evaluation mode."""
    device: Device
    precision: str
    cache_dir: Path
    calibration: Callable[[], Sequence[torch.Tensor]]
    """Preprocessed photos, float32 (1, 3, H, W), from which the ranges of int8 are taken."""

    @property
    def threads(self) -> int:
        """Intra-op threads, for every runtime those that torch is set to (`torch.set_num_threads`)."""
        return torch.get_num_threads()

    def network_key(self) -> dict[str, str]:
        """Return what tells this network from every other: structure, code that is not torch's, and weights."""
        types = {type(module) for module in self.network.modules()}
        ours = sorted({_source(kind) for kind in types if not kind.__module__.startswith(("torch.", "torchvision."))})
        code = hashlib.sha256("\n".join([repr(self.network), *ours]).encode()).hexdigest()
        return {"network": code, "weights": state_sha256(self.network)}


def _source(kind: type) -> str:
    try:
        return inspect.getsource(sys.modules[kind.__module__])  # with the functions beside it
    except (OSError, TypeError, KeyError):  # typed into an interpreter: its name must do
        return f"{kind.__module__}.{kind.__qualname__}"
