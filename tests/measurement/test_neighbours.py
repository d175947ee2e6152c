from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from segcore.measurement.neighbours import FRESH_S, LOOK_S, Neighbours, Usage, other_load, processor_s, read_usage

BEFORE = Usage(at_s=0.0, busy_s=0.0, own_s=0.0, processors=2)


@pytest.mark.parametrize(
    ("after", "more", "load"),
    [
        (Usage(100.0, 160.0, 150.0, 2), 0.0, 10 / 200),
        (Usage(100.0, 160.0, 100.0, 2), 50.0, 10 / 200),
        (Usage(100.0, 140.0, 150.0, 2), 0.0, 0.0),  # clocks of different grain may disagree
        (Usage(100.0, 999.0, 0.0, 2), 0.0, 1.0),
        (Usage(100.0, None, 150.0, 2), 0.0, None),
    ],
)
def test_other_load_excludes_our_own_work(after: Usage, more: float, load: float | None) -> None:
    found = other_load(BEFORE, after, more)
    assert found == (None if load is None else pytest.approx(load))


@dataclass
class Machine:
    """Two processors, of which others use one until some time, and again between two others."""

    busy: list[tuple[float, float]]
    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)

    def probe(self) -> Usage:
        others = sum(max(0.0, min(self.now, end) - start) for start, end in self.busy if self.now > start)
        return Usage(at_s=self.now, busy_s=others, own_s=0.0, processors=2)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def block(self) -> tuple[int, float]:
        self.measured.append(self.now)
        self.now += 4.0
        return len(self.measured), 0.0


@pytest.mark.parametrize(
    ("busy", "budget", "result", "disturbed", "blocks", "waited"),
    [
        ([], 120.0, 1, False, 1, 0.0),
        ([(0.0, 10.0)], 120.0, 1, False, 1, 10.0),  # it waits before it begins
        ([(0.2, 3.0)], 120.0, 2, False, 2, 4.0),  # disturbed, then measured again
        ([(0.0, 10.0)], 0.0, 1, True, 1, 0.0),  # not allowed to wait
        ([(0.0, 1e9)], 6.0, 1, True, 1, 6.0),  # waits in vain, keeps what it has
        ([(0.2, 3.0)], 3.0, 1, True, 1, 0.0),  # a second block would take longer than the budget
        ([(0.2, 3.9), (5.0, 6.0)], 7.0, 2, True, 2, 4.0),  # the less disturbed one is kept
    ],
)
def test_a_disturbed_block_is_measured_again_within_the_budget(
    busy: list[tuple[float, float]], budget: float, result: int, disturbed: bool, blocks: int, waited: float
) -> None:
    machine = Machine(busy)
    neighbours = Neighbours(budget, machine.probe, machine.sleep)
    told: list[float] = []
    neighbours.tell = told.append
    found = neighbours.measure(machine.block)
    assert found.result == result
    assert found.load is not None
    assert (found.load > 0.1) == disturbed
    assert len(machine.measured) == blocks
    assert neighbours.waited_s == pytest.approx(waited, abs=2 * LOOK_S)
    assert neighbours.waited_s <= budget + 2 * LOOK_S
    assert bool(told) == (waited >= 6.0)


def test_no_time_is_lost_on_a_quiet_machine() -> None:
    machine = Machine([])
    Neighbours(120.0, machine.probe, machine.sleep).measure(machine.block)
    assert machine.slept == [LOOK_S]


@pytest.mark.parametrize(
    ("busy", "pause", "looks"),
    [
        ([], FRESH_S / 2, 1),  # the first block has shown that the machine is quiet
        ([], 2 * FRESH_S, 2),
        ([(0.2, 4.0)], FRESH_S / 2, 2),  # the first block was disturbed
    ],
)
def test_a_block_soon_after_an_undisturbed_one_begins_at_once(
    busy: list[tuple[float, float]], pause: float, looks: int
) -> None:
    machine = Machine(busy)
    neighbours = Neighbours(1.0, machine.probe, machine.sleep)
    neighbours.measure(machine.block)
    machine.now += pause
    neighbours.measure(machine.block)
    assert machine.slept == [LOOK_S] * looks


def test_a_system_that_does_not_report_is_never_waited_for() -> None:
    machine = Machine([])
    neighbours = Neighbours(120.0, lambda: Usage(machine.now, None, 0.0, 2), machine.sleep)
    assert neighbours.measure(machine.block).load is None
    assert neighbours.waited_s == 0.0


def test_the_real_probe_counts_this_process() -> None:
    usage = read_usage()
    assert usage.own_s > 0
    assert usage.busy_s is None or usage.busy_s > 0


def test_programs_that_have_ended_count_as_our_own_work() -> None:
    before = processor_s()
    subprocess.run([sys.executable, "-S", "-c", "sum(i * i for i in range(3_000_000))"], check=True)
    assert processor_s() - before >= 0.05
