"""``segcore sync`` and the commands that then read the runs of all machines."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from segcore.cli import cli
from tests.support.factories import make_run
from tests.support.repositories import git


def run(*words: object, machine: str = "desk") -> Result:
    return CliRunner(env={"SEGCORE_MACHINE": machine}).invoke(cli, [str(word) for word in words])


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place with a run of a laptop, and a working directory in which the desk recorded two."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "place").mkdir()
    make_run(tmp_path / "laptop", "main", rounds=8, models=("embedded",), seed=1)
    assert run("sync", "place", "--storage", "laptop", machine="laptop").exit_code == 0
    for n, name in enumerate(("main", "change")):
        make_run(Path("reports/runs/x"), name, rounds=8, models=("embedded",), seed=n, started=f"2026-11-0{n + 1}")
    return tmp_path / "place"


def test_what_was_exchanged_is_printed(shared: Path) -> None:
    first = run("sync", shared)
    assert first.exit_code == 0, first.output
    assert "1 pulled: laptop/main\n" in first.stdout
    assert "2 pushed: desk/main, desk/change\n" in first.stdout
    again = json.loads(run("sync", shared, "--json").stdout)
    assert (again["machine"], again["pulled"], again["pushed"], again["failed"]) == ("desk", [], [], [])
    pruned = json.loads(run("sync", shared, "--keep", "1", "--json").stdout)
    assert pruned["pruned"] == [], "one run of each name is all there is"


@pytest.mark.parametrize(
    ("words", "codes"),
    [
        (("gate", "laptop/main", "latest"), (0, 1, 3)),
        (("compare", "laptop/main", "desk/main"), (0,)),
        (("history",), (0,)),
        (("report", "laptop/main", "latest"), (0,)),
        (("gate", "main", "latest"), (2,)),
        (("report", "nobody/main"), (2,)),
    ],
)
def test_commands_read_the_runs_of_all_machines(shared: Path, words: tuple[str, ...], codes: tuple[int, ...]) -> None:
    run("sync", shared)
    result = run(*words)
    assert result.exit_code in codes, result.output
    if codes == (2,):
        assert result.stderr.count("\n") == 1
    elif words[0] in ("compare", "history"):
        assert "laptop" in result.stdout


@pytest.mark.parametrize(
    "words",
    [("nowhere",), ("place", "--keep", "0"), ("place", "--keep", "1", "--pull-only"), ("place", "--branch"), ()],
)
def test_bad_input_is_exit_code_2_and_pushes_nothing(shared: Path, words: tuple[str, ...]) -> None:
    result = run("sync", *words)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert not (shared / "desk").exists()


def test_what_cannot_be_read_is_said(shared: Path) -> None:
    """There, it is left out; here, it is an error, and the rest is pushed."""
    (shared / "laptop" / "2026110110000012345678_main.json").write_text("{")
    broken = Path("reports/runs/x/0003_broken.json")
    broken.write_text('{"segcore": {"started": "2026-11-03T00:00:00+00:00"}}')
    result = run("sync", shared)
    assert result.exit_code == 2
    left_out, failed = result.stderr.splitlines()
    assert "2026110110000012345678_main.json" in left_out
    assert "0003_broken.json" in failed
    assert "2 pushed" in result.stdout


def test_the_first_baseline_of_this_machine_may_carry_its_name(shared: Path) -> None:
    """``--segcore-baseline=desk/first?`` records a run named ``first``, not a file at that path."""
    from types import SimpleNamespace

    from segcore.plugin.storage import DEFAULT_STORAGE, FIRST_RUN, load_baseline

    stash: dict[object, object] = {}
    session = SimpleNamespace(storage=SimpleNamespace(path=Path("reports/runs")))
    option = SimpleNamespace(segcore_baseline="desk/first?", benchmark_storage=DEFAULT_STORAGE)
    config = SimpleNamespace(option=option, stash=stash, _benchmarksession=session)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGCORE_MACHINE", "desk")
        assert load_baseline(config) == ()  # type: ignore[arg-type]  # as much of one as is read
    assert stash[FIRST_RUN] == "first"


def test_a_repository_is_a_place(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "runs.git").mkdir()
    git(tmp_path / "runs.git", "init", "-q", "--bare")
    assert run("sync", "runs.git", "--branch", "benchmarks").exit_code == 0
    assert len(git(tmp_path / "runs.git", "ls-tree", "-r", "--name-only", "benchmarks").splitlines()) == 11
    there = run("sync", "runs.git", "--branch", "benchmarks", "--storage", "laptop", machine="laptop")
    assert "2 pulled: desk/main, desk/change\n" in there.stdout
