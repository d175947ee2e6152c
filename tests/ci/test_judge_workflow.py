"""The workflow that judges pull requests from forks: what a stranger wrote into a run file is data wherever it goes."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from itertools import cycle
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from segcore.core.records import Run
from tests.support.ci_runner import GitHub, Json, read_yaml, write_stubs
from tests.support.factories import HOSTILE, make_hostile, make_run

ROOT = Path(__file__).parents[2]
WORKFLOW: Json = read_yaml(ROOT / "segcore" / "start" / "github-judge.yml")[0]
JOB: Json = WORKFLOW["jobs"]["judge"]
GH = (ROOT / "tests" / "support" / "gh_stub.py").read_text(encoding="utf-8")
BRANCH = "x$(touch owned)`touch owned`;touch owned&state=open"
"""Git allows all of this in the name of a branch."""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The run of the default branch, and one of a change that is worse."""
    directory = tmp_path_factory.mktemp("runs")
    base = make_run(directory, "base", models=("embedded",))
    return base, make_run(directory, "change", models=("embedded",), slower=3.0, shift=30, seed=1)


def judge(
    tmp_path: Path,
    base: Run,
    document: Json | bytes,
    *,
    file: str = "0001_here.json",
    links: Mapping[str, Path] = MappingProxyType({}),
) -> GitHub:
    """Run the workflow on what a fork has uploaded: a run file, and links beside it."""
    stubs = write_stubs(tmp_path / "stubs", gh=GH)
    artifacts = {}
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    for number, content, name in (("11", base.path.read_bytes(), "0001_here.json"), ("66", data, file)):
        box = tmp_path / f"artifact-{number}" / "runs" / "box"
        shutil.copytree(base.path.parent, box, ignore=shutil.ignore_patterns("*.json"))
        (box / name).write_bytes(content)
        artifacts[number] = str(box.parents[1])
    for name, target in links.items():
        (tmp_path / "artifact-66" / "runs" / "box" / name).symlink_to(target)
    pushed = {"id": "11", "branch": "main", "event": "push", "workflow": "segcore", "status": "success"}
    forked = {**pushed, "id": "66", "event": "pull_request"}
    pulls = [{"head": f"stranger:{BRANCH}", "sha": "c0ffee", "number": 7}]
    state = {"runs": [forked, pushed], "artifacts": artifacts, "comments": [], "pulls": pulls, "read_only": False}
    (stubs / "gh.json").write_text(json.dumps(state))
    event = {
        "repository": {"default_branch": "main"},
        "workflow_run": {
            "id": "66",
            "event": "pull_request",
            "head_branch": BRANCH,
            "head_sha": "c0ffee",
            "head_repository": {"owner": {"login": "stranger"}},
            "pull_requests": [],  # empty for forks
        },
    }
    workspace, temporary = tmp_path / "workspace", tmp_path / "temporary"
    workspace.mkdir()
    temporary.mkdir()
    about = {"event_name": "workflow_run", "event": event, "repository": "owner/project", "token": "t", "run_id": "66"}
    runner = GitHub(workspace, temporary, stubs, {"github": {**about, "server_url": "https://github.com"}})
    runner.environment = {"GH_REPO": "owner/project", "GH_TOKEN": "t"}
    runner.run(JOB["steps"])
    return runner


def calls(runner: GitHub) -> list[list[str]]:
    return [json.loads(line) for line in (runner.stubs / "gh.log").read_text().splitlines()]


def status(runner: GitHub) -> dict[str, str]:
    """The status that was set on the commit."""
    (found,) = (words for words in calls(runner) if any("/statuses/" in word for word in words))
    assert "repos/owner/project/statuses/c0ffee" in found
    pairs = (word.partition("=") for word in found)
    return {name: value for name, equals, value in pairs if equals}


def document(run: Run) -> Json:
    found: Json = json.loads(run.path.read_bytes())
    return found


def test_it_runs_nothing_of_the_pull_request_and_has_no_more_rights_than_it_uses() -> None:
    assert not [step for step in JOB["steps"] if "checkout" in step.get("uses", "")]
    assert WORKFLOW["permissions"] == {
        "actions": "read",
        "contents": "read",
        "pull-requests": "write",
        "statuses": "write",
    }
    assert set(WORKFLOW["on"]) == {"workflow_run"}
    assert "secrets." not in (ROOT / "segcore" / "start" / "github-judge.yml").read_text()


def test_its_comment_is_that_of_the_action() -> None:
    action = read_yaml(ROOT / "action.yml")[0]["runs"]["steps"]
    scripts = [step["run"] for step in (*action, *JOB["steps"]) if step.get("name") == "Comment"]
    assert len(scripts) == 2
    assert scripts[0] == scripts[1]


@pytest.mark.slow
def test_a_change_that_is_worse_fails(tmp_path: Path, honest: tuple[Run, Run]) -> None:
    base, change = honest
    runner = judge(tmp_path, base, document(change))
    assert not runner.failed, runner.log
    assert {"state": "failure", "description": "failed", "context": "segcore"}.items() <= status(runner).items()
    assert (runner.stubs / "body.md").read_text().startswith("<!-- segcore -->\n### ❌ segcore gate FAILED")
    assert ["repos/owner/project/issues/7/comments" in words for words in calls(runner)].count(True) == 2
    assert not list(tmp_path.rglob("owned"))  # of the branch


def only_what_passed(found: Json) -> None:
    found["benchmarks"] = [b for b in found["benchmarks"] if b["extra_info"]["segcore"]["kind"] == "accuracy"]
    for each in found["benchmarks"]:
        each["extra_info"]["segcore"]["accuracy"]["checks"] = []


def loosened(found: Json) -> None:
    for each in found["benchmarks"]:
        each["extra_info"]["segcore"]["limits"] = {"max_slowdown": {"p50": 100.0}, "max_drift": 1.0}


def skipped_by_its_cases(found: Json) -> None:
    for outcome in found["segcore"]["outcomes"]:
        outcome |= {"outcome": "skipped", "skipped_by_case": True, "reason": "trust me"}
    found["benchmarks"] = []


@pytest.mark.slow
@pytest.mark.parametrize("forge", [only_what_passed, loosened, skipped_by_its_cases])
def test_a_forged_run_does_not_pass(tmp_path: Path, honest: tuple[Run, Run], forge: Callable[[Json], None]) -> None:
    """Limits, checks and items are those of the default branch."""
    base, change = honest
    found = document(change)
    forge(found)
    runner = judge(tmp_path, base, found)
    assert status(runner)["state"] in ("failure", "error"), runner.log


@pytest.mark.slow
@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b"::error::x\n##[error]y"],
    ids=["deep", "commands"],
)
def test_what_is_no_run_is_an_error_and_no_pass(tmp_path: Path, honest: tuple[Run, Run], data: bytes) -> None:
    runner = judge(tmp_path, honest[0], data)
    assert status(runner)["state"] == "error"
    assert not (runner.stubs / "body.md").exists()
    assert not commands(runner.log)


def commands(log: str) -> list[str]:
    """Return the workflow commands in a log that are not segcore's own annotations."""
    found = re.findall(r"^\s*::[^\n]*|##\[[^\n]*", log, re.MULTILINE)
    return [
        line for line in found if not re.match(r"::(error|warning) title=segcore%3A [a-z]+%3A [^:]*::[^\n]*$", line)
    ]


EVIL = (
    HOSTILE,
    "$(touch owned)`touch owned`; touch owned #",
    "::set-output name=state::success",
    "x\n::error::forged\nstate=success",
    "##[set-output name=state]success",
    "</details></table><img src=https://evil.example/x> ![x](https://evil.example/x) [y](javascript:alert(1))",
    "<!-- segcore -->",
    "@everyone @owner/team #1 GH-1 https://evil.example www.evil.example",
    "--help",
)


@pytest.mark.slow
def test_names_reach_comment_log_and_outputs_as_text(tmp_path: Path, honest: tuple[Run, Run]) -> None:
    """Every text of a run file is one of `EVIL`, and the name of the file as well."""
    base, change = honest
    evil = cycle(json.dumps(text)[1:-1] for text in EVIL)
    plain = json.dumps(document(make_hostile(change)))
    hostile = json.loads(re.sub(re.escape(json.dumps(HOSTILE)[1:-1]), lambda _: next(evil), plain))
    for n, outcome in enumerate(hostile["segcore"]["outcomes"]):  # each makes a row of the comment
        outcome |= {"outcome": "failed", "key": f"{EVIL[n % len(EVIL)]} {n}"}
    runner = judge(tmp_path, base, hostile, file="0001_$(touch owned)`touch owned`;touch owned\n::error::x.json")
    assert not list(tmp_path.rglob("owned"))
    assert not commands(runner.log), runner.log
    assert status(runner)["state"] == "failure"
    outputs: dict[str, Any] = runner.contexts["steps"]["judge"]["outputs"]
    assert outputs == {"state": "failure", "words": "failed"}
    for written in (runner.summary, read(runner.stubs / "body.md")):
        body = written.removeprefix("<!-- segcore -->\n")
        assert "owned" in body
        assert "everyone" in body
        tags = set(re.findall(r"<[^!][^>]*>", body))
        assert tags <= {"<details>", "</details>", "<summary>", "</summary>", "<sub>", "</sub>"}
        assert body.count("<details>") == body.count("</details>")
        assert not re.search(r"(?<!\\)!\[|\]\((?!\\)|(?<![\w>])@\w|https?://\w|www\.\w|<!-- segcore", body)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


@pytest.mark.slow
def test_links_out_of_the_artifact_are_not_followed(tmp_path: Path, honest: tuple[Run, Run]) -> None:
    base, change = honest
    secret = tmp_path / "secret.json"
    secret.write_text('{"password": "hunter2"}')
    found = document(change)
    for each in found["benchmarks"]:
        if each["extra_info"]["segcore"]["accuracy"]:
            each["extra_info"]["segcore"]["accuracy"]["class_map"] = "../../../secret.json"
    runner = judge(tmp_path, base, found, links={"0002_here.json": secret})
    assert "hunter2" not in runner.log + runner.summary + read(runner.stubs / "body.md")
    assert status(runner)["state"] == "failure"
