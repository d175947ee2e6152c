"""Budgets of memory, energy, model size, build time and cold start: absolute, and as change from the baseline."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from segcore.core.limits import BUDGETS, Limits
from segcore.core.records import EnergyRecord, ProcessRecord
from segcore.judgement.gate import GateResult, judge
from segcore.judgement.gate.verdict import Row
from tests.support.factories import make_machine
from tests.support.judged_runs import a_run, an_item, steady

MB = 1_000_000


def energy(joules: float) -> EnergyRecord:
    return EnergyRecord(joules=joules * 40, calls=40, counter="RAPL")


def processes(*cold_starts_s: float) -> tuple[ProcessRecord, ...]:
    return tuple(
        ProcessRecord(samples=steady(seed=n + 9), cold_start_s=seconds) for n, seconds in enumerate(cold_starts_s)
    )


def gated(before: dict[str, Any], after: dict[str, Any], limits: dict[str, Any], **machine: Any) -> GateResult:
    set_limits = Limits.model_validate(limits)
    old = a_run(an_item(limits=set_limits, **before), name="old")
    new = a_run(an_item(steady(seed=1), limits=set_limits, **after), name="new", **machine)
    return judge([old], [new], Limits(max_slowdown={"p50": 9.0}))


def row_of(result: GateResult, aspect: str) -> Row | None:
    found = [row for row in result.rows if row.aspect == aspect]
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("before", "after", "limits", "aspect", "verdict"),
    [
        # memory and size are compared as they are
        ({"peak_memory_bytes": 300 * MB}, {"peak_memory_bytes": 329 * MB}, {"memory": 0.1}, "peak memory", "pass"),
        ({"peak_memory_bytes": 300 * MB}, {"peak_memory_bytes": 331 * MB}, {"memory": 0.1}, "peak memory", "regressed"),
        ({"peak_memory_bytes": 300 * MB}, {"peak_memory_bytes": 290 * MB}, {"memory": 0.1}, "peak memory", "improved"),
        ({"peak_memory_bytes": 300 * MB}, {}, {"memory": 0.1}, "peak memory", "missing"),
        ({}, {"peak_memory_bytes": 300 * MB}, {"memory": 0.1}, "peak memory", "incomparable"),
        ({"model_bytes": 5 * MB}, {"model_bytes": 5 * MB}, {"model": 0}, "model size", "pass"),
        ({"model_bytes": 5 * MB}, {"model_bytes": 5 * MB + 9}, {"model": 0}, "model size", "regressed"),
        # the others have an interval, of the noise that is assumed: +-27 % for one figure on each side
        ({"energy": energy(2)}, {"energy": energy(2.1)}, {"energy": 0.5}, "energy per image", "pass"),
        ({"energy": energy(2)}, {"energy": energy(2.1)}, {"energy": 0.1}, "energy per image", "inconclusive"),
        ({"energy": energy(2)}, {"energy": energy(4)}, {"energy": 0.1}, "energy per image", "regressed"),
        ({"energy": energy(2)}, {"energy": energy(1)}, {"energy": 0.1}, "energy per image", "improved"),
        ({"build_s": 20.0}, {"build_s": 60.0}, {"build": 0.5}, "build time", "regressed"),
        ({"build_s": 20.0}, {"build_s": 0.0, "first_build_s": 21.0}, {"build": 0.5}, "build time", "pass"),
        ({"first_build_s": 20.0}, {"build_s": 0.0}, {"build": 0.5}, "build time", "missing"),
        ({"first_build_s": 0.0}, {"first_build_s": 9.0}, {"build": 0.5}, "build time", "regressed"),
        ({"cold_start_s": 0.2}, {"cold_start_s": 0.21}, {"cold_start": 0.1}, "cold start", "inconclusive"),
        ({"cold_start_s": 0.2}, {"cold_start_s": 0.5}, {"cold_start": 0.1}, "cold start", "regressed"),
        ({"cold_start_s": 0.2}, {}, {"cold_start": 0.1}, "cold start", "missing"),
    ],
)
def test_growth(
    before: dict[str, Any], after: dict[str, Any], limits: dict[str, float], aspect: str, verdict: str
) -> None:
    result = gated(before, after, {"max_growth": limits})
    row = row_of(result, aspect)
    assert row is not None
    assert row.verdict == verdict, row.reason
    assert (
        row.item
        == ("latency[" if aspect in ("peak memory", "energy per image") else "model[") + row.item.partition("[")[2]
    )
    codes = {"pass": 0, "improved": 0, "regressed": 1, "missing": 1, "inconclusive": 3, "incomparable": 3}
    assert result.exit_code == codes[verdict]


@pytest.mark.parametrize(
    ("after", "limits", "aspect", "verdict"),
    [
        ({"peak_memory_bytes": 300 * MB}, {"max_memory_mb": 300}, "peak memory limit", "pass"),
        ({"peak_memory_bytes": 301 * MB}, {"max_memory_mb": 300}, "peak memory limit", "regressed"),
        ({}, {"max_memory_mb": 300}, "peak memory limit", "inconclusive"),  # never a silent pass
        ({"model_bytes": 4 * MB}, {"max_model_mb": 3.9}, "model size limit", "regressed"),
        ({"energy": energy(1)}, {"max_joules_per_image": 2}, "energy per image limit", "pass"),
        ({"energy": energy(1.9)}, {"max_joules_per_image": 2}, "energy per image limit", "inconclusive"),
        ({"energy": energy(2.1)}, {"max_joules_per_image": 2}, "energy per image limit", "regressed"),
        ({"build_s": 5.0}, {"max_build_s": 9}, "build time limit", "pass"),
        ({"first_build_s": 0.0}, {"max_build_s": 9}, "build time limit", "pass"),  # nothing was built
        ({"build_s": 0.0}, {"max_build_s": 9}, "build time limit", "inconclusive"),  # who knows when
        ({"cold_start_s": 0.1}, {"max_cold_start_ms": 200}, "cold start limit", "pass"),
        ({"cold_start_s": 0.3}, {"max_cold_start_ms": 200}, "cold start limit", "regressed"),
    ],
)
@pytest.mark.parametrize("is_new", [False, True])
def test_absolute(after: dict[str, Any], limits: dict[str, float], aspect: str, verdict: str, is_new: bool) -> None:
    """Also for an item that the baseline does not have."""
    set_limits = Limits.model_validate(limits)
    old = a_run(an_item(case="other" if is_new else "cat", limits=set_limits), name="old")
    kept = [an_item(case="other", limits=set_limits)] if is_new else []
    new = a_run(*kept, an_item(steady(seed=1), limits=set_limits, **after), name="new")
    rows = [row for row in judge([old], [new], Limits()).rows if row.aspect == aspect and "other" not in row.item]
    assert [row.verdict for row in rows] == [verdict]


def test_the_interval_of_a_cold_start_is_that_of_its_processes() -> None:
    """Student's t on the logarithms, computed here in full; what runs differ by beyond that is assumed."""
    before, after = (0.20, 0.21, 0.19, 0.205), (0.25, 0.26, 0.24, 0.255)
    result = gated(
        {"cold_start_s": before[0], "processes": processes(*before[1:])},
        {"cold_start_s": after[0], "processes": processes(*after[1:])},
        {"max_growth": {"cold_start": 0.1}},
    )
    row = row_of(result, "cold start")
    assert row is not None
    assert row.change is not None
    logs = [np.log(before), np.log(after)]
    value = np.median(logs[1]) - np.median(logs[0])
    sd = math.sqrt(sum(float(np.sum((each - each.mean()) ** 2)) for each in logs) / 6)
    half = math.sqrt(2 * ((2.4469 * sd / 2) ** 2 + (1.95996 * 0.012) ** 2))
    assert row.change.bounds == pytest.approx([math.expm1(value + d) for d in (-half, 0, half)], rel=1e-3)
    assert row.verdict == "regressed"
    assert [row.old, row.new] == pytest.approx([202.5, 252.5])


def test_a_size_does_not_depend_on_the_machine_and_a_cold_start_does() -> None:
    figures = {"model_bytes": 5 * MB, "cold_start_s": 0.2, "peak_memory_bytes": 300 * MB}
    limits = {"max_growth": {"model": 0, "cold_start": 0.1, "memory": 0.1}}
    result = gated(figures, figures, limits, machine=make_machine("Another CPU"))
    found = {row.aspect: row.verdict for row in result.rows}
    assert found == {
        "item": "incomparable",
        "peak memory": "incomparable",
        "model size": "pass",
        "cold start": "incomparable",
    }


def test_a_model_is_judged_once_by_the_strictest_limit_of_its_items() -> None:
    def run(name: str, size: int, seed: int) -> Any:
        limits = [Limits(max_model_mb=limit) for limit in (9.0, 4.0, 6.0)]
        items = [
            an_item(steady(seed=seed + n), case=f"c{n}", model_bytes=size, limits=limit)
            for n, limit in enumerate(limits)
        ]
        return a_run(*items, an_item(steady(seed=8), model="other", model_bytes=90 * MB), name=name)

    rows = judge([run("old", 3 * MB, 0)], [run("new", 5 * MB, 4)], Limits()).rows
    assert [(row.item, row.verdict) for row in rows if row.unit == "MB"] == [("model[embedded-torch-cpu]", "regressed")]


def test_without_limits_there_are_no_rows() -> None:
    figures = {"model_bytes": 5 * MB, "cold_start_s": 0.2, "peak_memory_bytes": 300 * MB, "build_s": 1.0}
    assert [row.aspect for row in gated(figures, figures, {}).rows] == ["median"]


@pytest.mark.parametrize("name", BUDGETS)
def test_a_change_cannot_loosen_a_budget(name: str) -> None:
    mapping = name == "max_growth"
    strict, loose = ({"model": 0.1}, {"model": 0.5}) if mapping else (1.0, 2.0)
    for after in ({name: loose}, {}):
        old = a_run(an_item(limits=Limits.model_validate({name: strict})), name="old")
        new = a_run(an_item(steady(seed=1), limits=Limits.model_validate(after)), name="new")
        rows = judge([old], [new], Limits()).rows
        assert [row.verdict for row in rows if row.aspect == "limits"] == ["regressed"]
        accepted = judge([old], [new], Limits(), accept_changed_limits=True).rows
        assert not [row for row in accepted if row.aspect == "limits"]
