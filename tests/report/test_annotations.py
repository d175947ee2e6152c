"""GitHub Actions: annotations and the step summary."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcore.judgement.gate.verdict import GateResult, Row
from segcore.report.gate import annotate

RESULT = GateResult("old", "new", (Row("latency[cat]", "median", "regressed", "slower"),))


@pytest.fixture(autouse=True)
def _outside_of_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def test_nothing_is_written_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    annotate(RESULT)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("err", [False, True])
def test_annotations(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], err: bool) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    annotate(RESULT, err=err)
    captured = capsys.readouterr()
    assert (captured.err if err else captured.out).startswith("::error title=")
    assert (captured.out if err else captured.err) == ""


def test_the_summary_is_appended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(path))
    annotate(RESULT)
    assert path.read_text().startswith("before\n### ❌ segcore ")


def test_a_summary_that_cannot_be_written_is_one_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/nonexistent/summary")
    annotate(RESULT)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "/nonexistent/summary" in captured.err
