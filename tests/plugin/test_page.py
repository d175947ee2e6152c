"""The page at the end of a bench run, and the summary of the step in GitHub Actions."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.judgement.gate import judge
from segcore.plugin.reporting import write_page
from segcore.results.naming import LATEST_PAGE
from tests.support.factories import make_run


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return make_run(tmp_path / "reports/runs", models=("embedded",))


def test_page_is_written_and_named(run: Run) -> None:
    assert list(write_page(run, None, None)) == [f"report: {LATEST_PAGE}"]
    assert "Passed: all 9 items" in LATEST_PAGE.read_text()


def test_page_of_a_judged_run(run: Run) -> None:
    assert list(write_page(run, run, judge([run], [run], Limits()))) == [f"report: {LATEST_PAGE}"]
    assert "What changed" in LATEST_PAGE.read_text()


def test_without_charts_the_page_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    written, missing = write_page(run, None, None)
    assert written == f"report: {LATEST_PAGE}"
    assert "pip install 'segcore[report]'" in missing
    assert "vl-convert-python is not installed" in LATEST_PAGE.read_text()


def test_without_jinja2_there_is_a_line_and_the_summary(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    (line,) = write_page(run, None, None)
    assert "pip install 'segcore[report]'" in line
    assert not LATEST_PAGE.exists()
    assert "segcore: Passed" in Path("summary.md").read_text()


def test_a_page_that_cannot_be_written_is_reported(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    LATEST_PAGE.parent.write_text("in the way")
    (line,) = write_page(run, None, None)
    assert str(LATEST_PAGE) in line
    assert "segcore: Passed" in Path("summary.md").read_text()


@pytest.mark.parametrize("with_gate", [False, True])
def test_summary_of_the_step(run: Run, monkeypatch: pytest.MonkeyPatch, with_gate: bool) -> None:
    summary = Path("summary.md")
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    list(write_page(run, run if with_gate else None, judge([run], [run], Limits()) if with_gate else None))
    text = summary.read_text()
    assert text.startswith("before\n")
    assert ("### ✅ segcore: Passed" in text) is not with_gate  # the gate prints a verdict of its own
    assert "<summary>Machine and settings</summary>" in text
