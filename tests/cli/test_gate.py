from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from segcore.cli import cli
from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.paired import session
from segcore.paired.audit import Audit, Level
from segcore.paired.session import PairedOptions
from segcore.results.store import save_run
from tests.support.factories import make_machine
from tests.support.judged_runs import a_run, an_item, steady
from tests.support.repositories import git


@pytest.fixture(autouse=True)
def _outside_of_ci(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def saved(directory: Path, name: str, factor: float = 1.0, seed: int = 0, **fields: object) -> Run:
    directory.mkdir(parents=True, exist_ok=True)
    run = a_run(an_item(steady(0.05 * factor, seed=seed)), name=name, **fields)
    run = run.model_copy(update={"path": directory / f"{name}.json"})
    save_run(run)
    return run


def segcore(*words: str) -> Result:
    return CliRunner().invoke(cli, words)


@pytest.mark.parametrize(
    ("factor", "options", "code", "verdict"),
    [
        (1.0, ["--process-noise", "0.003"], 0, "gate passed"),
        (1.2, ["--process-noise", "0.003"], 1, "gate FAILED"),
        (1.2, ["--process-noise", "0.003", "--max-slowdown", "0.5"], 0, "gate passed"),
        (1.0, [], 3, "gate undecided"),
    ],
)
def test_run_files_are_judged(tmp_path: Path, factor: float, options: list[str], code: int, verdict: str) -> None:
    saved(tmp_path, "old")
    saved(tmp_path, "new", factor, seed=1)
    result = segcore("gate", "old.json", "new.json", *options)
    assert result.exit_code == code, result.output
    assert verdict in result.stdout
    assert "latency[cat-embedded-torch-cpu-320]" in result.stdout


def test_verdicts_are_exported(tmp_path: Path) -> None:
    saved(tmp_path, "old")
    saved(tmp_path, "new", 1.2, seed=1)
    words = [f"--export={name}=out/{name}" for name in ("junit", "gitlab", "markdown")]
    result = segcore("gate", "old.json", "new.json", "--process-noise", "0.003", *words)
    assert result.exit_code == 1, result.output
    assert "gate FAILED" in result.stdout
    assert 'failures="1"' in (tmp_path / "out/junit").read_text()
    assert len(json.loads((tmp_path / "out/gitlab").read_bytes())) == 1
    assert (tmp_path / "out/markdown").read_text().startswith("### ❌")


@pytest.mark.parametrize(("factor", "code"), [(1.0, 2), (1.2, 1)])
def test_an_export_that_cannot_be_written_is_no_pass(tmp_path: Path, factor: float, code: int) -> None:
    saved(tmp_path, "old")
    saved(tmp_path, "new", factor, seed=1)
    result = segcore("gate", "old.json", "new.json", "--process-noise", "0.003", "--export", "junit=/dev/full")
    assert result.exit_code == code
    assert result.stderr.count("/dev/full: cannot be written") == 1


def test_an_export_on_stdout_replaces_the_tables(tmp_path: Path) -> None:
    saved(tmp_path, "old")
    saved(tmp_path, "new", 1.2, seed=1)
    result = segcore("gate", "old.json", "new.json", "--process-noise", "0.003", "--export", "gitlab")
    assert result.exit_code == 1
    assert len(json.loads(result.stdout)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("redirection", [">/dev/full", ">/dev/full 2>/dev/full", "2>/dev/full", ">&- 2>&- <&-"])
@pytest.mark.parametrize("options", ["", "--json"])
def test_the_exit_code_is_the_verdict_wherever_it_is_printed(tmp_path: Path, redirection: str, options: str) -> None:
    saved(tmp_path, "old")
    saved(tmp_path, "new", 1.2, seed=1)
    command = f"{sys.executable} -m segcore gate old.json new.json --process-noise 0.003 {options} {redirection}"
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary")}
    done = subprocess.run(["bash", "-c", command], env=environment, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == (redirection == ">/dev/full")
    assert (tmp_path / "summary").stat().st_size > 100


def test_runs_are_found_by_name_and_the_store_teaches_the_noise(tmp_path: Path) -> None:
    for n in range(7):
        saved(tmp_path / "reports/runs", f"r{n}", 1 + 0.001 * n, seed=n, started=f"2026-01-0{n + 1}")
        saved(tmp_path / "reports/runs", f"rejected{n}", 1.5 + n % 2, seed=n, started=f"2026-01-0{n + 1}")
    result = segcore("gate", "r0", "r6", "--json")
    row = json.loads(result.stdout)["rows"][0]
    assert (row["verdict"], result.exit_code) == ("pass", 0)
    assert "learned from 6 runs of this machine" in row["reason"]


def test_copies_of_a_run_teach_nothing_and_are_no_further_processes(tmp_path: Path) -> None:
    for n in range(6):
        saved(tmp_path / "reports/runs", f"r{n}", seed=0)
        saved(tmp_path / "old", f"o{n}", seed=0)
        saved(tmp_path / "new", f"n{n}", seed=1)
    saved(tmp_path / "reports/runs", "r9", seed=1, started="2026-02-01")
    for words in (("r0", "r9"), ("old", "new")):
        (row,) = json.loads(segcore("gate", *words, "--json").stdout)["rows"]
        assert (row["verdict"], "assumed for cpu" in row["reason"]) == ("inconclusive", True)


def test_loosened_limits_can_be_accepted(tmp_path: Path) -> None:
    saved(tmp_path, "old")
    run = a_run(an_item(steady(0.05, seed=1), limits=Limits(max_slowdown={"p50": 0.5})), name="new")
    save_run(run.model_copy(update={"path": tmp_path / "new.json"}))
    words = ("gate", "old.json", "new.json", "--process-noise", "0.003")
    assert segcore(*words).exit_code == 1
    assert segcore(*words, "--accept-changed-limits").exit_code == 0


@pytest.mark.parametrize("how", ["copied", "linked", "renamed"])
def test_a_run_is_not_judged_against_a_copy_of_itself(tmp_path: Path, how: str) -> None:
    old = saved(tmp_path, "old").path
    if how == "linked":
        os.link(old, tmp_path / "new.json")
    else:
        text = old.read_text()
        (tmp_path / "new.json").write_text(text if how == "copied" else text.replace('"name": "old"', '"name": "new"'))
    result = segcore("gate", "old.json", "new.json", "--max-slowdown", "0.5")
    assert result.exit_code == 2
    assert "the same run" in result.stderr


def test_a_directory_is_an_arm_of_several_processes(tmp_path: Path) -> None:
    for n in range(4):
        saved(tmp_path / "old", f"o{n}", seed=n)
        saved(tmp_path / "new", f"n{n}", 1.2, seed=n + 10)
    result = segcore("gate", "old", "new")
    assert result.exit_code == 1
    assert "measured over 8 processes" in result.stdout


def test_in_github_actions_it_annotates_and_summarises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path, "old")
    saved(tmp_path, "new", 1.2)
    (tmp_path / "summary.md").write_text("before\n")
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    result = segcore("gate", "old.json", "new.json", "--process-noise", "0.003", "--json")
    assert json.loads(result.stdout)["exit_code"] == 1
    assert result.stderr.startswith("::error title=segcore%3A regressed")
    assert (tmp_path / "summary.md").read_text().startswith("before\n### ❌ segcore gate FAILED")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["gate"], "give BASELINE and CURRENT, or --against REV"),
        (["gate", "old.json"], "give BASELINE and CURRENT"),
        (["gate", "old.json", "old.json", "--against", "HEAD"], "give BASELINE and CURRENT"),
        (["gate", "--self-audit", "--against", "HEAD"], "give BASELINE and CURRENT"),
        (["gate", "old.json", "./old.json"], "the same run"),
        (["gate", "old.json", "nothing.json"], "no such file"),
        (["gate", "old.json", "empty"], "no run files in this directory"),
        (["gate", "--base-args=-x", "--args=-k latency"], "wanted the bench first"),
        (["gate", "--self-audit", "--args="], "wanted the bench first"),
        (["gate", "--head-args=-k 'a"], "No closing quotation; quote as in a shell"),
        (["gate", "old.json", "x" * 300], "no such file"),
        (["gate", "x" * 300, "old.json"], "no such file"),
        (["gate", "--against", "x" * 300], f"no revision '{'x' * 300}'"),
        (["gate", "old.json", "old.json", "--process-noise", "nan"], "--process-noise nan: wanted a finite number"),
        (["gate", "old.json", "old.json", "--max-slowdown", "inf"], "--max-slowdown inf: wanted a finite number"),
        (["gate", "--against", "HEAD", "--budget", "nan"], "--budget nan: wanted a finite number"),
        (["gate", "old.json", "deep.json"], "deep.json: not JSON"),
        (["history", "--storage", "x" * 300], "no runs"),
        (["compare", "old.json", "--reference", "old cup"], "did you mean 'old cpu'"),
        (["history", "nothing"], "nor items of that name"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, words: list[str], message: str) -> None:
    saved(tmp_path, "old")
    (tmp_path / "empty").mkdir()
    (tmp_path / "deep.json").write_text("[" * 100_000 + "]" * 100_000)
    git(tmp_path, "init", "-q")
    result = segcore(*words)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_compare_in_every_form(tmp_path: Path) -> None:
    saved(tmp_path, "a")
    saved(tmp_path, "b", 0.5, machine=make_machine("Other | CPU"))
    assert "2.00x *" in segcore("compare", "a.json", "b.json").stdout
    assert "Other \\| CPU" in segcore("compare", "a.json", "b.json", "--markdown").stdout
    cells = json.loads(segcore("compare", "a.json", "b.json", "--json").stdout)["lines"][0]["cells"]
    assert cells["b cpu"]["best"] is True
    rows = list(csv.DictReader(segcore("compare", "a.json", "b.json", "--csv", "--reference", "b").stdout.splitlines()))
    assert [row["column"] for row in rows] == ["a cpu", "b cpu"]
    assert float(rows[0]["ratio"]) == pytest.approx(0.5, rel=0.01)


def test_history_marks_the_change_and_leaves_out_what_it_cannot_read(tmp_path: Path) -> None:
    for n in range(12):
        saved(tmp_path / "store", f"r{n:02}", 1.0 if n < 6 else 1.3, seed=n, started=f"2026-01-{n + 1:02}T00:00")
    (tmp_path / "store/bad.json").write_text('{"segcore": {"schema_version": 99}}')
    result = segcore("history", "--storage", "store")
    marked = [line for line in result.stdout.splitlines() if "from here on" in line]
    assert len(marked) == 1
    assert "r06" in marked[0]
    assert "+30" in marked[0] or "+29" in marked[0]
    assert "left out: store/bad.json: schema version 99" in result.stderr
    (series,) = json.loads(segcore("history", "r03", "--storage", "store", "--json").stdout)["series"]
    assert [point["run"] for point in series["points"]] == ["r03"]


def test_the_audit_prints_text_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def audited(*words: object) -> Audit:
        asked.extend(words[:3])
        level = Level(0.1, 2, {"regressed": 2}, 0.101, {"pass": 0.0, "regressed": 0.99, "inconclusive": 0.01})
        return Audit(0.05, (level,), 0.03, 0.04, 20, 0.05)

    monkeypatch.setattr("segcore.paired.audit.audit", audited)
    result = segcore("gate", "--self-audit", "--gates", "2", "--budget", "60", "--args", "bench -k 'a and b'")
    assert asked == [["bench", "-k", "a and b"], PairedOptions(0.05, 60), 2]
    assert "2 of 2 [34%, 100%] 99.0%" in result.stdout
    assert "enforce a limit of 5%" in result.stdout
    assert "gate: 8 gates, at most 8 minutes" in result.stderr
    assert json.loads(segcore("gate", "--self-audit", "--json").stdout)["levels"][0]["verdicts"] == {"regressed": 2}


# ---- in turns, for real


def left_behind(repository: Path) -> list[str]:
    listed = git(repository, "worktree", "list").splitlines()[1:]
    return [*listed, *(path.name for path in (repository.parent / "tmp").iterdir())]


@pytest.mark.slow
def test_two_revisions_in_turns(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repository / "bench" / "test_new.py").write_text("")
    monkeypatch.chdir(repository)
    monkeypatch.setattr(session, "TURN_S", 0.002)
    result = segcore("gate", "--args", "bench -k pedantic", "--against", "HEAD", "--budget", "1", "--json")
    found = json.loads(result.stdout)
    assert (found["baseline"], found["current"]) == ("HEAD", "working tree")
    assert found["rows"][0]["item"] == "bench/test_widget.py::test_pedantic"
    assert found["rows"][0]["change"] > 2
    assert result.exit_code in (1, 3)  # two blocks are few
    assert "gate: block 2 of at most 24" in result.stderr
    assert "1 files unknown to git (bench/test_new.py) are in neither arm" in result.stderr
    assert left_behind(repository) == []


def test_an_arm_that_cannot_run_is_exit_code_2(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    result = segcore("gate", "--args", "bench", "--base-args=--no-such-option")
    assert result.exit_code == 2
    assert result.stderr.startswith("segcore: base arm: ")
    assert "exit code 4" in result.stderr
    assert "unrecognized arguments: --no-such-option" in result.stderr
    assert left_behind(repository) == []


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(repository: Path, kind: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "segcore", "gate", "--args", "bench -k pedantic", "--against", "HEAD"],
        cwd=repository,
        env={**os.environ, "TMPDIR": str(repository.parent / "tmp")},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    assert "checked out" in process.stderr.readline()
    assert left_behind(repository)
    process.send_signal(kind)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted" in err
    assert left_behind(repository) == []
