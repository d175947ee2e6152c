"""What a runtime gets (`BuildRequest`) and what it returns (`Session`)."""

from __future__ import annotations

import hashlib
import inspect
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from types import FunctionType, MethodType
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from segcore.inference.devices import Device
from segcore.inference.models.checkpoint import tensor_bytes
from segcore.inference.models.sources.torch_files import FileNetwork


class Session(Protocol):
    """A network that is ready to run on one device."""

    build_s: float
    """Seconds of exporting, quantising or compiling; 0.0 if the artifact was in the cache."""
    artifact: Path | None
    """The file that the runtime loaded; None if it runs the network itself."""

    @property
    def options(self) -> dict[str, str]:
        """Settings that affect speed or results, as recorded."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits, float32 (B, classes, h, w), for a batch (B, 3, H, W) that is on the device.

        If the network ends in an upsampling, they are at its own scale (see `without_upsampling`), else h = H and
        w = W; `segcore.inference.decode.enlarge` brings them to (H, W).
        """


@dataclass(frozen=True)
class OperatorTime:
    """One operator of one forward pass, as timed by the runtime's own profiler."""

    operator: str
    """Name of the node or function."""
    kind: str
    """Type and implementation, for example ``Convolution brgconv_avx512``; ``kernel`` on a GPU."""
    seconds: float
    """Without the operators that it calls."""


@dataclass(frozen=True)
class RuntimeProfile:
    """The output of a runtime's own profiler."""

    passes: tuple[tuple[OperatorTime, ...], ...]
    trace: bytes | None
    """The runtime's own trace file, in Chrome's JSON format; None if it writes none."""


class ProfiledSession(Session, Protocol):
    """A session that profiles its forward passes, which makes them slower."""

    def finish(self) -> RuntimeProfile:
        """Stop profiling and return the profile; call it once."""


@runtime_checkable
class Profilable(Protocol):
    """A session whose runtime has a profiler."""

    def profiled(self) -> ProfiledSession:
        """Return a session for the same network under the runtime's profiler; this one stays as it is."""


@runtime_checkable
class FileSession(Protocol):
    """A session that runs a file."""

    def on_file(self, path: Path) -> Session:
        """Return a session with the same settings on another file, with the same inputs and outputs."""


@runtime_checkable
class Adaptive(Protocol):
    """A session that becomes faster on shapes that recur."""

    @property
    def settled(self) -> bool:
        """Whether the next batch of the last one's shape runs as this one did."""


@dataclass(frozen=True)
class Example:
    """Shape of an input that a network takes; a dimension of 1 would be taken for a constant by exports."""

    shape: tuple[int, int, int, int] = (2, 3, 192, 160)
    one_size: bool = False
    """Whether the network takes no other height and width."""


@dataclass(frozen=True, eq=False)
class BuildRequest:
    """A network, and how to run it."""

    network: nn.Module
    """Maps (B, 3, H, W) to logits (B, classes, h, w): an `inference_copy`, which the session may move and convert; or a
    `FileModel` or `ProgramModel`."""
    device: Device
    precision: str
    cache_dir: Path
    calibration: Callable[[], Sequence[torch.Tensor]]
    """Returns preprocessed photos, float32 (1, 3, H, W), that int8 takes its ranges from."""
    example: Example = Example()

    @property
    def threads(self) -> int:
        """Intra-op threads: in every runtime those that torch is set to (`torch.set_num_threads`)."""
        return torch.get_num_threads()

    def network_key(self) -> dict[str, str]:
        """Return what identifies the network: structure, code that is not torch's, weights and other attributes."""
        return {"network": _described(self.network, {})}


def _described(value: object, seen: dict[int, tuple[int, object]]) -> str:
    """Describe a value by its contents, equally in every process; what has none, by its type.

    `seen` holds what was described before, by its identity, so that cycles end and no identity is used again.
    """
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, str | bytes | int | float | complex | type | torch.dtype | torch.device | None):
        return repr(value)
    if id(value) in seen:
        return f"{kind} {seen[id(value)][0]}"
    seen[id(value)] = len(seen), value
    if isinstance(value, torch.Tensor | np.ndarray):
        data = tensor_bytes(value) if isinstance(value, torch.Tensor) else value.tobytes()
        return f"{kind} {value.dtype} {tuple(value.shape)} {_sha256(data)}"
    if isinstance(value, FileNetwork):
        inner = [value.identity]
    elif isinstance(value, dict):
        inner = [_described(item, seen) for item in value.items()]
    elif isinstance(value, list | tuple | set | frozenset):
        inner = [_described(item, seen) for item in value]
        inner = sorted(inner) if isinstance(value, set | frozenset) else inner
    elif isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        code = value.__code__
        inner = [value.__qualname__, code.co_code.hex(), _described([code.co_names, code.co_consts, cells], seen)]
    elif isinstance(value, MethodType):
        inner = [value.__name__, _described(value.__self__, seen)]
    elif isinstance(value, partial):
        inner = [_described([value.func, value.args, value.keywords], seen)]
    elif hasattr(value, "__dict__"):
        inner = [_described(vars(value), seen)]
        if isinstance(value, nn.Module) and not kind.startswith(("torch.", "torchvision.")):
            inner.append(_source(type(value).__module__))
    else:
        inner = [re.sub(r" at 0x[0-9a-f]+", "", repr(value))]
    return f"{kind} {_sha256(repr(inner).encode())}"


def _sha256(data: bytes | memoryview) -> str:
    return hashlib.sha256(data).hexdigest()


@cache
def _source(module: str) -> str:
    """Return a hash of the source of a module; empty for one of an interactive session."""
    try:
        return _sha256(inspect.getsource(sys.modules[module]).encode())
    except (OSError, TypeError, KeyError):
        return ""
