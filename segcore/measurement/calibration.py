"""Peak rates of a device, measured in the same session as the models, to tell how efficient these are.

Three kernels, each large enough to make the cost of its call negligible: a matrix product, a convolution as in most of
FCN-ResNet101 (3x3, 256 to 256 channels, dilated, at an eighth of 640 pixels), and a memory copy.
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
"""Minimum total time of the rounds of a kernel, after one warm-up call."""
CHANNELS, SIDE = 256, 80
CONV_GMACS = CHANNELS * CHANNELS * 9 * SIDE * SIDE / 1e9
COPY_BYTES = 64 << 20


def calibrate(device: Device, clock: Callable[[], int] = time.perf_counter_ns) -> CalibrationRecord:
    """Return the rates of the three kernels on a device; takes about a second on a CPU."""
    matmul, on = matmul_rate(device, clock), device.torch_device
    image = torch.ones(1, CHANNELS, SIDE, SIDE, device=on)
    weight = torch.ones(CHANNELS, CHANNELS, 3, 3, device=on)
    conv_s = _median_seconds(lambda: F.conv2d(image, weight, padding=2, dilation=2), device, clock)
    source = torch.ones(COPY_BYTES // 4, device=on)
    target = torch.empty_like(source)
    copy_s = _median_seconds(lambda: target.copy_(source), device, clock)
    return CalibrationRecord(
        device=device.name,
        matmul_gmacs_per_s=matmul,
        conv_gmacs_per_s=CONV_GMACS / conv_s,
        # Bytes read and bytes written both count, as in STREAM (McCalpin 1995).
        copy_gbytes_per_s=2 * COPY_BYTES / 1e9 / copy_s,
    )


def matmul_rate(device: Device, clock: Callable[[], int] = time.perf_counter_ns) -> float:
    """Return the GMAC/s of a square float32 matrix product: 1024 wide on a CPU, 4096 on a GPU."""
    side = 1024 if device.torch_device.type == "cpu" else 4096
    left, right = (torch.ones(side, side, device=device.torch_device) for _ in range(2))
    return side**3 / 1e9 / _median_seconds(lambda: left @ right, device, clock)


def _median_seconds(kernel: Callable[[], object], device: Device, clock: Callable[[], int]) -> float:
    seconds: list[float] = []
    with torch.inference_mode():
        kernel()  # warm-up: chooses the algorithm and maps the pages
        while len(seconds) < MIN_ROUNDS or sum(seconds) < KERNEL_SECONDS:
            device.synchronize()
            start = clock()
            kernel()
            device.synchronize()
            seconds.append((clock() - start) / 1e9)
    return statistics.median(seconds)
