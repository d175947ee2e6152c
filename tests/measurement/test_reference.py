from __future__ import annotations

from segcore.inference.devices import open_device
from segcore.measurement.reference import FRESH_S, REPEATS, ReferenceTask
from tests.support.fakes import FakeDevice


def test_the_reference_is_timed_between_two_synchronisations() -> None:
    device = FakeDevice()
    ticks = iter(range(0, 100_000_000, 2_000_000))
    task = ReferenceTask(device, lambda: next(ticks))
    device.events.clear()
    assert task() == 0.002
    assert device.events == ["synchronize", "synchronize"] * REPEATS


def test_between_short_calls_the_latest_figure_holds() -> None:
    device, now = FakeDevice(), [0]
    task = ReferenceTask(device, lambda: now[0])
    task()
    for age_s, measured in ((0.0, False), (FRESH_S / 2, False), (FRESH_S, True), (1.5 * FRESH_S, False)):
        now[0] = round(1e9 * age_s)
        device.events.clear()
        task()
        assert bool(device.events) == measured


def test_the_reference_takes_little_time() -> None:
    task = ReferenceTask(open_device("cpu"))
    assert 1e-5 < min(task() for _ in range(20)) < 0.05
