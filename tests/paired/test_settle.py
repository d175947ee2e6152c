from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from segcore.cli import cli
from segcore.core.errors import ArmError, UsageError
from segcore.core.files import sha256_file
from segcore.core.limits import Limits
from segcore.core.records import ModelFileRecord, Run, WeightsRecord
from segcore.judgement.gate import judge
from segcore.paired.arms import Arm
from segcore.paired.sequential import look
from segcore.paired.session import Block, PairedItem, PairedOptions, PairedResult
from segcore.paired.settle import SettleOptions, settle
from tests.support.judged_runs import an_item, steady
from tests.support.processes import ALONE
from tests.support.repositories import git
from tests.support.settling import HERE, KEY, NODE, measured

ROOT = Path(__file__).parents[2]
OPTIONS = SettleOptions(Limits(), budget_s=60)


class Runner:
    """Arms of which the head is slower by a share."""

    def __init__(self, slower: float) -> None:
        self.slower, self.calls = slower, list[tuple[Arm, Arm, PairedOptions]]()
        self.code: list[str] = []

    def __call__(self, base: Arm, head: Arm, options: PairedOptions, report: Callable[[str], None]) -> PairedResult:
        self.calls.append((base, head, options))
        self.code = [(arm.code / "widget.py").read_text() for arm in (base, head) if arm.code]
        ratios = [self.slower + 0.001 * n for n in range(4)]
        blocks = tuple(Block(ratio, 0.05, 0.05) for ratio in ratios)
        found = tuple(replace(item, blocks=blocks, look=look(ratios, item.limit)) for item in options.items)
        return PairedResult(found, 4, 12.0)


@pytest.fixture
def runs(repository: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Run]:
    """Runs of two commits of a repository."""
    monkeypatch.chdir(repository)
    git(repository, "commit", "-qam", "second")
    commits = git(repository, "rev-parse", "HEAD~1", "HEAD").split()
    found = []
    for name, commit in zip(("old", "new"), commits, strict=True):
        run = measured(name)
        assert run.record.git
        record = run.record.model_copy(update={"git": run.record.git.model_copy(update={"commit": commit})})
        found.append(run.model_copy(update={"record": record}))
    return found[0], found[1]


def with_fields(run: Run, **fields: Any) -> Run:
    return run.model_copy(update={"record": run.record.model_copy(update=fields)})


def settle_with(runner: Runner, old: Run, new: Run) -> Any:
    return settle(judge([old], [new], Limits()), [old], [new], HERE, OPTIONS, lambda _: None, runner)


@pytest.mark.parametrize(("slower", "verdict", "code"), [(0.0, "pass", 0), (0.2, "regressed", 1)])
def test_what_is_undecided_is_measured_at_both_commits(
    runs: tuple[Run, Run], repository: Path, slower: float, verdict: str, code: int
) -> None:
    runner = Runner(slower)
    result = settle_with(runner, *runs)
    assert [(row.item, row.verdict) for row in result.rows] == [(KEY, verdict)]
    assert result.exit_code == code
    ((base, head, options),) = runner.calls
    assert options == PairedOptions(budget_s=60, items=(PairedItem(NODE, NODE, 0.05),))
    assert (base.args, base.cwd) == (("bench", "bench/"), head.cwd)
    assert ["4000" in runner.code[0], "24000" in runner.code[1]] == [True, True]
    assert "1 items were measured in turns" in result.notes[-1]
    assert git(repository, "worktree", "list").count("\n") == 0


def test_nothing_is_measured_if_everything_is_decided(runs: tuple[Run, Run]) -> None:
    old, new = (
        run.model_copy(update={"benchmarks": (an_item(steady(s)),)}) for run, s in zip(runs, (1, 9), strict=True)
    )
    runner = Runner(0.0)
    assert settle_with(runner, old, new).exit_code == 1
    assert runner.calls == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"git": None}, "names no commit"),
        (
            {"command": ("pytest", "bench", "--segcore-weights", "gone.pt")},
            "gone.pt of new (--segcore-weights) is lost",
        ),
        ({"command": ("pytest", "bench", "--segcore-model=gone.yaml")}, "gone.yaml of new (--segcore-model) is lost"),
        ({"outcomes": ()}, "do not name its test"),
    ],
)
def test_what_cannot_be_settled_is_refused_before_anything_runs(
    runs: tuple[Run, Run], change: dict[str, Any], words: str
) -> None:
    runner = Runner(0.0)
    with pytest.raises(UsageError) as error:
        settle_with(runner, runs[0], with_fields(runs[1], **change))
    assert words in str(error.value)
    assert runner.calls == []


def test_a_commit_that_is_not_here_is_named(runs: tuple[Run, Run]) -> None:
    git_record = runs[0].record.git
    assert git_record
    old = with_fields(runs[0], git=git_record.model_copy(update={"commit": "e" * 40}))
    with pytest.raises(UsageError, match="old: no revision 'eeee"):
        settle_with(Runner(0.0), old, runs[1])


def test_a_regression_stays_one_though_nothing_can_be_settled(runs: tuple[Run, Run]) -> None:
    dog = {"case": "dog"}
    old = runs[0].model_copy(update={"benchmarks": (*runs[0].benchmarks, an_item(steady(1), **dog))})
    new = with_fields(runs[1], git=None)
    new = new.model_copy(update={"benchmarks": (*new.benchmarks, an_item(steady(9), **dog))})
    result = settle_with(Runner(0.0), old, new)
    assert result.exit_code == 1
    assert "names no commit" in result.notes[-1]


def test_an_arm_that_fails_hides_no_regression(runs: tuple[Run, Run]) -> None:
    def fail(*_: object) -> PairedResult:
        raise ArmError("head arm: it ended")

    old, new = runs
    with pytest.raises(ArmError):
        settle(judge([old], [new], Limits()), [old], [new], HERE, OPTIONS, lambda _: None, fail)
    old, new = (
        run.model_copy(update={"benchmarks": (*run.benchmarks, an_item(steady(seconds), case="dog"))})
        for run, seconds in zip(runs, (1, 9), strict=True)
    )
    result = settle(judge([old], [new], Limits()), [old], [new], HERE, OPTIONS, lambda _: None, fail)
    assert (result.exit_code, result.notes[-1]) == (1, "head arm: it ended")


def test_weights_that_git_ignores_are_in_both_arms(runs: tuple[Run, Run], repository: Path) -> None:
    (repository / ".gitignore").write_text("*.pt\n")
    (repository / "models").mkdir()
    for name in ("models/net.pt", "models/net.json", "models/new.yaml", "notes.json"):
        (repository / name).write_text(name)
    (repository / "site-packages").mkdir()
    (repository / "site-packages" / "other.pt").write_text("of a package")
    seen: list[set[str]] = []

    class Look(Runner):
        def __call__(self, base: Arm, head: Arm, *more: Any) -> PairedResult:
            for arm in (base, head):
                assert arm.code
                seen.append({str(path.relative_to(arm.code)) for path in arm.code.rglob("*") if path.is_symlink()})
                assert (arm.code / "models" / "net.pt").read_text() == "models/net.pt"
            return super().__call__(base, head, *more)

    settle_with(Look(0.0), *runs)
    assert seen == [{"models/net.pt", "models/net.json"}] * 2
    assert (repository / "models" / "net.pt").read_text() == "models/net.pt"


@pytest.mark.parametrize(
    ("old", "new", "tracked", "refused"),
    [("a", "b", False, True), ("a", "a", False, False), ("a", "b", True, False)],
)
def test_weights_that_were_replaced_are_not_measured_as_others(
    runs: tuple[Run, Run], repository: Path, old: str, new: str, tracked: bool, refused: bool
) -> None:
    if tracked:
        (repository / "net.pt").write_text("weights")
        git(repository, "add", "net.pt")
    file = ModelFileRecord(file="models/net.yaml", sha256="c" * 64, source="python")
    before, after = (
        run.model_copy(
            update={
                "benchmarks": (
                    an_item(
                        steady(seed=n),
                        model_file=file,
                        weights=WeightsRecord(kind="checkpoint", name="net.pt", sha256=sha * 64),
                    ),
                )
            }
        )
        for n, (run, sha) in enumerate(zip(runs, (old, new), strict=True))
    )
    if refused:
        with pytest.raises(UsageError, match=r"net\.pt has changed between the runs, and git has neither"):
            settle_with(Runner(0.0), before, after)
    else:
        assert settle_with(Runner(0.0), before, after).exit_code == 0


def test_a_bench_that_differs_is_noted(runs: tuple[Run, Run], repository: Path) -> None:
    (repository / "bench").mkdir(exist_ok=True)
    (repository / "bench" / "conftest.py").write_text("# another\n")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "third")
    assert runs[1].record.git
    commit = runs[1].record.git.model_copy(update={"commit": git(repository, "rev-parse", "HEAD").strip()})
    notes = settle_with(Runner(0.0), runs[0], with_fields(runs[1], git=commit)).notes
    assert "bench or cases differ between the revisions (bench/conftest.py)" in notes[-1]
    assert not any("differ between" in note for note in settle_with(Runner(0.0), *runs).notes)


def test_files_that_git_does_not_have_are_named_absolutely_and_must_not_change(
    runs: tuple[Run, Run], repository: Path
) -> None:
    weights = repository / "new.pt"
    weights.write_bytes(b"weights")
    command = ("pytest", "bench", "--segcore-weights", "new.pt")
    record = WeightsRecord(kind="checkpoint", name="new.pt", sha256=sha256_file(weights))
    new = with_fields(runs[1], command=command)
    new = new.model_copy(update={"benchmarks": (an_item(steady(seed=3), weights=record),)})
    runner = Runner(0.0)
    settle_with(runner, runs[0], new)
    assert runner.calls[0][1].args[-2:] == ("--segcore-weights", str(weights.resolve()))
    weights.write_bytes(b"others")
    with pytest.raises(UsageError, match=r"new.pt of new \(--segcore-weights\) has changed since"):
        settle_with(Runner(0.0), runs[0], new)


# For real

CASES = """
cases:
  - name: red
    image: {path: red.png}
    models: [embedded]
    sizes: [32]
    limits: [{max_slowdown: 0.2}]
    expect: {}
"""
SLOWER = """
import time
import segcore.plugin.items as items

call = items.SpeedItem.__call__

def slower(self):
    start = time.perf_counter()
    call(self)
    end = time.perf_counter()
    while time.perf_counter() < end + 0.4 * (end - start):
        pass

items.SpeedItem.__call__ = slower
"""


@pytest.mark.slow
def test_two_run_files_of_a_repository_without_code_are_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bench", "cases"):
        (tmp_path / name).mkdir()
    (tmp_path / "bench" / "test_latency.py").write_text((ROOT / "bench" / "test_latency.py").read_text())
    (tmp_path / "cases" / "all.yaml").write_text(CASES)
    Image.new("RGB", (60, 40), (200, 30, 30)).save(tmp_path / "cases" / "red.png")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / ".gitignore").write_text("reports/\n__pycache__/\n")
    environment = {**os.environ, **ALONE, "PYTHONPATH": str(ROOT)}

    git(tmp_path, "init", "-q")
    for name, conftest in (("before", ""), ("after", SLOWER)):
        (tmp_path / "bench" / "conftest.py").write_text(conftest)
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-qm", name)
    before = git(tmp_path, "rev-parse", "HEAD~1").strip()
    bench = [sys.executable, "-m", "pytest", "bench/", "-q", "-p", "no:cacheprovider", "--benchmark-save=after"]
    bench += ["--segcore-processes=1", "--segcore-wait=0", "--benchmark-max-time=0.01", "--segcore-device=cpu"]
    run = subprocess.run(bench, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    (path,) = tmp_path.glob("reports/runs/*/0001_after.json")
    document = json.loads(path.read_bytes())  # the other run, as if its commit had been as fast
    commit = document["segcore"]["git"] | {"commit": before}
    document["segcore"] |= {"name": "before", "git": commit, "started": "2026-01-01T00:00:00+00:00"}
    (tmp_path / "before.json").write_text(json.dumps(document))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segcore.paired.session.BLOCK_S", 2.0)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    words = ("gate", "before.json", "after", "--process-noise", "0.2", "--settle", "--budget", "1", "--json")
    done = CliRunner().invoke(cli, words)
    found = json.loads(done.stdout)
    assert done.exit_code in (1, 3)  # two blocks are few
    assert found["rows"][0]["change"] > 0.2
    assert "measured in turns" in found["rows"][0]["reason"]
    assert "each arm runs the bench of its own revision" in done.stderr
    assert git(tmp_path, "worktree", "list").count("\n") == 0
