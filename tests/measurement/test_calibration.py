from __future__ import annotations

import math

import pytest
import torch

from segcore.core.records import Precision
from segcore.inference.devices import open_device
from segcore.measurement import calibration as calibrate
from tests.support.fakes import FakeDevice


class Clock:
    """Nanoseconds: 100 ms between two readings, each of which must follow a synchronisation."""

    def __init__(self, device: FakeDevice) -> None:
        self.device = device
        self.now = 0

    def __call__(self) -> int:
        assert self.device.events[-1] == "synchronize", "the clock is read without synchronisation"
        self.device.events.append("clock")
        self.now += 100_000_000
        return self.now


def test_every_kernel_is_timed_between_synchronisations() -> None:
    device = FakeDevice(name="cpu")
    record = calibrate.calibrate(device, clock=Clock(device))
    assert record
    assert (record.device, record.precision, record.tf32) == ("cpu", "fp32", None)
    assert math.isclose(record.matmul_gmacs_per_s, 1024**3 / 1e9 / 0.1)
    assert record.conv_gmacs_per_s
    assert math.isclose(record.conv_gmacs_per_s, 256 * 256 * 9 * 80 * 80 / 1e9 / 0.1)
    assert math.isclose(record.copy_gbytes_per_s, 2 * (64 << 20) / 1e9 / 0.1)


def test_the_rate_of_this_machine_is_plausible() -> None:
    rate = calibrate.matmul_rate(open_device("cpu"))
    assert 0.01 < rate < 1e6


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_products_of_each_precision_are_calibrated(precision: Precision) -> None:
    device = FakeDevice(name="cpu")
    record = calibrate.calibrate(device, precision, Clock(device))
    if record is None:
        assert precision == "int8"
        pytest.skip("torch has no oneDNN here, whose int8 products are measured")
    assert (record.precision, record.peak_gmacs_per_s) == (precision, record.conv_gmacs_per_s)
    assert math.isclose(record.matmul_gmacs_per_s, 1024**3 / 1e9 / 0.1), "the same work as in fp32"


def test_int8_kernels_do_the_arithmetic() -> None:
    """What is timed is the product and the convolution: the sums of ones are their numbers of terms."""
    found = calibrate._int8_kernels(FakeDevice(name="cpu"))
    if found is None:
        pytest.skip("torch has no oneDNN here")
    product, convolution = found
    assert convolution is not None
    assert bool((product() == torch.full((1024, 1024), 1024.0)).all())  # type: ignore[attr-defined]
    image = convolution()
    assert isinstance(image, torch.Tensor)
    assert (tuple(image.shape), int(image.min()), int(image.max())) == ((1, 256, 80, 80), 255, 255), (
        "saturated, as 8 bits are"
    )
