"""A short fixed task that runs before and after each round of every item and shows how fast the machine was meanwhile.

A matrix product and a convolution, of a few milliseconds in all, on as many threads as the item: two processors that
share a core are slower for two threads, and not for one. The logarithms of their times and of those of `embedded` at
320 pixels had a correlation of 0.96 to 0.98 over blocks of 15 calls. A copy, with -0.89, is not part of the task.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F

from segcore.inference.devices import Device

SIDES = {"cpu": (384, 32, 80)}
"""Side of the matrices, channels and side of the convolved image, by type of device."""
SIDES_ACCELERATOR = (1024, 128, 80)
REPEATS = 5
"""The first of them meets the caches as the item has left them, and slow items have few rounds."""
FRESH_S = 0.05
"""For so long the latest figure holds: between calls of a few milliseconds the task would take most of the time."""


def around(ends: Sequence[float]) -> tuple[float, ...]:
    """Return the time of the task around each round: the mean of those before and after it, from n + 1 times to n."""
    return tuple((before + after) / 2 for before, after in pairwise(ends))


class ReferenceTask:
    """The task on one device: ``task()`` runs it and returns its seconds, by a clock of nanoseconds."""

    def __init__(self, device: Device, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self._device, self._clock = device, clock
        self._run = _make_task(device.torch_device)
        self._latest_s = self._measure()  # chooses algorithms and maps pages
        self._until_ns = 0

    def __call__(self) -> float:
        """Run the task `REPEATS` times; return the median of its seconds, or the latest one if it is fresh."""
        if self._clock() >= self._until_ns:
            self._latest_s = self._measure()
            self._until_ns = self._clock() + round(1e9 * FRESH_S)
        return self._latest_s

    def _measure(self) -> float:
        return statistics.median(seconds_of(self._run, self._device, self._clock) for _ in range(REPEATS))


def seconds_of(run: Callable[[], object], device: Device, clock: Callable[[], int]) -> float:
    """Return the seconds that a call takes on a device, by a clock of nanoseconds."""
    device.synchronize()
    start = clock()
    run()
    device.synchronize()
    return (clock() - start) / 1e9


def _make_task(device: torch.device) -> Callable[[], None]:
    side, channels, image_side = SIDES.get(device.type, SIDES_ACCELERATOR)
    matrix = torch.ones(side, side, device=device)
    image = torch.ones(1, channels, image_side, image_side, device=device)
    weight = torch.ones(channels, channels, 3, 3, device=device)

    def run() -> None:
        with torch.inference_mode():
            torch.mm(matrix, matrix)
            F.conv2d(image, weight, padding=1)

    return run
