"""Operators of torch, eager or compiled, by ``torch.profiler``."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from segcore.inference.devices import Device
from segcore.inference.runtimes.session import OperatorTime, RuntimeProfile, Session

FORWARD = "segcore forward"
"""Name of the event around each forward pass."""
MAX_NAME = 60
"""Of a kernel: a signature can take a thousand characters."""


class ProfiledTorch:
    """A torch session under one profiler, which runs until `finish`."""

    artifact: Path | None = None

    def __init__(self, session: Session, device: Device) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it logs to stderr
        self._session = session
        self._device = device
        self.build_s = session.build_s
        on_gpu = device.torch_device.type == "cuda"
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
        self._profiler: Any = profile(activities=activities, acc_events=True)  # some releases warn without
        self._profiler.start()

    @property
    def options(self) -> dict[str, str]:
        """Those of the session."""
        return self._session.options

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), float32, for a batch (B, 3, H, W)."""
        with record_function(FORWARD):
            logits = self._session.forward(batch)
            self._device.synchronize()
        return logits

    def finish(self) -> RuntimeProfile:
        """Stop profiling and return the profile, with torch's own trace."""
        self._profiler.stop()
        with tempfile.TemporaryDirectory(prefix="segcore-") as directory:
            path = Path(directory) / "trace.json"
            self._profiler.export_chrome_trace(str(path))
            return RuntimeProfile(operators(self._profiler.events() or ()), path.read_bytes())


def operators(events: Iterable[Any]) -> tuple[tuple[OperatorTime, ...], ...]:
    """Return the operators within each forward pass, of the events of torch's profiler, in microseconds.

    If a GPU's kernels are among the events, only they have time of their own: the CPU merely queues them.
    """
    events = list(events)
    passes = [event.time_range for event in events if event.name == FORWARD and event.device_type.name == "CPU"]
    others = [event for event in events if event.name != FORWARD]
    on_gpu = any(event.device_type.name == "CUDA" for event in others)
    return tuple(
        tuple(
            _operator_time(event, on_gpu)
            for event in others
            if forward.start <= event.time_range.start and event.time_range.end <= forward.end
        )
        for forward in passes
    )


def kernel_name(signature: str) -> str:
    """Return the name of a kernel from its signature in C++: without namespaces and parameters, cut short."""
    name = re.sub(r"(?:\(anonymous namespace\)|\w+)::", "", signature.removeprefix("void "))
    depth = 0
    for index, character in enumerate(name):
        depth += (character == "<") - (character == ">")
        if character == "(" and depth == 0:
            name = name[:index]
            break
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."


def _operator_time(event: Any, on_gpu: bool) -> OperatorTime:
    if event.device_type.name == "CUDA":
        return OperatorTime(kernel_name(event.name), "kernel", (event.time_range.end - event.time_range.start) / 1e6)
    kind = event.name.rpartition("::")[0] or "call"
    return OperatorTime(event.name, kind, 0.0 if on_gpu else event.self_cpu_time_total / 1e6)
