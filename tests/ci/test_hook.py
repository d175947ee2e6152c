"""The pre-commit hook, run by pre-commit in a repository of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ci_runner import write_stubs
from tests.support.repositories import git

ROOT = Path(__file__).parents[2]
CONFIG = """
repos:
  - repo: {hooks}
    rev: {rev}
    hooks: [{{id: segcore-cases}}]
"""


@pytest.mark.slow
def test_the_hook_checks_cases_before_a_commit(tmp_path: Path) -> None:
    hooks, project = tmp_path / "hooks", tmp_path / "project"
    hooks.mkdir()
    shutil.copy(ROOT / ".pre-commit-hooks.yaml", hooks)
    for repository in (hooks, project):
        repository.mkdir(exist_ok=True)
        git(repository, "init", "-q")
    git(hooks, "add", ".")
    git(hooks, "commit", "-qm", "hooks")
    shutil.copytree(ROOT / "cases", project / "cases")
    (project / ".pre-commit-config.yaml").write_text(CONFIG.format(hooks=hooks, rev=git(hooks, "rev-parse", "HEAD")))
    stubs = write_stubs(tmp_path / "stubs")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
        "PATH": f"{stubs}{os.pathsep}{os.environ['PATH']}",
        "PRE_COMMIT_HOME": str(tmp_path / "home"),
    }

    def commit() -> subprocess.CompletedProcess[str]:
        git(project, "add", ".")
        command = [sys.executable, "-m", "pre_commit", "run"]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)

    done = commit()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Passed" in done.stdout
    (project / "cases" / "bad.yaml").write_text("name: bad\nimage: {pth: x.png}\n")
    done = commit()
    assert done.returncode == 1
    assert "cases/bad.yaml:2" in done.stdout
