from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from segcore.cli import cli
from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.judgement.gate import judge
from segcore.judgement.gate.files import RUN_LIMITS, gate_options
from segcore.judgement.gate.settle import remedies, settle_command, undecided
from segcore.judgement.gate.verdict import GateResult, Row
from segcore.report.gate import as_json, markdown, render
from tests.support.judged_runs import an_item, steady
from tests.support.settling import NODE, measured

SETTLE = "segcore gate old.json new.json --settle"


def of(old: Run, new: Run, limits: Limits, *options: str) -> tuple[str, ...]:
    return remedies(judge([old], [new], limits), [old], [new], limits, options)


@pytest.mark.parametrize(
    ("old", "new", "commands"),
    [
        (measured("old"), measured("new"), (SETTLE,)),
        (
            measured("old"),
            measured("new", dirty=True, command=("pytest", "bench/", "-k", "a b")),
            ("segcore gate --against aaaaaaaaaaaa --args 'bench bench/ -k '\"'\"'a b'\"'\"'' --max-slowdown=0.05",),
        ),
        (measured("old", git=False), measured("new"), ()),
        (measured("old", dirty=True), measured("new"), ()),
        (measured("old"), measured("new", outcomes=()), ()),
    ],
)
def test_undecided_medians_end_with_the_command_that_decides(old: Run, new: Run, commands: tuple[str, ...]) -> None:
    assert of(old, new, Limits()) == commands


def test_runs_in_directories_are_named_by_them() -> None:
    runs = [measured("old").model_copy(update={"path": Path(f"here/old/{n}.json")}) for n in range(2)]
    assert settle_command(runs, [measured("new")], budget_s=120) == (
        "segcore gate here/old new.json --settle --budget 120"
    )


def test_the_command_has_the_options_that_the_runs_were_judged_with() -> None:
    limits = Limits(max_slowdown={"p50": 0.07}, max_drift=0.02)
    options = gate_options(limits, 0.5, accept_changed_limits=True, require_all=True)
    assert options == (
        *("--max-drift=0.02", "--max-slowdown=0.07", "--process-noise=0.5"),
        *("--accept-changed-limits", "--require-all"),
    )
    (command,) = of(measured("old"), measured("new"), limits, *options)
    assert command == f"segcore gate old.json new.json {' '.join(options)} --settle"
    assert gate_options(RUN_LIMITS) == ()
    dirty = of(measured("old"), measured("new", dirty=True), limits, *options)
    assert dirty == ("segcore gate --against aaaaaaaaaaaa --args 'bench bench/' --max-slowdown=0.07",)


def test_a_load_item_is_not_measured_in_turns() -> None:
    load = {"kind": "load", "scenario": "server"}
    old, new = (
        measured(name).model_copy(update={"benchmarks": (an_item(steady(seed=n), **load),)})
        for n, name in enumerate(("old", "new"))
    )
    result = judge([old], [new], Limits())
    assert [row.verdict for row in result.rows] == ["inconclusive"]
    assert not undecided(result)
    assert of(old, new, Limits()) == ()


def test_quantiles_with_too_few_rounds_need_another_run() -> None:
    new = measured("new").model_copy(update={"benchmarks": (an_item(steady(rounds=10, seed=3)),)})
    found = of(measured("old"), new, Limits(max_slowdown={"p50": 9.0, "p95": 0.05}))
    assert found == ("pytest bench bench/ --benchmark-min-rounds=76 --benchmark-save=new",)


def test_a_decided_gate_has_none() -> None:
    assert of(measured("old"), measured("new"), Limits(max_slowdown={"p50": 9.0})) == ()


def test_more_images_are_those_that_a_limit_left_out() -> None:
    new = measured(
        "new", command=("segcore", "evaluate", "--root", "x", "--limit", "40", "--resume", "--out", "b.json")
    )
    result = GateResult("old", "new", (Row("dataset[voc]", "mIoU", "inconclusive", "40 images"),))
    assert remedies(result, [measured("old")], [new], Limits()) == ("segcore evaluate --root x --out b.json",)


@pytest.mark.parametrize("command", [SETTLE, "segcore gate --against abc --args 'bench -k x' --budget=120"])
def test_every_report_shows_the_command_to_be_copied(command: str) -> None:
    result = GateResult("old", "new", (Row(NODE, "median", "inconclusive", "few"),), commands=(command,))
    assert f"to decide: {command}\n" in render(result, width=60)
    assert f"- to decide: `{command}`\n" in markdown(result)
    assert list(as_json(result)["commands"]) == [command]
    program, name, *words = shlex.split(command)
    subcommand = cli.get_command(None, name)  # type: ignore[arg-type]  # the context is not used
    assert (program, subcommand is not None) == ("segcore", True)
    assert subcommand
    subcommand.make_context(name, [word.replace("old.json", ".").replace("new.json", ".") for word in words])


def test_a_backtick_in_a_command_does_not_end_the_code() -> None:
    result = GateResult("old", "new", (Row(NODE, "median", "inconclusive", "few"),), commands=("a `@all`",))
    assert "`@all`" not in markdown(result)
