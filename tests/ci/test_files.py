"""Workflows, the action, the component and the hook: each accepted by the published schema of its service."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest
from check_jsonschema import main as check_jsonschema
from click.testing import CliRunner
from ruamel.yaml import YAML

from tests.support.ci_runner import gitlab_job, read_yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = [*(ROOT / "segcore" / "start").glob("github*.yml"), *(ROOT / "examples" / ".github").rglob("*.yml")]
BLOCKS = [
    (page.name, textwrap.dedent(found))
    for page in (ROOT / "docs").glob("*.md")
    for found in re.findall(r"^[ ]*```yaml\n(.*?)^[ ]*```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
]


def problems(schema: str, path: Path) -> str:
    """Return what a schema that check-jsonschema ships says against a file; empty if nothing."""
    done = CliRunner().invoke(check_jsonschema, ["--builtin-schema", f"vendor.{schema}", str(path)])
    return "" if done.exit_code == 0 else done.output


def test_the_action_is_one() -> None:
    assert problems("github-actions", ROOT / "action.yml") == ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_are_some(path: Path) -> None:
    assert problems("github-workflows", path) == ""


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[f"{page}-{n}" for n, (page, _) in enumerate(BLOCKS)])
def test_workflows_in_the_docs_are_some(page: str, block: str, tmp_path: Path) -> None:
    (tmp_path / "found.yml").write_text(block)
    found = read_yaml(tmp_path / "found.yml")[0]
    keys = found if isinstance(found, dict) else {}
    jobs = [each for each in keys.values() if isinstance(each, dict)]
    if "jobs" in keys:
        assert problems("github-workflows", tmp_path / "found.yml") == "", page
    elif "include" in keys or any("script" in job for job in jobs):
        assert problems("gitlab-ci", tmp_path / "found.yml") == "", page
    for run in re.findall(r"gh run list[^\n]*(?:\\\n[^\n]*)*", block):
        assert "--event push" in run, "a fork may have a branch of the same name"


def test_the_component_is_gitlab_ci(tmp_path: Path) -> None:
    job = gitlab_job(ROOT / "templates" / "segcore.yml", tags=["quiet"])
    YAML(typ="safe").dump({"segcore": job}, tmp_path / "job.yml")
    assert problems("gitlab-ci", tmp_path / "job.yml") == ""
    header = (ROOT / "templates" / "segcore.yml").read_text(encoding="utf-8").split("\n---\n")[0]
    (tmp_path / "header.yml").write_text(header)
    assert problems("gitlab-ci", tmp_path / "header.yml") == ""
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    inputs = YAML(typ="safe").load(header)["spec"]["inputs"]
    assert [name for name in inputs if f"`{name}`" not in page] == []
    assert all(len(each["description"]) > 10 for each in inputs.values())
