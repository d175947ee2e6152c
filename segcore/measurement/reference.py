"""A short fixed task that runs between the rounds of every item and shows how fast the machine was meanwhile.

A matrix product, a convolution and a copy, of a few milliseconds in all, so that they take little of the time between
two rounds. Their work never changes: when their time does, the machine did. On a CPU they use one thread and none of
torch's, because two threads that wait for each other may take a hundred times as long beside a busy neighbour, and
because changing torch's threads would make it forget the kernels that it has prepared.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F

from segcore.inference.devices import Device

SIDE, SIDE_GPU = 128, 1024
TAPS, SIGNAL = 64, 1 << 16
CHANNELS, IMAGE_SIDE = 128, 80
COPY_FLOATS, COPY_FLOATS_GPU = 1 << 20, 1 << 24


class ReferenceTask:
    """The task on one device: ``task()`` runs it and returns its seconds.

    Args:
        device: that the items run on.
        clock: nanoseconds.
    """

    def __init__(self, device: Device, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._device, self._clock = device, clock
        self._run = _on_cpu() if device.torch_device.type == "cpu" else _on_gpu(device.torch_device)
        self()  # chooses algorithms and maps pages

    def __call__(self) -> float:
        """Run the task; return its seconds."""
        self._device.synchronize()
        start = self._clock()
        self._run()
        self._device.synchronize()
        return (self._clock() - start) / 1e9


def _on_cpu() -> Callable[[], None]:
    matrix, product = np.ones((SIDE, SIDE), dtype=np.float32), np.empty((SIDE, SIDE), dtype=np.float32)
    signal, kernel = np.ones(SIGNAL, dtype=np.float32), np.ones(TAPS, dtype=np.float32)
    source, target = np.ones(COPY_FLOATS, dtype=np.float32), np.empty(COPY_FLOATS, dtype=np.float32)

    def run() -> None:
        np.einsum("ij,jk->ik", matrix, matrix, out=product, optimize=False)  # not BLAS, which has threads
        np.correlate(signal, kernel)
        np.copyto(target, source)

    return run


def _on_gpu(on: torch.device) -> Callable[[], None]:
    matrix = torch.ones(SIDE_GPU, SIDE_GPU, device=on)
    image = torch.ones(1, CHANNELS, IMAGE_SIDE, IMAGE_SIDE, device=on)
    weight = torch.ones(CHANNELS, CHANNELS, 3, 3, device=on)
    source = torch.ones(COPY_FLOATS_GPU, device=on)
    target = torch.empty_like(source)

    def run() -> None:
        with torch.inference_mode():
            torch.mm(matrix, matrix)
            F.conv2d(image, weight, padding=1)
            target.copy_(source)

    return run
