from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

# pytester forgets modules that an inner run was the first to import, and torch cannot be imported twice.
import segcore.plugin.hooks
import segcore.report.html
from segcore.core.errors import EXIT_CRASHED, UsageError
from segcore.judgement.gate import GateResult, Row
from segcore.plugin.crash import open_closed_streams
from tests.support.bench_project import QUICK

pytest_plugins = ["pytester"]

ACCURACY = ("bench/test_accuracy.py", "--segcore-case=blue", *QUICK)


@pytest.fixture(autouse=True)
def _outside_of_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segcore.report.html, "write_html", lambda *_: None)  # has tests of its own, and takes seconds
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


_OLD: dict[Path, bytes] = {}
"""Files of the baseline, by path in the project: recorded once, for an inner run takes seconds."""


@pytest.fixture
def old(where: Path, pytester: pytest.Pytester) -> Path:
    """A project with a run saved as ``old``."""
    if not _OLD:
        assert pytester.runpytest_inprocess(*ACCURACY, "--benchmark-save=old").ret == 0
        _OLD.update({p.relative_to(where): p.read_bytes() for p in where.glob("reports/runs/**/*") if p.is_file()})
    for name, content in _OLD.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(content)
    return where


def change_run(where: Path, change: tuple[str, str]) -> None:
    (path,) = where.glob("reports/runs/*/0001_old.json")
    text = path.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change))


@pytest.mark.slow
def test_an_equal_run_passes_and_the_latest_is_not_the_run_itself(old: Path, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess(*ACCURACY, "--benchmark-save=new", "--segcore-baseline=latest")
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        [
            "*= segcore gate =*",
            "accuracy[[]blue-embedded-torch-cpu-32]",
            "*changed pixels*pass",
            "gate passed: new against old*",
        ]
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "code", "words"),
    [
        (("embedded-torch", "embedded-torch"), 0, "gate passed"),
        (('"preprocess": "', '"preprocess": "old '), 3, "incomparable"),
        (('"case": "blue"', '"case": "green"'), 1, "missing"),
    ],
)
def test_pytest_exits_as_the_gate_does(
    old: Path, pytester: pytest.Pytester, change: tuple[str, str], code: int, words: str
) -> None:
    change_run(old, change)
    done = pytester.runpytest_inprocess(*ACCURACY, "--segcore-baseline=old")
    assert done.ret == code
    done.stdout.fnmatch_lines([f"*{words}*"])


@pytest.mark.slow
def test_what_the_command_line_leaves_out_is_not_missing(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = ("bench/test_accuracy.py", *QUICK)
    assert pytester.runpytest_inprocess(*bench, "--segcore-size=32", "--benchmark-save=full").ret == 0
    for options, code, words in (
        (("-k", "blue"), 0, "*not selected*red*"),
        (("--deselect", "bench/test_accuracy.py::test_accuracy[red-embedded-torch-cpu-32]"), 0, "*not selected*red*"),
        (("--segcore-case=blue",), 0, "*not selected*red*"),
        (("--segcore-tag=speed", "--segcore-size=32"), 0, "*not selected*blue*"),
        (("bench/test_accuracy.py::test_accuracy[blue-embedded-torch-cpu-32]",), 0, "*not selected*red*"),
        (("--segcore-size=48",), 1, "*like all other items*"),
    ):
        place = bench[1:] if options[0].startswith("bench/") else bench
        done = pytester.runpytest_inprocess(*place, *options, "--segcore-baseline=full")
        assert done.ret == code, options
        done.stdout.fnmatch_lines([words])
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k blue")
    assert pytester.runpytest_inprocess(*bench, "--segcore-baseline=full").ret == 0
    monkeypatch.delenv("PYTEST_ADDOPTS")
    drop_red = "def pytest_collection_modifyitems(items): items[:] = [i for i in items if 'red' not in i.name]"
    for leave_out in (
        {"conftest.py": drop_red},
        {"conftest.py": "", "pytest.ini": "[pytest]\naddopts = -k blue"},
        {"pytest.ini": "[pytest]\naddopts = --segcore-case=blue"},
    ):
        for name, text in leave_out.items():
            (where / name).write_text(text)
        assert pytester.runpytest_inprocess(*bench, "--segcore-baseline=full").ret == 1, leave_out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "conftest.py",
            "def pytest_collection_modifyitems(config, items):\n"
            "    red = [item for item in items if 'red' in item.name]\n"
            "    items[:] = [item for item in items if item not in red]\n"
            "    config.hook.pytest_deselected(items=red)\n",
        ),
        (
            "pytest.ini",
            "[pytest]\naddopts = --deselect=bench/test_accuracy.py::test_accuracy[red-embedded-torch-cpu-32]",
        ),
    ],
)
def test_a_change_cannot_hide_behind_a_keyword_of_the_command_line(
    where: Path, pytester: pytest.Pytester, name: str, text: str
) -> None:
    """What the command line selects and the change deselects is missing."""
    bench = ("bench/test_accuracy.py", "--segcore-size=32", *QUICK)
    assert pytester.runpytest_inprocess(*bench, "--benchmark-save=full").ret == 0
    (where / name).write_text(text)
    done = pytester.runpytest_inprocess(*bench, "-k", "embedded", "--segcore-baseline=full")
    assert done.ret == 1
    done.stdout.fnmatch_lines(["gate FAILED: *1 missing*"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reference", "save", "files"),
    [
        ("main", (), ["0001_main.json"]),
        ("main", ("--benchmark-save=main",), ["0001_main.json"]),
        ("main", ("--benchmark-save=change",), ["0001_change.json", "0002_main.json"]),
        ("latest", (), ["0001_box-unversioned.json"]),
        ("base/main.json", (), ["main.json"]),
    ],
)
def test_without_a_baseline_the_first_run_becomes_it_once(
    where: Path, pytester: pytest.Pytester, reference: str, save: tuple[str, ...], files: list[str]
) -> None:
    options = (*ACCURACY, *save, f"--segcore-baseline={reference}?")
    done = pytester.runpytest_inprocess(*options)
    assert done.ret == 0
    done.stdout.fnmatch_lines([f"segcore gate: no baseline '{reference}' yet*"])
    written = sorted(path.name for path in (*where.glob("reports/runs/*/*.json"), *where.glob("base/*.json")))
    assert written == files
    done = pytester.runpytest_inprocess(*options)
    assert done.ret == 0
    done.stdout.fnmatch_lines(["gate passed*"])
    assert "no baseline" not in done.stdout.str()


@pytest.mark.slow
@pytest.mark.parametrize("reference", ["main", "base/main.json"])
def test_an_interrupted_first_run_is_recorded_again(where: Path, pytester: pytest.Pytester, reference: str) -> None:
    both = ("bench/test_accuracy.py", "--segcore-size=32", *QUICK, f"--segcore-baseline={reference}?")
    stop = "def pytest_runtest_logfinish(): raise KeyboardInterrupt"
    (where / "conftest.py").write_text(stop)
    assert pytester.runpytest_inprocess(*both, no_reraise_ctrlc=True).ret == pytest.ExitCode.INTERRUPTED
    (where / "conftest.py").unlink()
    for line in ("*no baseline*", "gate passed*"):
        done = pytester.runpytest_inprocess(*both)
        assert done.ret == 0
        done.stdout.fnmatch_lines([line])


@pytest.mark.parametrize("reference", ["?", "a:b?", "17?", "??"])
def test_a_baseline_that_cannot_be_recorded_is_exit_code_2(
    where: Path, pytester: pytest.Pytester, reference: str
) -> None:
    assert pytester.runpytest_inprocess(*ACCURACY, f"--segcore-baseline={reference}").ret == 2
    assert not list(where.glob("reports/**/*.json"))


def test_an_unreadable_baseline_is_no_absent_one(old: Path, pytester: pytest.Pytester) -> None:
    (path,) = old.glob("reports/runs/*/0001_old.json")
    path.write_text("")
    assert pytester.runpytest_inprocess(*ACCURACY, "--segcore-baseline=old?").ret == 2


@pytest.mark.slow
def test_a_change_that_loosens_its_own_judge_fails_unless_the_command_line_accepts_it(
    old: Path, pytester: pytest.Pytester
) -> None:
    cases, options = old / "cases" / "all.yaml", (*ACCURACY, "--segcore-baseline=old")
    text = cases.read_text()
    for before, after in (
        ("    sizes: [32]\n    expect: {dominant: cat}", "    sizes: [32]"),
        ("expect: {dominant: cat}", "expect: {dominant: cat}\n    limits: {max_drift: 0.5}"),
    ):
        assert before in text
        cases.write_text(text.replace(before, after))
        assert pytester.runpytest_inprocess(*options).ret == 1, after
        (old / "pytest.ini").write_text("[pytest]\naddopts = --segcore-accept-changed-limits")
        assert pytester.runpytest_inprocess(*options).ret == 1, after
        (old / "pytest.ini").unlink()
        assert pytester.runpytest_inprocess(*options, "--segcore-accept-changed-limits").ret == 0, after
    cases.write_text(text.replace("- name: blue", "- name: blue\n    skip_reason: flaky"))
    assert pytester.runpytest_inprocess(*options).ret == 1


@pytest.mark.slow
def test_a_failed_test_stays_a_failure_where_the_gate_is_undecided(old: Path, pytester: pytest.Pytester) -> None:
    change_run(old, ('"preprocess": "', '"preprocess": "old '))
    cases = old / "cases" / "all.yaml"
    cases.write_text(cases.read_text().replace("dominant: cat}", "dominant: dog}"))
    assert pytester.runpytest_inprocess(*ACCURACY, "--segcore-baseline=old").ret == 1


@pytest.mark.slow
def test_in_github_actions_it_annotates(old: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    change_run(old, ('"case": "blue"', '"case": "green"'))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(old / "summary.md"))
    done = pytester.runpytest_inprocess(*ACCURACY, "--segcore-baseline=old")
    done.stdout.fnmatch_lines(["::error title=segcore%3A missing%3A accuracy[[]green*"])
    assert (old / "summary.md").read_text().startswith("### ❌ segcore gate FAILED")


def test_a_baseline_that_is_not_there_ends_the_run_before_it_begins(where: Path, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess(*ACCURACY, "--segcore-baseline=nothing")
    assert done.ret == 2
    assert "run 'nothing': no such file, and no runs in" in done.stdout.str() + done.stderr.str()
    assert not list(where.glob("reports/**/*.json"))


def test_a_baseline_that_cannot_be_read_is_exit_code_2(where: Path, pytester: pytest.Pytester) -> None:
    (where / "bad.json").write_text(json.dumps({"segcore": {"schema_version": 99}}))
    done = pytester.runpytest_inprocess(*ACCURACY, "--segcore-baseline=bad.json")
    assert done.ret == 2
    assert "schema version 99 is unknown" in done.stdout.str() + done.stderr.str()


@pytest.mark.parametrize(
    ("change", "words"),
    [({"benchmarks": []}, "measured nothing"), ({"segcore": {"complete": False}}, "interrupted")],
)
def test_an_incomplete_baseline_is_refused(
    old: Path, pytester: pytest.Pytester, change: dict[str, Any], words: str
) -> None:
    (path,) = old.glob("reports/runs/*/0001_old.json")
    document = json.loads(path.read_bytes())
    document["segcore"] |= change.pop("segcore", {})
    path.write_text(json.dumps(document | change))
    done = pytester.runpytest_inprocess(*ACCURACY, "--segcore-baseline=old")
    assert done.ret == 2
    text = done.stdout.str() + done.stderr.str()
    assert "0001_old.json" in text
    assert words in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--segcore-baseline="], 2),
        (["--benchmark-save", "--segcore-baseline=latest"], 2),
        (["--segcore-baseline=latest"], 2),
    ],
)
def test_without_a_baseline_there_is_no_run(
    where: Path, pytester: pytest.Pytester, options: list[str], code: int
) -> None:
    assert pytester.runpytest_inprocess(*ACCURACY, *options).ret == code
    assert not (where / "reports").exists()


@pytest.mark.slow
def test_an_interrupted_run_is_not_judged(old: Path, pytester: pytest.Pytester) -> None:
    (old / "bench" / "test_latency.py").write_text("def test_latency(latency_item): raise KeyboardInterrupt\n")
    done = pytester.runpytest_inprocess("bench/", *QUICK, "--segcore-baseline=old", no_reraise_ctrlc=True)
    assert done.ret == pytest.ExitCode.INTERRUPTED
    assert "segcore gate" not in done.stdout.str()


def test_a_baseline_without_items_is_refused(where: Path, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess(*ACCURACY, "-k", "nothing_of_the_kind", "--segcore-baseline=latest")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*there is nothing to judge*"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "target",
    [
        "hooks.BenchHooks.__init__",
        "hooks.LiveLine.finish",
        "hooks.announce",
        "hooks.print_run",
        "hooks.judge_runs",
        "hooks.print_gate",
    ],
)
def test_a_crash_has_an_exit_code_of_its_own(
    old: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """pytest's own codes for it mean "regressed" (1) and "inconclusive" (3) here."""

    def crash(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(f"segcore.plugin.{target}", crash)
    done = pytester.runpytest_inprocess(*ACCURACY, "--segcore-baseline=old")
    assert done.ret == EXIT_CRASHED
    assert "ZeroDivisionError" in done.stdout.str() + done.stderr.str()


def test_closed_streams_are_no_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        stream.write("x")
        stream.close()


@pytest.mark.slow
def test_a_regression_found_before_a_crash_is_no_verdict(
    old: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    regressed = GateResult("old", "new", (Row("a", "median", "regressed", "slower"),))
    monkeypatch.setattr("segcore.plugin.hooks.judge_runs", lambda *_: regressed)
    pytester.makeconftest("def pytest_runtest_logfinish(): 1 / 0")
    done = pytester.runpytest_inprocess(*ACCURACY, "--segcore-baseline=old")
    assert done.ret == EXIT_CRASHED


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "code", "note"),
    [
        (None, 0, "gate passed"),
        (UsageError("it cannot be measured again"), 3, "note: it cannot be measured again"),
        (KeyboardInterrupt(), 2, "note: settling was interrupted"),
    ],
)
def test_what_is_undecided_is_settled_on_request(
    old: Path,
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException | None,
    code: int,
    note: str,
) -> None:
    asked: list[Any] = []

    def settled(gate: GateResult, *words: Any) -> GateResult:
        asked.extend(words)
        if error:
            raise error
        return replace(gate, rows=(Row("x", "median", "pass", "measured in turns"),))

    def undecided(*_: object, **__: object) -> GateResult:
        return GateResult("old", "new", (Row("x", "median", "inconclusive", "too few"),))

    monkeypatch.setattr(segcore.plugin.hooks, "settle", settled)
    monkeypatch.setattr(segcore.plugin.hooks, "judge_runs", undecided)
    options = ("--segcore-baseline=old", "--segcore-settle", "--segcore-settle-budget=30")
    done = pytester.runpytest_inprocess(*ACCURACY, *options)
    assert done.ret == code
    assert asked[3].budget_s == 30
    done.stdout.fnmatch_lines(["*what stays undecided will not be settled: this run has no commit*", f"*{note}*"])
