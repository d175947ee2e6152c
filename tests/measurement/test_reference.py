from __future__ import annotations

from segcore.inference.devices import open_device
from segcore.measurement.reference import REPEATS, ReferenceTask
from tests.support.fakes import FakeDevice


def test_the_reference_is_timed_between_two_synchronisations() -> None:
    device = FakeDevice()
    ticks = iter(range(0, 100_000_000, 2_000_000))
    task = ReferenceTask(device, lambda: next(ticks))
    device.events.clear()
    assert task() == 0.002
    assert device.events == ["synchronize", "synchronize"] * REPEATS


def test_the_reference_takes_little_time() -> None:
    task = ReferenceTask(open_device("cpu"))
    assert 1e-5 < min(task() for _ in range(20)) < 0.05
