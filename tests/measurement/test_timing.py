from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.utils import NameWrapper

from segcore.core.records import STAGES
from segcore.inference.pipeline import Segmenter, StageTimer
from segcore.measurement.timing import PipelineCall
from tests.support.fakes import FakeClock, FakeDevice
from tests.support.networks import TinyNet

PHOTO = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


class Clock:
    """Nanoseconds that advance by `step` per reading; each reading is an event of the device."""

    def __init__(self, device: FakeDevice, step: int = 1_000_000) -> None:
        self.device = device
        self.now = 0
        self.step = step

    def __call__(self) -> int:
        self.device.events.append("clock")
        self.now += self.step
        return self.now


def make_call(device: FakeDevice, clock: Callable[[], int], rounds_done: Callable[[], int | None]) -> PipelineCall:
    return PipelineCall(Segmenter(TinyNet(), device=device, size=32), [PHOTO, PHOTO], 32, rounds_done, clock)


def test_every_clock_reading_follows_a_synchronisation() -> None:
    device = FakeDevice()
    make_call(device, Clock(device), lambda: 0)()
    looks = [i for i, event in enumerate(device.events) if event == "clock"]
    assert len(looks) == 2 * len(STAGES)
    assert all(device.events[i - 1] == "synchronize" for i in looks)


def test_a_call_begins_and_ends_with_a_synchronisation() -> None:
    device = FakeDevice()
    make_call(device, time.perf_counter_ns, lambda: 0)()
    assert device.events[0] == "synchronize"
    assert device.events[-1] == "synchronize"
    assert device.events.count("put") == 1  # both photos in one batch, transferred once


def test_a_missing_synchronisation_is_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check of the first test fails if one synchronisation is missing."""
    device = FakeDevice()
    whole = FakeDevice.synchronize
    calls = iter(range(1000))
    monkeypatch.setattr(FakeDevice, "synchronize", lambda self: whole(self) if next(calls) != 5 else None)
    make_call(device, Clock(device), lambda: 0)()
    looks = [i for i, event in enumerate(device.events) if event == "clock"]
    assert not all(device.events[i - 1] == "synchronize" for i in looks)


def test_stages_are_kept_of_rounds_only() -> None:
    device = FakeDevice()
    clock = Clock(device)
    done: list[int | None] = [None, None, 0, 0, 0, 1, 1, 2]
    steps = [9, 9, 9, 2, 4, 6, 8, 9]  # milliseconds per look at the clock
    now = iter(done)
    call = make_call(device, clock, lambda: next(now))
    for step in steps:
        clock.step = step * 1_000_000
        call()
    # Two rounds of two iterations: the first of three calls at "no round done" was a warm-up of the loop's own, the
    # last call came after the rounds.
    stages = call.stages(2, iterations=2)
    assert set(stages) == set(STAGES)
    assert stages["forward"] == pytest.approx((0.003, 0.007))


def test_warm_up_stops_after_one_slow_call_and_after_three_fast_ones() -> None:
    device = FakeDevice()
    slow = make_call(device, Clock(device, 100_000_000), lambda: None)
    slow.warm_up()
    fast = make_call(FakeDevice(), Clock(device, 1000), lambda: None)
    fast.warm_up()
    assert (len(slow._calls), len(fast._calls)) == (1, 3)
    assert slow.stages(0) == {}


def test_a_call_that_was_warmed_up_before_needs_no_more_on_a_cpu() -> None:
    device = FakeDevice()
    call = make_call(device, Clock(device, 1000), lambda: None)
    call.warm_up(again=True)
    assert call.count == 0


def test_each_call_has_its_own_size() -> None:
    segmenter = Segmenter(TinyNet(), device=FakeDevice(), size=32)
    small, large = (PipelineCall(segmenter, [PHOTO], size) for size in (32, 48))
    assert small()[0].input_shape == (1, 3, 32, 48)
    assert large()[0].input_shape == (1, 3, 48, 72)
    assert small()[0].input_shape == (1, 3, 32, 48)


def test_reported_time_is_that_of_a_bare_loop(request: pytest.FixtureRequest) -> None:
    """A bench reports what a plain timed loop measures, by a clock that only the network advances."""
    clock = FakeClock()

    class TimedNet(TinyNet):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            clock.time += 1 + len(bare) % 3
            return super().forward(x)

    session = request.config._benchmarksession  # type: ignore[attr-defined]  # where pytest-benchmark keeps it
    reported = BenchmarkFixture(
        request.node,
        add_stats=[].append,
        logger=session.logger,
        warner=request.node.warn,
        disabled=False,
        **{**session.options, "timer": NameWrapper(clock.now)},
    )
    segmenter = Segmenter(TimedNet(), device="cpu", size=32)

    def rounds_done() -> int | None:
        stats: Any = reported.stats
        return None if stats is None else len(stats.stats.data)

    call = PipelineCall(segmenter, [PHOTO], 32, rounds_done, lambda: round(clock.time * 1e9))
    bare: list[float] = []

    def time_bare_call() -> None:
        start = clock.now()
        segmenter.run([PHOTO], StageTimer(segmenter.device), size=32)
        bare.append(clock.now() - start)

    call.warm_up()
    reported.pedantic(call, setup=time_bare_call, rounds=60)
    assert reported.stats is not None
    assert bare == [1, 2, 3] * 20
    assert reported.stats.stats.data == [2, 3, 1] * 20  # the round after each bare call
    stages = call.stages(60)
    assert stages["forward"] == tuple(reported.stats.stats.data)
    assert sum(map(sum, stages.values())) == sum(reported.stats.stats.data)
