from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from segcore.core.errors import ArmError
from segcore.paired.arms import WORKER, Arm
from segcore.paired.audit import LEVELS, Audit, audit, describe, is_honest
from segcore.paired.sequential import LOOKS, MAX_BLOCKS, look
from segcore.paired.session import Block, PairedItem, PairedOptions, PairedResult
from segcore.paired.slow_worker import slow_call
from segcore.paired.worker import case_limit


class Machine:
    """Gates with a known noise between blocks; what is injected is what shows."""

    def __init__(self, sd: float, most: int = MAX_BLOCKS) -> None:
        self.sd, self.most = sd, most
        self.levels: list[float] = []
        self.rng = np.random.default_rng(3)

    def run(self, base: Arm, head: Arm, options: PairedOptions, report: Callable[[str], None]) -> PairedResult:
        assert (base.name, head.name, base.program, base.args) == ("base", "head", (str(WORKER),), head.args)
        slowdown = float(head.program[1]) if head.program != base.program else 0.0
        self.levels.append(slowdown)
        ratios = (math.log1p(slowdown) + self.rng.normal(0, self.sd, self.most)).tolist()
        looks = [n for n in LOOKS if n <= self.most] or [self.most]
        state = next((s for n in looks if (s := look(ratios[:n], options.limit)).decision != "inconclusive"), None)
        state = state or look(ratios, options.limit)
        item = PairedItem("a", "a", options.limit, tuple(Block(r, 0.05, 0.05) for r in ratios[: state.blocks]), state)
        return PairedResult((item,), state.blocks, 1.0)


def audited(sd: float, gates: int = 5, limit: float = 0.05) -> Audit:
    return audit(("bench",), PairedOptions(limit), gates, lambda _: None, Machine(sd).run)


def test_a_quiet_machine_can_enforce_five_percent() -> None:
    result = audited(0.03)
    assert result.block_sd == pytest.approx(0.03, rel=0.25)
    assert result.block_sd < result.block_sd_bound < 0.05
    assert result.honest_limit is not None
    assert result.honest_limit <= 0.05
    by_level = {level.slowdown: level for level in result.levels}
    assert by_level[0.0].verdicts == {"pass": 5}
    assert by_level[0.20].verdicts == {"regressed": 5}
    assert by_level[0.10].measured == pytest.approx(0.10, abs=0.02)
    assert by_level[0.0].expected["regressed"] <= 0.005
    assert by_level[0.10].expected["regressed"] >= 0.95


def test_every_round_has_all_levels() -> None:
    machine = Machine(0.03)
    audit(("bench",), PairedOptions(0.05), 2, lambda _: None, machine.run)
    assert machine.levels == [*LEVELS, *LEVELS]


@pytest.mark.parametrize(("sd", "least"), [(0.10, 0.07), (0.2, 0.15)])
def test_a_noisy_machine_has_a_wider_limit(sd: float, least: float) -> None:
    result = audited(sd)
    assert result.honest_limit is not None
    assert result.honest_limit >= least
    assert f"enforce a limit of {result.honest_limit:.0%}" in describe(result)


def test_a_machine_may_be_too_noisy_for_any_limit() -> None:
    result = audited(2.0, gates=2)
    assert result.honest_limit is None
    assert "No limit up to 50% can be enforced" in describe(result)


def test_the_honest_limit_grows_with_the_noise() -> None:
    assert is_honest(0.05, 0.03)
    assert not is_honest(0.05, 0.12)
    assert is_honest(0.20, 0.12)


def test_the_table_has_counts_with_intervals() -> None:
    text = describe(audited(0.03))
    lines = text.splitlines()
    assert lines[2].split() == ["slowdown", "measured", "pass", "regressed", "inconclusive"]
    assert lines[3].startswith("        0%")
    assert "5 of 5 [57%, 100%]" in lines[3]
    assert f"{audited(0.03).block_sd:.1%}" in text


def test_too_few_blocks_are_an_error() -> None:
    machine = Machine(0.03, most=2)

    def one_block(*args: object) -> PairedResult:
        result = machine.run(*args)  # type: ignore[arg-type]
        item = result.items[0]
        return PairedResult((replace(item, blocks=item.blocks[:1]),), 1, 1.0)

    with pytest.raises(ArmError, match="fewer than two blocks"):
        audit(("bench",), PairedOptions(0.05), 1, lambda _: None, one_block)


# ---- injected slowdown


@pytest.mark.parametrize("share", [0.05, 0.10, 0.20])
def test_the_slowdown_is_a_share_of_the_call(monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """With a clock that each reading advances by a millisecond."""
    now = [0.0]

    def read_clock() -> float:
        now[0] += 0.001
        return now[0]

    def call() -> None:
        now[0] += 0.999

    monkeypatch.setattr("time.perf_counter", read_clock)
    slow_call(call, share)
    assert now[0] == pytest.approx(1.0 + share, abs=0.003)


def test_the_limit_of_a_case_is_read_off_the_item_of_either_revision() -> None:
    from segcore.core.limits import Limits

    class Plan:
        model, device, runtime, precision, size = "embedded", "cpu", "torch", "fp32", 320

        def __init__(self, limits: Limits) -> None:
            self.case = self
            self._limits = limits

        def limits_for(self, **_: object) -> Limits:
            return self._limits

    def limit(*params: object) -> float | None:
        return case_limit(SimpleNamespace(params=dict(enumerate(params))))

    assert limit(Plan(Limits(max_slowdown={"p50": 0.2}))) == 0.2
    assert limit(Plan(Limits(max_slowdown={"p99": 0.2}))) is None
    assert limit(Plan(Limits())) is None
    assert limit("anything", 3, Path()) is None
    assert case_limit(None) is None
