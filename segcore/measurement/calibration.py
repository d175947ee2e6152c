"""Peak rates of a device, measured in the same session as the models, to tell how efficient these are.

Three kernels, each large enough to make the cost of its call negligible: a matrix product, a convolution as in most of
FCN-ResNet101 (3x3, 256 to 256 channels, dilated, at an eighth of 640 pixels), and a memory copy. The products are
measured in each precision that a run uses, as a model in int8 can be several times as fast as any product in fp32.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F

from segcore.core.records import CalibrationRecord, Precision
from segcore.inference.devices import Device, tf32_option
from segcore.measurement.reference import seconds_of

MIN_ROUNDS = 5
KERNEL_SECONDS = 0.3
"""Minimum total time of the rounds of a kernel, after one warm-up call."""
CHANNELS, SIDE = 256, 80
CONV_GMACS = CHANNELS * CHANNELS * 9 * SIDE * SIDE / 1e9
PADDING = 2
"""And dilation."""
COPY_BYTES, COPY_BYTES_ACCELERATOR = 64 << 20, 1 << 30
"""On a GPU of 4 TB/s the larger one takes half a millisecond, many times as long as starting it and waiting for it."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

Kernel = Callable[[], object]


def calibrate(
    device: Device, precision: str = "fp32", clock: Callable[[], int] = time.perf_counter_ns
) -> CalibrationRecord | None:
    """Return the rates of the three kernels on a device, in about a second on a CPU; None if torch lacks the precision.

    Products in int8 are those of oneDNN on a CPU; there is no int8 convolution on CUDA. `clock` counts nanoseconds.
    """
    if precision == "int8":
        kernels = _int8_kernels(device)
    else:
        dtype = DTYPES[precision]
        kernels = _product(device, dtype), _convolution(device, dtype)
    if kernels is None:
        return None
    product, convolution = kernels
    copy_bytes = COPY_BYTES if device.torch_device.type == "cpu" else COPY_BYTES_ACCELERATOR
    source = torch.ones(copy_bytes // 4, device=device.torch_device)
    target = torch.empty_like(source)
    copy_s = _median_seconds(lambda: target.copy_(source), device, clock)
    tf32 = tf32_option(device).get("tf32") if precision == "fp32" else None
    return CalibrationRecord(
        device=device.name,
        precision=cast(Precision, precision),
        matmul_gmacs_per_s=_side(device) ** 3 / 1e9 / _median_seconds(product, device, clock),
        conv_gmacs_per_s=CONV_GMACS / _median_seconds(convolution, device, clock) if convolution else None,
        # Bytes read and bytes written both count, as in STREAM (McCalpin 1995).
        copy_gbytes_per_s=2 * copy_bytes / 1e9 / copy_s,
        tf32=None if tf32 is None else tf32 == "on",
    )


def matmul_rate(device: Device, clock: Callable[[], int] = time.perf_counter_ns) -> float:
    """Return the GMAC/s of a square matrix product in fp32: 1024 wide on a CPU, 4096 on a GPU."""
    return _side(device) ** 3 / 1e9 / _median_seconds(_product(device, torch.float32), device, clock)


def _side(device: Device) -> int:
    return 1024 if device.torch_device.type == "cpu" else 4096


def _product(device: Device, dtype: torch.dtype) -> Kernel:
    side = _side(device)
    left, right = (_values(device, dtype, side, side) for _ in range(2))
    return lambda: left @ right


def _values(device: Device, dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Return ones; on a GPU random numbers, as ones take less power: products in bf16 are 8 % faster on an H200."""
    if device.torch_device.type == "cpu":
        return torch.ones(*shape, dtype=dtype)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*shape, generator=generator).to(device.torch_device, dtype)


def _convolution(device: Device, dtype: torch.dtype) -> Kernel:
    """Return the convolution in the layout in which it is fastest; with others, it also reorders its input."""
    image, weight = _values(device, dtype, 1, CHANNELS, SIDE, SIDE), _values(device, dtype, CHANNELS, CHANNELS, 3, 3)
    image, weight = (tensor.contiguous(memory_format=torch.channels_last) for tensor in (image, weight))
    return lambda: F.conv2d(image, weight, padding=PADDING, dilation=PADDING)


def _int8_kernels(device: Device) -> tuple[Kernel, Kernel | None] | None:
    side, on = _side(device), device.torch_device
    match on.type:
        case "cuda":
            left, right = (torch.ones(side, side, device=on, dtype=torch.int8) for _ in range(2))
            return lambda: torch._int_mm(left, right.t()), None  # tensor cores want the right one by columns
        case "cpu" if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return _onednn_product(side), _onednn_convolution()
    return None


def _onednn_product(side: int) -> Kernel:
    ops = torch.ops.onednn
    left, right = (torch.ones(side, side, dtype=dtype) for dtype in (torch.uint8, torch.int8))
    packed, scales, zeros = ops.qlinear_prepack(right, [side, side]), *_plain(side)
    after: tuple[object, ...] = (1.0, 0, torch.float32, "none", [], "")
    return lambda: ops.qlinear_pointwise(left, 1.0, 0, packed, scales, zeros, None, *after)


def _onednn_convolution() -> Kernel:
    ops = torch.ops.onednn
    image = torch.ones(1, CHANNELS, SIDE, SIDE, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    weight = torch.ones(CHANNELS, CHANNELS, 3, 3, dtype=torch.int8)
    window = ([1, 1], [PADDING, PADDING], [PADDING, PADDING], 1)
    scales, zeros = _plain(CHANNELS)
    packed = ops.qconv_prepack(weight, scales, 1.0, 0, *window, list(image.shape))
    after: tuple[object, ...] = (1.0, 0, torch.uint8, "none", [], "")
    return lambda: ops.qconv2d_pointwise(image, 1.0, 0, packed, scales, zeros, None, *window, *after)


def _plain(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return scales of 1 and zero points of 0 for each channel of quantised weights."""
    return torch.ones(channels), torch.zeros(channels, dtype=torch.int64)


def _median_seconds(kernel: Kernel, device: Device, clock: Callable[[], int]) -> float:
    seconds: list[float] = []
    with torch.inference_mode():
        kernel()  # warm-up: chooses the algorithm and maps the pages
        while len(seconds) < MIN_ROUNDS or sum(seconds) < KERNEL_SECONDS:
            seconds.append(seconds_of(kernel, device, clock))
    return statistics.median(seconds)
