"""Journals: of runs in progress, which are left alone, and of killed runs, which are folded into their run files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from segcore.core.records import OutcomeRecord, Run
from segcore.results.journal import Journal, fold_journals
from segcore.results.store import benchmark_entry, journal_path, load_run, was_never_finished
from tests.support.factories import make_run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot tell a journal in use")


@pytest.fixture
def killed(tmp_path: Path) -> Run:
    """A run whose file has its first item, and whose journal has the others."""
    run = make_run(tmp_path, "0001_x", rounds=7, models=("embedded",))
    document = json.loads(run.path.read_bytes())
    document["benchmarks"], others = document["benchmarks"][:1], run.benchmarks[1:]
    document["segcore"] |= {"complete": False, "outcomes": document["segcore"]["outcomes"][:1]}
    run.path.write_text(json.dumps(document))
    journal = Journal(run.path, run.record.started)
    for benchmark, outcome in zip(others, run.record.outcomes[1:], strict=True):
        journal.append([benchmark_entry(benchmark.name, "node", benchmark.samples, benchmark.info)], outcome)
    assert fold(run.path.parent) == ["0001_x.partial.jsonl"]  # it is in use
    journal.close()
    return run


def fold(directory: Path) -> list[str]:
    """Fold, and return the journals that are left."""
    fold_journals(directory)
    return sorted(path.name for path in directory.glob("*.jsonl"))


def test_a_killed_run_becomes_one_file(killed: Run) -> None:
    before = load_run(killed.path)
    assert fold(killed.path.parent) == []
    assert load_run(killed.path) == before
    assert load_run(killed.path).benchmarks == killed.benchmarks
    assert not before.record.complete
    assert json.loads(killed.path.read_bytes())["version"]  # what pytest-benchmark wrote is still there


def test_an_item_that_was_executed_again_counts_once(killed: Run) -> None:
    journal = Journal(killed.path, killed.record.started)
    last = killed.record.outcomes[-1]
    journal.append([], last.model_copy(update={"outcome": "failed"}))
    journal.append([], OutcomeRecord(item="other", kind="latency", outcome="skipped"))
    journal.close()
    assert fold(killed.path.parent) == []
    run = load_run(killed.path)
    assert run.benchmarks == killed.benchmarks[:-1]
    assert [outcome.outcome for outcome in run.record.outcomes[-2:]] == ["failed", "skipped"]


def no_journal(run: Run) -> Path:
    path = journal_path(run.path)
    path.unlink()
    return path


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (lambda run: os.truncate(journal_path(run.path), 5000), False),
        (lambda run: journal_path(run.path).write_text(""), False),
        (lambda run: journal_path(run.path).write_text('{"started": "other", "benchmarks": [], "outcome": {}}'), True),
        (lambda run: journal_path(run.path).write_text("17\n"), True),
        (lambda run: run.path.rename(run.path.with_name("away")), False),
        (lambda run: run.path.write_text("{"), True),
        (lambda run: run.path.write_text("{}"), True),
        (lambda run: os.mkfifo(no_journal(run)), True),
        (lambda run: (no_journal(run) / "x").mkdir(parents=True), True),
    ],
)
def test_what_cannot_be_read_stays(killed: Run, change: Callable[[Run], object], left: bool) -> None:
    change(killed)
    before = killed.path.read_bytes() if killed.path.exists() else None
    assert fold(killed.path.parent) == [journal_path(killed.path).name] * left
    if left and before is not None:
        assert killed.path.read_bytes() == before


@pytest.mark.parametrize(
    ("names", "finished", "never"),
    [
        ([], [], True),
        (["0001_x"], [True], False),
        (["0001_x"], [False], True),
        (["0001_x", "0002_x"], [False, False], True),
        (["0001_x", "0002_x"], [True, False], False),
        (["0001_x", "0002_x"], [False, True], False),
        (["0001_y", "0002_x"], [True, False], True),
    ],
)
def test_a_name_all_of_whose_runs_were_interrupted(
    tmp_path: Path, names: list[str], finished: list[bool], never: bool
) -> None:
    for name, complete in zip(names, finished, strict=True):
        run = make_run(tmp_path, name, rounds=7, models=("embedded",))
        document = json.loads(run.path.read_bytes())
        document["segcore"]["complete"] = complete
        run.path.write_text(json.dumps(document))
    assert was_never_finished("x", tmp_path) == never
    (tmp_path / "0009_x.json").write_text("")  # one that cannot be read may have been finished
    assert not was_never_finished("x", tmp_path)
