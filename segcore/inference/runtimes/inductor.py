"""``torch.compile`` with the inductor backend: C++ on the CPU, Triton on CUDA."""

from __future__ import annotations

import os
import shutil
import threading
import time

import torch

from segcore.inference.devices import Device
from segcore.inference.process_state import alone
from segcore.inference.runtimes import eager
from segcore.inference.runtimes.session import BuildRequest


def refusal(device: Device, precision: str) -> str | None:
    """Return why torch.compile does not work for that device and precision, None if it does."""
    if device.torch_device.type == "mps":
        return "torch.compile is not supported on MPS"
    compilers = (os.environ.get("CXX") or "g++", "clang++", "cl")
    if device.torch_device.type == "cpu" and not any(map(shutil.which, compilers)):
        return "torch.compile needs a C++ compiler and found none; install g++ or clang++, or set CXX"
    return eager.refusal(device, precision)


class InductorSession(eager.EagerSession):
    """A network compiled at the first photo, for all shapes; it runs one batch at a time, whichever thread asks."""

    def __init__(self, request: BuildRequest) -> None:
        super().__init__(request)
        self._network = torch.compile(self._network, dynamic=True)
        self._shapes: set[torch.Size] = set()
        self._turn = threading.Lock()
        self.build_s = 0.0

    @property
    def options(self) -> dict[str, str]:
        """Threads and memory layout, backend and mode."""
        return {**super().options, "backend": "inductor", "mode": "default"}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), float32; the first batch of a shape counts as building."""
        with self._turn:
            if batch.shape in self._shapes:
                return super().forward(batch)
            with alone():
                start = time.perf_counter()
                logits = super().forward(batch)
            self.build_s += time.perf_counter() - start
            self._shapes.add(batch.shape)
            return logits


open_session = InductorSession
