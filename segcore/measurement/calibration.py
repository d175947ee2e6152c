"""What a device can do at best, measured in the same session as the models: the yardstick of their efficiency.

Three kernels, each many times as large as the cost of calling it: a matrix product, a convolution of the kind that
makes up most of FCN-ResNet101 (3x3, 256 to 256 channels, dilated, at an eighth of 640 pixels), and a memory copy.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from segcore.core.records import CalibrationRecord
from segcore.inference.devices import Device

MIN_ROUNDS = 5
KERNEL_SECONDS = 0.3
"""Time given to each kernel after one warm-up call; rounds are added up to it."""
CHANNELS, SIDE = 256, 80
CONV_GMACS = CHANNELS * CHANNELS * 9 * SIDE * SIDE / 1e9
COPY_BYTES = 64 << 20

Clock = Callable[[], int]


def calibrate(device: Device, clock: Clock = time.perf_counter_ns) -> CalibrationRecord:
    """Return the rates of the three kernels on a device: about a second on a CPU."""
    return CalibrationRecord(
        device=device.name,
        matmul_gmacs_per_s=matmul_rate(device, clock),
        conv_gmacs_per_s=_conv_rate(device, clock),
        copy_gbytes_per_s=_copy_rate(device, clock),
    )


def matmul_rate(device: Device, clock: Clock = time.perf_counter_ns) -> float:
    """Return the GMAC/s of a square float32 matrix product: 1024 wide on a CPU, 4096 on a GPU."""
    side = 1024 if device.torch_device.type == "cpu" else 4096
    left, right = (torch.ones(side, side, device=device.torch_device) for _ in range(2))
    return side**3 / 1e9 / _median_seconds(lambda: left @ right, device, clock)


def _conv_rate(device: Device, clock: Clock) -> float:
    """GMAC/s of the convolution, in float32, one image."""
    image = torch.ones(1, CHANNELS, SIDE, SIDE, device=device.torch_device)
    weight = torch.ones(CHANNELS, CHANNELS, 3, 3, device=device.torch_device)
    return CONV_GMACS / _median_seconds(lambda: F.conv2d(image, weight, padding=2, dilation=2), device, clock)


def _copy_rate(device: Device, clock: Clock) -> float:
    """GB/s of a copy within the device's memory; bytes read and written both count, as in STREAM (McCalpin 1995)."""
    source = torch.ones(COPY_BYTES // 4, device=device.torch_device)
    target = torch.empty_like(source)
    return 2 * COPY_BYTES / 1e9 / _median_seconds(lambda: target.copy_(source), device, clock)


def _median_seconds(kernel: Callable[[], object], device: Device, clock: Clock) -> float:
    seconds: list[float] = []
    with torch.inference_mode():
        kernel()  # warm-up: picks the algorithm, faults the pages in
        while len(seconds) < MIN_ROUNDS or sum(seconds) < KERNEL_SECONDS:
            device.synchronize()
            start = clock()
            kernel()
            device.synchronize()
            seconds.append((clock() - start) / 1e9)
    return statistics.median(seconds)
