from __future__ import annotations

import math

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
    record = calibrate.calibrate(device, Clock(device))
    assert record.device == "cpu"
    assert math.isclose(record.matmul_gmacs_per_s, 1024**3 / 1e9 / 0.1)
    assert math.isclose(record.conv_gmacs_per_s, 256 * 256 * 9 * 80 * 80 / 1e9 / 0.1)
    assert math.isclose(record.copy_gbytes_per_s, 2 * (64 << 20) / 1e9 / 0.1)


def test_the_rate_of_this_machine_is_plausible() -> None:
    rate = calibrate.matmul_rate(open_device("cpu"))
    assert 0.01 < rate < 1e6
