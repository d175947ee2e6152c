"""Workers and worktrees: real git, real processes, a real pytest in each."""

from __future__ import annotations

import shutil
import signal
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from segcore.core.errors import ArmError, UsageError
from segcore.paired import session
from segcore.paired.arms import WORKER, Arm, changed_bench, repository_of, untracked, worktrees
from segcore.paired.audit import SLOW_WORKER
from segcore.paired.cleanup import deferred_interrupts, temporary_directory
from segcore.paired.process import WorkerItem, start_worker
from segcore.paired.session import PairedOptions, run_paired, run_revisions
from tests.support.repositories import git


def arms(repository: Path, base: Path, head: Path) -> tuple[Arm, Arm]:
    return (
        Arm("base", ("bench",), head, base, forbidden=(repository, head)),
        Arm("head", ("bench",), head, head, forbidden=(repository, base)),
    )


@pytest.mark.slow
def test_a_slowdown_between_two_revisions_is_found(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "TURN_S", 0.002)
    monkeypatch.setattr(session, "BLOCK_S", 0.1)
    with worktrees(repository, "HEAD") as (base, head):
        result = run_paired(*arms(repository, base, head), PairedOptions(0.5, budget_s=300.0))
        assert base.parent.is_dir()
    assert {item.head_name.rpartition("::")[2]: item.look.decision for item in result.items} == {
        "test_work": "regressed",
        "test_pedantic": "regressed",
    }
    assert statistics.median(block.head_s / block.base_s for block in result.items[0].blocks) > 3
    assert not base.parent.exists()
    assert git(repository, "worktree", "list").count("\n") == 0
    assert git(repository, "stash", "list") == ""


WATCHFUL = """
import sys
def test_it(benchmark, tmp_path):
    assert sys.gettrace() is None
    benchmark(sum, [1, 2])
"""


@pytest.mark.slow
def test_a_worker_leaves_what_the_bench_writes_alone_and_is_not_traced(tmp_path: Path) -> None:
    """The options are those of the bench, which has written these files, or is about to."""
    (tmp_path / "test_watchful.py").write_text(WATCHFUL)
    options = ("--cov=.", "--log-file=log", "--basetemp=temp", "--junitxml=junit.xml", "-n2")
    (tmp_path / "temp").mkdir()
    kept = [tmp_path / name for name in (".coverage", "log", "temp/file", "junit.xml")]
    for path in kept:
        path.write_text("of the bench")
    with start_worker(Arm("bench", ("test_watchful.py", *options), tmp_path)) as worker:
        assert worker.item() == WorkerItem("test_watchful.py::test_it")
        assert len(worker.measure(3)) == 3
    assert [path.read_text() for path in kept] == ["of the bench"] * len(kept)


def test_worktrees_hold_the_revision_and_the_uncommitted_state(repository: Path) -> None:
    with worktrees(repository, "HEAD") as (base, head):
        assert "4000" in (base / "widget.py").read_text()
        assert "24000" in (head / "widget.py").read_text()
    assert "24000" in (repository / "widget.py").read_text()


def test_worktrees_are_gone_after_an_interrupt(repository: Path) -> None:
    with pytest.raises(KeyboardInterrupt), worktrees(repository, "HEAD") as (base, _):
        raise KeyboardInterrupt
    assert not base.parent.exists()
    assert git(repository, "worktree", "list").count("\n") == 0


def test_an_unknown_revision_is_named(repository: Path) -> None:
    with pytest.raises(UsageError, match="no revision 'nonsense'"), worktrees(repository, "nonsense"):
        pass


def test_a_directory_outside_of_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="not a git repository"):
        repository_of(tmp_path)


def test_untracked_files_are_listed(repository: Path) -> None:
    (repository / "bench" / "test_new.py").write_text("")
    assert untracked(repository) == ("bench/test_new.py",)
    assert repository_of(repository / "bench") == repository.resolve()


def _head(repository: Path) -> Arm:
    return Arm("head", ("bench",), repository, repository)


def _broken_interpreter(repository: Path) -> Arm:
    python = repository / "python"
    python.write_text("#!/bin/sh\necho there is no pytest here >&2\nexit 3\n")
    python.chmod(0o755)
    return Arm("base", ("bench",), repository, python=str(python))


def _edit(path: str, text: str) -> Callable[[Path], Arm]:
    def change(repository: Path) -> Arm:
        (repository / path).write_text(text)
        return _head(repository)

    return change


def _foreign_code(repository: Path) -> Arm:
    """The code under test is imported from the repository, not from the arm's own directory."""
    (repository / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    return Arm("base", ("bench",), repository, repository / "bench", forbidden=(repository,))


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (_edit("widget.py", "raise ImportError('no such kernel')"), "test_widget.py cannot be collected"),
        (_edit("widget.py", "def work(): raise ValueError('broken')"), "test_work failed: ValueError: broken"),
        (_edit("bench/test_widget.py", "import pytest\ndef test_a(benchmark): pytest.skip('GPU')"), "skipped.*GPU"),
        (_edit("bench/test_widget.py", "import widget\ndef test_a(): pass"), "ran no benchmark"),
        (_edit("bench/test_widget.py", "import os\ndef test_a(benchmark): benchmark(os._exit, 3)"), "it ended"),
        (_edit("bench/test_widget.py", "def test_a(benchmark): benchmark(len, 'a')"), "nothing from its worktree"),
        (lambda r: Arm("head", ("bench", "--nonsense"), r, r), "ran no benchmark .exit code 4."),
        (_foreign_code, "base arm: .* from outside its worktree: widget"),
        (lambda r: Arm("head", ("bench",), r, r, python=str(r / "python")), "cannot be started"),
        (_broken_interpreter, "base arm: it ended; .*there is no pytest here"),
    ],
)
def test_an_arm_that_cannot_run_is_an_error(repository: Path, prepare: Callable[[Path], Arm], message: str) -> None:
    with pytest.raises(ArmError, match=message):
        run_through(prepare(repository))


SETUP = """
def test_a(benchmark):
    made = []

    def setup():
        made.append(len(made))
        return (made[-1],), {}

    def work(number):
        assert number == len(made) - 1

    benchmark.pedantic(work, setup=setup, rounds=3)
"""


def test_a_setup_runs_before_each_call(repository: Path) -> None:
    (repository / "bench" / "test_widget.py").write_text("import widget\n" + SETUP)
    run_through(_head(repository))


def test_a_repository_without_code_runs_the_bench_of_each_revision(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "TURN_S", 0.002)
    monkeypatch.setattr(session, "BLOCK_S", 0.1)
    bench = "def test_a(benchmark): benchmark(sum, range({}))\n"
    for size in (2000, 20000):
        (repository / "bench" / "test_widget.py").write_text(bench.format(size))
        git(repository, "commit", "-qam", f"{size}")
    lines: list[str] = []
    with worktrees(repository, "HEAD~1", "HEAD") as (base, head):
        result = run_revisions(*arms(repository, base, head), PairedOptions(0.5, budget_s=1.0), lines.append)
    assert result.items[0].log_ratios[0] > 1.5
    assert "each arm runs the bench of its own revision" in lines[0]


def test_what_differs_in_the_bench_is_listed(repository: Path) -> None:
    (repository / "cases").mkdir()
    for name in ("bench/test_widget.py", "cases/a.yaml", "bench/conftest.py", "notes.md"):
        (repository / name).write_text("import widget\n")
    (repository / "pyproject.toml").write_text("[tool.ruff]\n")
    git(repository, "add", ".")
    with worktrees(repository, "HEAD") as trees:
        found = changed_bench(trees, Path(), "bench")
    assert found == ("bench/conftest.py", "bench/test_widget.py", "cases/a.yaml")
    (repository / "pyproject.toml").write_text("[tool.segcore]\ncase = 'a'\n")
    with worktrees(repository, "HEAD") as trees:
        assert changed_bench(trees, Path(), "bench") == (*found, "pyproject.toml")


def run_through(arm: Arm) -> None:
    with start_worker(arm) as worker:
        while worker.item():
            worker.measure(1)
            worker.next_item()


def test_a_worker_serves_only_the_items_that_are_wanted(repository: Path) -> None:
    with start_worker(_head(repository), ("bench/test_widget.py::test_pedantic",)) as worker:
        assert worker.item() == WorkerItem("bench/test_widget.py::test_pedantic")
        assert len(worker.measure(3)) == 3
        worker.next_item()
        assert worker.item() is None


@pytest.mark.slow
def test_a_worker_of_a_bench_run_writes_and_judges_nothing(repository: Path) -> None:
    """It has the arguments of the bench; its rounds come with the reference task and its processor time."""
    words = ("--benchmark-only", "--benchmark-save=x", "--benchmark-json=out.json", "--junitxml=out.xml", "--pdb")
    before = set(repository.rglob("*"))
    arm = Arm("process 2", ("bench", *words), repository, path=(str(repository),))
    with start_worker(arm, ("bench/test_widget.py::test_work",)) as worker:
        assert worker.item()
        found = worker.measure_rounds(3, "cpu")
        worker.next_item()
        assert worker.item() is None
    assert len(found.times_s) == len(found.reference_s) == 3
    assert found.cpu_s > 0
    assert {path for path in set(repository.rglob("*")) - before if "__pycache__" not in path.parts} == set()


def test_a_worker_that_waits_is_stopped(repository: Path) -> None:
    with start_worker(_head(repository)) as worker:
        (process,) = (p for p in psutil.Process().children() if any("worker.py" in word for word in p.cmdline()))
        for wait in (worker.item, lambda: worker.measure(2)):
            wait()
            deadline = time.monotonic() + 60  # the signal has been sent, but takes its time on a busy machine
            while process.status() != psutil.STATUS_STOPPED:
                assert time.monotonic() < deadline, process.status()
        worker.next_item()
        assert worker.item() is not None


def test_interrupts_are_deferred_until_the_end_of_the_body() -> None:
    done = []

    def interrupted() -> None:
        with deferred_interrupts():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest")
        done.append("never")

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert done == ["the rest"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_worker_is_gone_when_the_gate_is_interrupted(repository: Path) -> None:
    running: list[psutil.Process] = []

    def interrupted() -> None:
        with start_worker(_head(repository)) as worker:
            worker.item()
            running.extend(p for p in psutil.Process().children() if any("worker.py" in word for word in p.cmdline()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert running
    assert not any(p.is_running() for p in running)


def test_leftovers_of_dead_gates_are_removed_and_those_of_live_ones_kept(repository: Path) -> None:
    temporary = repository.parent / "tmp"
    with worktrees(repository, "HEAD") as (base, head):
        dead = temporary / "segcore-gate-1-dead"
        git(repository, "worktree", "add", "--detach", "-q", str(dead / "base"))
        git(repository, "worktree", "lock", str(dead / "base"))
        git(repository, "worktree", "add", "--detach", "-q", str(temporary / "segcore-gate-2-gone" / "base"))
        shutil.rmtree(temporary / "segcore-gate-2-gone")
        (temporary / "segcore-gate-of-no-interest").touch()
        with worktrees(repository, "HEAD"):
            assert not dead.exists()
            assert git(repository, "worktree", "list").count("\n") == 4
        assert (base / "widget.py").exists()
        assert (head / "widget.py").exists()
    assert git(repository, "worktree", "list").count("\n") == 0


def test_worktrees_of_another_repository_are_unregistered(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(repository), str(other))
    git(other, "worktree", "add", "--detach", "-q", str(tmp_path / "tmp" / "segcore-gate-1-dead" / "base"))
    with temporary_directory() as directory:
        assert list((tmp_path / "tmp").iterdir()) == [directory]
    assert git(other, "worktree", "list").count("\n") == 0


def test_the_slow_worker_is_slower(repository: Path) -> None:
    """By far more than two processes differ on any machine."""
    seconds = []
    for program in ((str(WORKER),), (str(SLOW_WORKER), "20.0")):
        with start_worker(replace(_head(repository), program=program)) as worker:
            assert worker.item()
            seconds.append(min(worker.measure(5)))
    assert seconds[1] > 5 * seconds[0]
