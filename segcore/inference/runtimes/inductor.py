"""``torch.compile`` with the inductor backend: C++ on the CPU, Triton on CUDA."""

from __future__ import annotations

import os
import shutil
import time

import torch

from segcore.inference.devices import Device
from segcore.inference.runtimes import eager
from segcore.inference.runtimes.job import Job


def refusal(device: Device, precision: str) -> str | None:
    """Return why there is no compiling for that device in that precision, None where there is."""
    if device.torch_device.type == "mps":
        return "torch.compile is not supported on MPS"
    compilers = (os.environ.get("CXX") or "g++", "clang++", "cl")
    if device.torch_device.type == "cpu" and not any(map(shutil.which, compilers)):
        return "it compiles C++ and found no compiler; install g++ or clang++, or name one in CXX"
    return eager.refusal(device, precision)


class InductorSession(eager.EagerSession):
    """Compiled at the first photo, for all shapes."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        # Inductor keeps its kernels by content itself; only the place is ours.
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(job.cache_dir / "artifacts" / "inductor"))
        self._network = torch.compile(self._network, dynamic=True)
        self._shapes: set[torch.Size] = set()
        self.build_s = 0.0

    @property
    def options(self) -> dict[str, str]:
        """Threads and memory layout, backend and mode."""
        return {**super().options, "backend": "inductor", "mode": "default"}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, h, w), float32; a shape not seen before counts as building."""
        if batch.shape in self._shapes:
            return super().forward(batch)
        start = time.perf_counter()
        logits = super().forward(batch)
        self.build_s += time.perf_counter() - start
        self._shapes.add(batch.shape)
        return logits


def open_session(job: Job) -> InductorSession:
    """Return the network ready to be compiled at its first photo."""
    return InductorSession(job)
