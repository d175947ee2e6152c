from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from segcore.core.errors import ArmError
from segcore.paired.arms import Arm
from segcore.paired.process import WorkerItem
from segcore.paired.sequential import LOOKS, MAX_BLOCKS, look
from segcore.paired.session import (
    MAX_ALTERNATIONS,
    MIN_ALTERNATIONS,
    Block,
    PairedItem,
    PairedOptions,
    PairedResult,
    alternate,
    as_gate,
    budget_needed,
    own_limits,
    run_paired,
)

BASE, HEAD = Arm("base", ("bench",), Path()), Arm("head", ("bench",), Path())


@dataclass
class Machine:
    """Arms whose items take the given seconds, with noise between processes and calls; and the time all that takes."""

    seconds: dict[str, dict[str, float]]
    """Arm -> item -> seconds of a call."""
    between: float = 0.01
    within: float = 0.02
    start_s: float = 2.0
    limits: dict[str, float] = field(default_factory=dict)
    now: float = 0.0
    started: list[tuple[str, tuple[str, ...] | None]] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    open_workers: int = 0
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    @contextmanager
    def worker(self, arm: Arm, only: tuple[str, ...] | None) -> Iterator[FakeWorker]:
        self.started.append((arm.name, only))
        self.now += self.start_s
        self.open_workers += 1
        try:
            yield FakeWorker(self, arm.name, [n for n in self.seconds[arm.name] if only is None or n in only])
        finally:
            self.open_workers -= 1


class FakeWorker:
    def __init__(self, machine: Machine, arm: str, names: list[str]) -> None:
        self._machine, self._arm, self._names = machine, arm, names
        self._process = math.exp(machine.rng.normal(0, machine.between))

    def item(self) -> WorkerItem | None:
        return WorkerItem(self._names[0], self._machine.limits.get(self._names[0])) if self._names else None

    def measure(self, calls: int) -> list[int]:
        m = self._machine
        m.turns.append(self._arm)
        times = m.seconds[self._arm][self._names[0]] * self._process * np.exp(m.rng.normal(0, m.within, calls))
        m.now += float(times.sum())
        return [int(1e9 * t) for t in times]

    def next_item(self) -> None:
        self._names.pop(0)


def gate(machine: Machine, options: PairedOptions, report: Callable[[str], None] = lambda _: None) -> PairedResult:
    result = run_paired(BASE, HEAD, options, report, lambda: machine.now, machine.worker)
    assert machine.open_workers == 0
    return result


def decisions(result: PairedResult) -> dict[str, str]:
    return {item.head_name: item.look.decision for item in result.items}


def test_each_item_gets_its_own_verdict_and_decided_ones_stop() -> None:
    same = {"same": 0.05, "slower": 0.05, "faster": 0.05, "close": 0.05}
    machine = Machine({"base": same, "head": {"same": 0.05, "slower": 0.06, "faster": 0.04, "close": 0.0525}})
    lines: list[str] = []
    result = gate(machine, PairedOptions(0.05, budget_s=100_000), lines.append)
    assert decisions(result) == {
        "same": "pass",
        "slower": "regressed",
        "faster": "improved",
        "close": "inconclusive",
    }
    by_name = {item.head_name: item for item in result.items}
    assert by_name["slower"].look.blocks == LOOKS[0]
    assert by_name["close"].look.blocks == MAX_BLOCKS == result.blocks
    assert machine.started[0] == ("base", None)
    assert machine.started[-1] == ("head", ("close",))
    assert len(lines) == MAX_BLOCKS
    assert "3 of 4 items decided; undecided so far at +" in lines[-1]
    blocks = by_name["slower"].blocks
    assert statistics.median(block.base_s for block in blocks) == pytest.approx(0.05, rel=0.02)
    assert statistics.median(block.head_s for block in blocks) == pytest.approx(0.06, rel=0.02)


def test_the_limit_of_an_item_comes_before_the_general_one() -> None:
    machine = Machine({"base": {"a": 0.05, "b": 0.05}, "head": {"a": 0.058, "b": 0.058}}, limits={"b": 0.5})
    result = gate(machine, PairedOptions(0.05, 1e6))
    assert decisions(result) == {"a": "regressed", "b": "pass"}


def test_when_time_is_over_the_rest_is_inconclusive_with_a_last_look() -> None:
    machine = Machine({"base": {"a": 0.05}, "head": {"a": 0.0525}})
    result = gate(machine, PairedOptions(0.05, budget_s=50.0))
    assert decisions(result) == {"a": "inconclusive"}
    assert 2 <= result.blocks < MAX_BLOCKS
    assert result.items[0].look.blocks == result.blocks == len(result.items[0].log_ratios)
    assert result.seconds <= 60.0


def test_the_default_budget_is_five_minutes_an_item() -> None:
    machine = Machine({"base": {"a": 0.05, "b": 0.05}, "head": {"a": 0.0525, "b": 0.0525}}, start_s=30.0)
    result = gate(machine, PairedOptions(0.05))
    assert 500 < result.seconds <= 620


def test_even_a_tiny_budget_gets_the_two_blocks_that_an_interval_needs() -> None:
    machine = Machine({"base": {"a": 0.05}, "head": {"a": 0.05}}, between=0.05)
    assert gate(machine, PairedOptions(0.05, budget_s=1.0)).blocks == 2


def test_turns_alternate_in_abba_order_and_blocks_start_with_the_other_arm() -> None:
    machine = Machine({"base": {"a": 0.05}, "head": {"a": 0.0525}})
    gate(machine, PairedOptions(0.05, budget_s=1.0))
    per_block = len(machine.turns) // 2
    for block, order in ((machine.turns[:per_block], "ABBA"), (machine.turns[per_block:], "BAAB")):
        turns = "".join("A" if name == "base" else "B" for name in block[2:])  # two are warm-up
        assert turns.startswith(order * 3)
        assert turns.count("A") == turns.count("B") == MAX_ALTERNATIONS


@pytest.mark.parametrize(("call_s", "turns"), [(0.0005, MAX_ALTERNATIONS), (5.0, MIN_ALTERNATIONS)])
def test_a_block_fits_the_length_of_the_call(call_s: float, turns: int) -> None:
    machine = Machine({"base": {"a": call_s}, "head": {"a": call_s}})
    with machine.worker(BASE, None) as left, machine.worker(HEAD, None) as right:
        block = alternate(left, right, head_first=False)
    assert len(machine.turns) == 2 + 2 * turns
    assert block.base_s == pytest.approx(call_s, rel=0.1)


def test_a_burst_of_load_during_a_third_of_a_block_does_not_move_it() -> None:
    machine = Machine({"base": {"a": 0.05}, "head": {"a": 0.05}}, between=0.0)
    with machine.worker(BASE, None) as left, machine.worker(HEAD, None) as right:
        unloaded = right.measure

        def hit(calls: int) -> list[int]:
            return [3 * t if len(machine.turns) < 18 else t for t in unloaded(calls)]

        right.measure = hit  # type: ignore[method-assign]  # a machine under load
        assert abs(alternate(left, right, head_first=False).log_ratio) < 0.02


@pytest.mark.parametrize(
    ("base", "head", "message"),
    [
        (["a", "b"], ["a"], "base has b where head has no more"),
        (["a"], ["a", "b"], "base has no more where head has b"),
        (["a", "c"], ["a", "b"], "base has c where head has b"),
    ],
)
def test_arms_that_do_not_run_the_same_items_are_refused(base: list[str], head: list[str], message: str) -> None:
    machine = Machine({"base": dict.fromkeys(base, 0.01), "head": dict.fromkeys(head, 0.01)})
    with pytest.raises(ArmError, match=message):
        gate(machine, PairedOptions(0.05, 10.0))


def test_arms_with_options_of_their_own_are_paired_by_position() -> None:
    machine = Machine({"base": {"x-torch": 0.05}, "head": {"x-openvino": 0.03}})
    head = Arm("head", ("bench", "--segcore-runtime=openvino"), Path())
    result = run_paired(BASE, head, PairedOptions(0.05, 1e6), clock=lambda: machine.now, start=machine.worker)
    item: PairedItem = result.items[0]
    assert (item.base_name, item.head_name, item.look.decision) == ("x-torch", "x-openvino", "improved")


def test_a_bench_that_changes_from_block_to_block_is_refused() -> None:
    machine = Machine({"base": {"a": 0.05, "b": 0.05}, "head": {"a": 0.0525, "b": 0.0525}})

    def report(_: str) -> None:
        for items in machine.seconds.values():
            items.pop("b", None)

    with pytest.raises(ArmError, match="not repeatable"):
        gate(machine, PairedOptions(0.05, 1e6), report)


@pytest.mark.parametrize(
    ("ratios", "words", "bounded"),
    [
        ([0.9, -0.9], "too early: 2 of at least 4 blocks", False),
        ([0.0, 0.001], "too early: 2 of at least 4 blocks", False),
        ([0.1, 0.0, 0.1, 0.0], "4 blocks can show a change", True),
    ],
)
def test_an_interval_of_too_few_blocks_is_not_shown(ratios: list[float], words: str, bounded: bool) -> None:
    item = PairedItem("a", "a", 0.05, tuple(Block(ratio, 0.05, 0.05) for ratio in ratios), look(ratios, 0.05))
    (row,) = as_gate(PairedResult((item,), len(ratios), 1.0), "old", "new").rows
    assert row.verdict == "inconclusive"
    assert row.reason.startswith(words)
    assert row.change is not None
    assert math.isfinite(row.change.low + row.change.high) == bounded


@pytest.mark.parametrize(
    ("ratios", "budget"),
    [([0.0, 0.08, 0.02, 0.05], 60.0 * 2), ([0.0] * 4, None), ([0.04, 0.06] * 12, None)],
)
def test_the_budget_that_would_decide_is_estimated(ratios: list[float], budget: float | None) -> None:
    item = PairedItem("a", "a", 0.05, tuple(Block(ratio, 0.05, 0.05) for ratio in ratios), look(ratios, 0.05))
    assert budget_needed(PairedResult((item,), len(ratios), 4.0 * len(ratios))) == budget


def test_only_the_items_asked_for_are_measured_in_the_order_of_the_bench() -> None:
    machine = Machine({arm: {"a": 0.05, "b": 0.05, "c": 0.05} for arm in ("base", "head")})
    wanted = (PairedItem("c", "c", 0.2), PairedItem("a", "a", 0.3))
    result = gate(machine, PairedOptions(budget_s=1e6, items=wanted))
    assert [(item.head_name, item.limit) for item in result.items] == [("a", 0.3), ("c", 0.2)]
    assert machine.started[0] == ("base", ("c", "a"))
    with pytest.raises(ArmError, match="not repeatable"):
        gate(machine, PairedOptions(budget_s=1e6, items=(*wanted, PairedItem("x", "x", 0.1))))


def test_the_head_cannot_loosen_the_limits_of_the_base() -> None:
    machine = Machine({arm: {"a": 0.05, "b": 0.05} for arm in ("base", "head")}, limits={"a": 0.02})
    base, head = (Arm(name, ("bench",), Path(name), code=Path(name)) for name in ("base", "head"))
    known = own_limits(base, head, 0.05, machine.worker)
    assert known == {"a": 0.02, "b": 0.05}
    assert machine.turns == []
    machine.limits = {"a": 0.5, "b": 0.01}
    result = gate(machine, PairedOptions(0.05, budget_s=1.0, base_limits=known))
    assert [item.limit for item in result.items] == [0.02, 0.01]
