"""Operators of torch, eager or compiled, by ``torch.profiler``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from segcore.inference.devices import Device
from segcore.inference.runtimes.job import OperatorSpan, Session

FORWARD = "segcore forward"
"""Name of the event around each forward pass."""


class ProfiledTorch:
    """A session of torch's under one profile, which goes on until `passes` is called."""

    def __init__(self, session: Session, device: Device) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or it tells of its own doings on stderr
        self._session = session
        self._device = device
        self.build_s = session.build_s
        on_gpu = device.torch_device.type == "cuda"
        self._profiler: Any = profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])])
        self._profiler.start()

    @property
    def options(self) -> dict[str, str]:
        """Those of the session."""
        return self._session.options

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, h, w), float32, for a batch (B, 3, H, W)."""
        with record_function(FORWARD):
            logits = self._session.forward(batch)
            self._device.synchronize()
        return logits

    def passes(self) -> list[tuple[OperatorSpan, ...]]:
        """Return the operators of every forward pass so far, and end the profile."""
        self._profiler.stop()
        return spans(self._profiler.events() or ())


def spans(events: Iterable[Any]) -> list[tuple[OperatorSpan, ...]]:
    """Return what lies within each forward pass.

    Where there are kernels of a GPU, these alone have time of their own: the CPU only queues them.

    Args:
        events: of torch's profiler (``torch.autograd.profiler_util.FunctionEvent``), times in microseconds.
    """
    events = list(events)
    marks = [event for event in events if event.name == FORWARD and event.device_type.name == "CPU"]
    others = [event for event in events if event.name != FORWARD]
    on_gpu = any(event.device_type.name == "CUDA" for event in others)
    return [
        tuple(
            _span(event, mark.time_range.start, on_gpu)
            for event in others
            if mark.time_range.start <= event.time_range.start and event.time_range.end <= mark.time_range.end
        )
        for mark in marks
    ]


def _span(event: Any, begin: float, on_gpu: bool) -> OperatorSpan:
    kernel = event.device_type.name == "CUDA"
    seconds = (event.time_range.end - event.time_range.start) / 1e6
    own = seconds if kernel else 0.0 if on_gpu else event.self_cpu_time_total / 1e6
    kind = "kernel" if kernel else event.name.rpartition("::")[0] or "call"
    return OperatorSpan(event.name, kind, (event.time_range.start - begin) / 1e6, seconds, own)
