"""The pull-request comment: verdict first, changes next, the rest folded, never too long, never markup of others."""

from __future__ import annotations

import re

import pytest

from segcore.core.limits import Limits
from segcore.core.records import OutcomeRecord, Run, WarningRecord
from segcore.judgement.drift import run_drift
from segcore.judgement.gate import judge
from segcore.report.comment import render_comment, render_folded
from segcore.report.markdown import MAX_MARKDOWN
from segcore.report.model import build_report
from tests.support.factories import make_hostile, make_run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    directory = tmp_path_factory.mktemp("runs")
    base = make_run(directory, "base", models=("embedded",))
    return base, make_run(directory, "head", models=("embedded",), slower=1.5, shift=9, seed=1)


def test_verdict_then_changes_then_the_rest_folded(pair: tuple[Run, Run]) -> None:
    base, head = pair
    text = render_comment(build_report([head], base, judge([base], [head], Limits(), drift=run_drift(base, head))))
    assert text.startswith("### ❌ segcore ")
    open_part = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    assert "regressed" in open_part
    assert "changed pixels" in open_part
    assert "Imaginary CPU" in open_part
    summaries = re.findall(r"<summary>(.*?)</summary>", text)
    assert [s for s in summaries if s in ("2 cases: expected and found", "Side by side", "18 items")] == [
        "2 cases: expected and found",
        "Side by side",
        "18 items",
    ]
    assert text.count("<details>") == text.count("</details>")


def test_without_a_baseline(pair: tuple[Run, Run]) -> None:
    text = render_comment(build_report([pair[0]]))
    assert text.startswith("### ✅ segcore: Passed: all 9 items")


def test_tables_are_tables(pair: tuple[Run, Run]) -> None:
    for line in render_comment(build_report(pair)).splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
            assert len(re.findall(r"(?<!\\)\|", line)) > 2


@pytest.mark.parametrize("count", [100, 3000])
def test_it_is_never_too_long(pair: tuple[Run, Run], count: int) -> None:
    more = tuple(
        OutcomeRecord(item=f"item {n} " + "x" * 50, kind="latency", outcome="failed", reason=f"{n}")
        for n in range(count)
    )
    warnings = (WarningRecord(code="other", text="w" * 1000),)
    record = pair[1].record.model_copy(update={"outcomes": more, "warnings": warnings})
    head = pair[1].model_copy(update={"record": record})
    report = build_report([head], pair[0], judge([pair[0]], [head], Limits()))
    for text in (render_comment(report), render_folded(report)):
        assert len(text) <= MAX_MARKDOWN
        assert text.count("<details>") == text.count("</details>")
    if count == 3000:
        assert "<summary>3000 not measured or failed</summary>" in render_folded(report)
        left_out = re.search(r"\((\d+) more lines are left out", render_folded(report))
        assert left_out
        assert 0 < int(left_out[1]) < 3000


def test_hostile_names_are_no_markup(pair: tuple[Run, Run]) -> None:
    hostile = make_hostile(pair[1])
    for text in (
        render_comment(build_report([hostile])),
        render_comment(build_report([hostile], hostile, judge([hostile], [hostile], Limits()))),
    ):
        assert set(re.findall(r"<[^!].*?>", text)) <= {
            "<details>",
            "</details>",
            "<summary>",
            "</summary>",
            "<sub>",
            "</sub>",
        }
        assert "@all" not in text
        assert "\x1b" not in text
        assert not re.search(r"(?<!\\)`", text)
