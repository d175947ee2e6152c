"""A git repository with a bench of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

WIDGET = """
def work():
    return sum(i * i for i in range({size}))
"""
BENCH = """
import pytest, widget

def test_work(benchmark):
    assert benchmark(widget.work) is not None

def test_pedantic(benchmark):
    benchmark.pedantic(widget.work, rounds=3)

def test_without_a_benchmark():
    raise AssertionError("is not run")
"""


def git(repository: Path, *words: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", *words]
    return subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose head does six times the work of its first commit, the change not committed."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # twice as fast to start
    monkeypatch.setenv("PYTEST_PLUGINS", "pytest_benchmark.plugin")
    repository = tmp_path / "project"
    (repository / "bench").mkdir(parents=True)
    (repository / "widget.py").write_text(WIDGET.format(size=4000))
    (repository / "bench" / "test_widget.py").write_text(BENCH)
    (repository / "pytest.ini").write_text("[pytest]\n")
    git(repository, "init", "-q")
    git(repository, "add", ".")
    git(repository, "commit", "-qm", "first")
    (repository / "widget.py").write_text(WIDGET.format(size=24000))
    return repository
