from __future__ import annotations

import pytest

from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.judgement.gate import judge
from segcore.judgement.gate.settle import OpenItem, arm_arguments, settled, settlement, undecided, why_not
from segcore.judgement.gate.verdict import Row
from tests.support.factories import make_machine
from tests.support.judged_runs import an_item, steady
from tests.support.settling import HERE, KEY, NODE, measured

OLD, NEW = measured("old"), measured("new")


def nothing_lost(run: Run, key: str) -> str:
    return ""


def test_undecided_medians_are_settled_at_the_stricter_limit() -> None:
    slack = an_item(steady(seed=1), limits=Limits(max_slowdown={"p50": 0.5}))
    new = NEW.model_copy(update={"benchmarks": (slack,)})
    result = judge([OLD], [new], Limits())
    assert [row.item for row in undecided(result)] == [KEY]
    plan = settlement(result, [OLD], [new], Limits(), nothing_lost)
    assert plan.items == (OpenItem(KEY, NODE, 0.05),)
    assert settlement(result, [OLD], [new], Limits(), nothing_lost, accept=True).items[0].limit == 0.5


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (OLD, NEW, ""),
        (measured("old", git=False), NEW, "the baseline old names no commit"),
        (OLD, measured("new", dirty=True), "the current run new had uncommitted changes"),
        (
            OLD,
            measured("new", machine=make_machine("Other")),
            "the current run new is of another machine: cpu was Other",
        ),
    ],
)
def test_what_cannot_be_measured_again_says_why(old: Run, new: Run, words: str) -> None:
    assert why_not([old], [new], HERE).startswith(words)
    assert bool(why_not([old], [new], HERE)) == bool(words)


def test_a_run_that_is_yet_to_be_measured_is_no_problem() -> None:
    assert why_not([OLD], (), HERE) == ""
    assert why_not([measured("old", dirty=True)], (), HERE)


def test_processes_of_two_commits_are_no_arm() -> None:
    other = measured("new", git=True).model_copy(update={"record": OLD.record})
    assert "are of two commits" in why_not([OLD], [NEW, other], HERE)


def test_an_item_that_is_lost_stays_undecided() -> None:
    result = judge([OLD], [NEW], Limits())
    plan = settlement(result, [OLD], [NEW], Limits(), lambda run, key: "x.pt is lost" * (run is NEW))
    assert (plan.items, plan.left) == ((), {KEY: "x.pt is lost"})
    (row,) = settled(result, {}, plan.left, "").rows
    assert (row.verdict, row.reason.endswith("; not settled: x.pt is lost")) == ("inconclusive", True)


def test_verdicts_of_the_turns_replace_undecided_medians_alone() -> None:
    result = judge([OLD], [NEW], Limits(max_slowdown={"p50": 0.05, "p95": 0.05}))
    turn = Row(NODE, "median", "pass", "9 blocks", "ms", 50.0, 50.1)
    found = settled(result, {KEY: turn}, {}, "measured at a and b")
    assert [(row.item, row.aspect, row.verdict) for row in found.rows] == [
        (KEY, "median", "pass"),
        (KEY, "p95", "inconclusive"),
    ]
    assert found.rows[0].reason == "measured in turns: 9 blocks"
    assert "measured at a and b" in found.notes[-1]
    assert found.exit_code == 3


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("bench/ --benchmark-save=old", "bench/"),
        ("--benchmark-save bench/", "bench/"),
        ("--benchmark-save old bench/", "bench/"),
        ("bench -k cat --segcore-baseline old --segcore-settle --segcore-size 320", "bench -k cat --segcore-size 320"),
        ("bench --benchmark-json=x.json --segcore-settle-budget=3 -x --segcore-model=m", "bench --segcore-model=m"),
        ("bench --benchmark-autosave --benchmark-max-time=1", "bench --benchmark-max-time=1"),
    ],
)
def test_the_options_of_a_run_are_kept_without_what_saves_and_judges(words: str, kept: str) -> None:
    run = measured("old", command=("pytest", *words.split()))
    assert arm_arguments(run, [NODE]) == ("bench", *kept.split())


@pytest.mark.parametrize(
    ("nodes", "bench"),
    [([NODE, "bench/test_b.py::t"], "bench"), (["test_a.py::t"], "test_a.py"), (["a/t.py::t", "b/t.py::t"], "a/t.py")],
)
def test_the_bench_is_the_directory_of_the_tests(nodes: list[str], bench: str) -> None:
    assert arm_arguments(OLD, nodes)[0] == bench
