"""The composite action: valid, documented, and its shell run as on GitHub, with the network replaced."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from segcore.core.records import Run
from segcore.results.store import load_run
from tests.support.ci_runner import GitHub, Json, fill, read_yaml, write_stubs
from tests.support.factories import make_run
from tests.support.measured import replace_pytest

ROOT = Path(__file__).parents[2]
ACTION: Json = read_yaml(ROOT / "action.yml")[0]
STEPS: list[Json] = ACTION["runs"]["steps"]
GH = (ROOT / "tests" / "support" / "gh_stub.py").read_text(encoding="utf-8")
PUSHED = {"id": "11", "branch": "main", "event": "push", "workflow": "bench", "status": "success"}
FORKED = {"id": "66", "branch": "main", "event": "pull_request", "workflow": "bench", "status": "success"}
"""A pull request of a fork whose branch is called main, newer than the push."""


@pytest.fixture
def stubs(tmp_path: Path) -> Path:
    """Commands that replace the network."""
    directory = write_stubs(tmp_path / "stubs", gh=GH)
    state = {"runs": [FORKED, PUSHED], "artifacts": {}, "comments": [], "pulls": [], "read_only": False}
    (directory / "gh.json").write_text(json.dumps(state))
    return directory


def change_state(stubs: Path, **state: object) -> None:
    path = stubs / "gh.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **state}))


def calls(stubs: Path) -> list[list[str]]:
    path = stubs / "gh.log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def github(tmp_path: Path, stubs: Path, event: str, **inputs: str) -> GitHub:
    """A runner for one event, in a checkout that has the cases of this repository."""
    workspace, temporary = tmp_path / "checkout", tmp_path / f"temporary-{event}"
    if not workspace.exists():
        shutil.copytree(ROOT / "cases", workspace / "cases")
    temporary.mkdir(exist_ok=True)
    of_event: dict[str, Any] = {"pull_request": {"number": 7}} if event == "pull_request" else {}
    about = {"base_ref": "main"} if event == "pull_request" else {"ref_name": "main"}
    contexts: Json = {
        "github": {
            **about,
            "event_name": event,
            "event": of_event,
            "repository": "owner/project",
            "workflow": "bench",
            "action_path": "/actions/segcore",
            "token": "the-token",
        }
    }
    known = {name: fill(each.get("default", ""), contexts) for name, each in ACTION["inputs"].items()}
    assert inputs.keys() <= known.keys()
    contexts["inputs"] = {**known, "cases": "", **inputs}
    return GitHub(workspace, temporary, stubs, contexts)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Two runs of one machine that are alike, one that is slower and sees other classes, and one of another machine."""
    directory = tmp_path_factory.mktemp("runs")
    return {
        "same": make_run(directory, "same", models=("embedded",)),
        "again": make_run(directory, "again", models=("embedded",), seed=1, started="2026-11-21T09:30:00+00:00"),
        "worse": make_run(directory, "worse", models=("embedded",), seed=1, slower=2.0),
        "elsewhere": make_run(directory, "elsewhere", models=("embedded",), seed=2, cpu="Another CPU"),
    }


def keep_base(tmp_path: Path, stubs: Path, runs: dict[str, Run]) -> None:
    """Make the artifact of the last push, with a run of the base branch and its pictures; and that of the fork."""
    for number, name in ((PUSHED["id"], "same"), (FORKED["id"], "worse")):
        artifact = tmp_path / f"artifact-{number}"
        box = artifact / "runs" / "box"
        shutil.copytree(runs[name].path.parent, box, ignore=shutil.ignore_patterns("*.json"))
        document = json.loads(runs[name].path.read_bytes())
        document["segcore"]["name"] = "base"
        (box / "0001_base.json").write_text(json.dumps(document))
    change_state(stubs, artifacts={n: str(tmp_path / f"artifact-{n}") for n in ("11", "66")})


def test_every_input_is_documented_and_used() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    used = set(re.findall(r"inputs\.([\w-]+)", text))
    assert used == set(ACTION["inputs"])
    assert all(len(each["description"]) > 20 and "default" in each for each in ACTION["inputs"].values())
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    assert [name for name in ACTION["inputs"] if f"`{name}`" not in page] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measured", "code", "inputs", "failed", "verdict"),
    [
        ("worse", 0, {"allow-undecided": "true"}, 1, "failed"),
        ("elsewhere", 0, {}, 3, "undecided"),
        ("elsewhere", 0, {"allow-undecided": "true"}, 0, "undecided"),
        ("elsewhere", 1, {"allow-undecided": "true"}, 1, "undecided"),  # a test failed
        ("again", 0, {"gate-args": "--process-noise 0.001 --max-slowdown 0.5"}, 0, "passed"),
        ("again", 1, {"gate-args": "--process-noise 0.001 --max-slowdown '0.5'"}, 1, "passed"),
        ("again", 2, {}, 2, ""),  # pytest was interrupted: there is nothing to judge
        ("again", 0, {"gate-args": "--no-such-option"}, 2, ""),
    ],
)
def test_a_pull_request_is_judged(
    tmp_path: Path,
    stubs: Path,
    runs: dict[str, Run],
    measured: str,
    code: int,
    inputs: dict[str, str],
    failed: int,
    verdict: str,
) -> None:
    keep_base(tmp_path, stubs, runs)
    replace_pytest(stubs, runs[measured], code)
    runner = github(tmp_path, stubs, "pull_request", **inputs)
    runner.run(STEPS)
    assert runner.failed == failed, runner.log
    assert fill(ACTION["outputs"]["verdict"]["value"], runner.contexts) == verdict
    assert ("segcore gate" in runner.summary) == bool(verdict)
    assert [name for name, _ in runner.used] == ["actions/setup-python@v5", "actions/upload-artifact@v4"]
    left = [path.name for path in runner.workspace.glob("reports/runs/*/*.json")]
    assert left == ["0002_change.json"]  # the artifact of a pull request has no run of the base branch
    assert not [words for words in calls(stubs) if words[0] == "api"]  # no comment was asked for
    if verdict:
        assert (runner.workspace / fill(ACTION["outputs"]["summary"]["value"], runner.contexts)).exists()
        assert (runner.workspace / "reports/verdicts.xml").exists()


@pytest.mark.slow
def test_only_pushes_are_a_baseline(tmp_path: Path, stubs: Path, runs: dict[str, Run]) -> None:
    """A fork may call its branch main: what it measured there must not become what others are judged by."""
    keep_base(tmp_path, stubs, runs)
    replace_pytest(stubs, runs["again"])
    runner = github(tmp_path, stubs, "pull_request", **{"gate-args": "--process-noise 0.001 --max-slowdown 0.5"})
    runner.run(STEPS)
    downloads = [words[2] for words in calls(stubs) if words[:2] == ["run", "download"]]
    assert downloads == [PUSHED["id"]]


@pytest.mark.slow
def test_without_the_right_to_comment_the_verdict_stands(tmp_path: Path, stubs: Path, runs: dict[str, Run]) -> None:
    keep_base(tmp_path, stubs, runs)
    replace_pytest(stubs, runs["elsewhere"])
    change_state(stubs, read_only=True)
    runner = github(tmp_path, stubs, "pull_request", comment="true", **{"allow-undecided": "true"})
    runner.run(STEPS)
    assert not runner.failed, runner.log
    assert "::warning::segcore: no right to comment" in runner.log


@pytest.mark.slow
@pytest.mark.parametrize("there", [[], [{"id": 5, "type": "User", "body": "<!-- segcore -->"}]])
def test_comments_are_written_once_and_then_edited(
    tmp_path: Path, stubs: Path, runs: dict[str, Run], there: list[Json]
) -> None:
    keep_base(tmp_path, stubs, runs)
    replace_pytest(stubs, runs["worse"])
    for comments in (there, [*there, {"id": 9, "type": "Bot", "body": "<!-- segcore -->\nold"}]):
        change_state(stubs, comments=comments)
        (stubs / "gh.log").unlink(missing_ok=True)
        runner = github(tmp_path, stubs, "pull_request", comment="true")
        shutil.rmtree(runner.workspace / "reports", ignore_errors=True)
        runner.run(STEPS)
        assert runner.failed == 1, runner.log
        last = [words for words in calls(stubs) if words[0] == "api"][-1]
        edited = "repos/owner/project/issues/comments/9"
        assert (edited in last and "PATCH" in last) == (len(comments) > len(there))
        assert edited in last or "repos/owner/project/issues/7/comments" in last
        assert (stubs / "body.md").read_text().startswith("<!-- segcore -->\n### ❌ segcore gate FAILED")


def test_pushes_are_recorded_and_the_newest_are_kept(tmp_path: Path, stubs: Path, runs: dict[str, Run]) -> None:
    keep_base(tmp_path, stubs, runs)
    replace_pytest(stubs, runs["again"])
    for n in range(3):
        runner = github(tmp_path, stubs, "push", keep="2")
        runner.run(STEPS)
        assert not runner.failed, runner.log
        assert fill(ACTION["outputs"]["verdict"]["value"], runner.contexts) == ""
        left = sorted(path.name for path in runner.workspace.glob("reports/runs/box/*_base.json"))
        assert len(left) == 2
        change_state(stubs, artifacts={"11": str(runner.workspace / "reports")} if n else {})


@pytest.mark.parametrize("event", ["push", "pull_request"])
def test_the_first_run_is_not_judged(tmp_path: Path, stubs: Path, runs: dict[str, Run], event: str) -> None:
    replace_pytest(stubs, runs["same"])
    change_state(stubs, runs=[FORKED])
    runner = github(tmp_path, stubs, event)
    runner.run(STEPS)
    assert not runner.failed, runner.log
    assert "::notice::segcore: no run of the base branch yet" in runner.log
    assert "Judge" not in runner.ran


HOSTILE = "bench/ -k '$(touch owned) `touch owned` ; touch owned' --junit-xml=out.xml"


def test_inputs_are_arguments_and_no_code(tmp_path: Path, stubs: Path, runs: dict[str, Run]) -> None:
    replace_pytest(stubs, runs["same"])
    change_state(stubs, runs=[])
    hostile = {"bench": HOSTILE, "install": "-e '.[x]' 'other; touch owned'", "torch-index": ""}
    runner = github(tmp_path, stubs, "push", **hostile)
    runner.run(STEPS)
    assert not runner.failed, runner.log
    words = json.loads((stubs / "pytest.json").read_text())
    assert words == [
        "--benchmark-save=base",
        "bench/",
        "-k",
        "$(touch owned) `touch owned` ; touch owned",
        "--junit-xml=out.xml",
    ]
    assert (stubs / "pip.log").read_text() == "pip install -e .[x] other; touch owned\n"
    assert not list(tmp_path.rglob("owned"))


def test_by_default_the_segcore_of_the_action_is_installed(tmp_path: Path, stubs: Path, runs: dict[str, Run]) -> None:
    replace_pytest(stubs, runs["same"])
    runner = github(tmp_path, stubs, "push")
    runner.run(STEPS)
    torch, own = (stubs / "pip.log").read_text().splitlines()
    assert torch == "pip install torch torchvision --index-url https://download.pytorch.org/whl/cpu"
    assert own == "pip install /actions/segcore[photos,report]"
    assert runner.used[0] == ("actions/setup-python@v5", {"python-version": "3.12"})
    assert runner.used[1] == ("actions/upload-artifact@v4", {"name": "segcore", "path": "reports/"})


@pytest.mark.slow
def test_a_push_measured_for_real(tmp_path: Path, stubs: Path) -> None:
    bench = "bench -k 'accuracy and chelsea' --segcore-model embedded --segcore-size 64 --segcore-device cpu"
    shutil.copytree(ROOT / "bench", tmp_path / "checkout" / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "cases", tmp_path / "checkout" / "cases")
    runner = github(tmp_path, stubs, "push", bench=bench, cases="cases")
    runner.run(STEPS)
    assert not runner.failed, runner.log
    (path,) = runner.workspace.glob("reports/runs/*/0001_base.json")
    (item,) = load_run(path).benchmarks
    assert item.info.key == "accuracy[chelsea-embedded-torch-cpu-64]"
    assert "### ✅ segcore: Passed" in runner.summary
