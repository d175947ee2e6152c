from __future__ import annotations

import json
import math
import re

import pytest

from segcore.judgement.gate.verdict import VERDICTS, GateResult, Row
from segcore.judgement.statistics import Interval
from segcore.report.escape import command_data, command_property
from segcore.report.gate import as_json, headline, markdown, render, workflow_commands
from segcore.report.markdown import MAX_MARKDOWN

SLOW = Row("latency[cat]", "median", "regressed", "noise 1 %", "ms", 50.0, 60.0, Interval(0.15, 0.2, 0.25), "+5.0%")
FAST = Row("latency[dog]", "median", "improved", "noise 1 %", "ms", 50.0, 40.0, Interval(-0.25, -0.2, -0.15), "+5.0%")
SAME = Row("accuracy[cat]", "mIoU", "pass", "+0.0010", "share", 0.7, 0.701, Interval(0.001, 0.001, 0.001), "-0.010")
VAGUE = Row(
    "latency[cat]", "p99", "inconclusive", "more rounds", "ms", 50.0, 60.0, Interval(-0.1, 0.2, math.inf), "+5.0%"
)
HOSTILE = "x](javascript:alert(1))|\n::error::owned <script>alert(1)</script> @team #7 `rm` \x1b[2J%0A"


def result(*rows: Row, notes: tuple[str, ...] = ()) -> GateResult:
    return GateResult("old", "new", rows, notes)


def test_the_table_has_every_row_worst_first() -> None:
    text = render(result(SAME, FAST, VAGUE, SLOW, notes=("a new item",)))
    assert [line.split() for line in text.splitlines()] == [
        ["what", "old", "new", "change", "[95%", "interval]", "limit", "verdict"],
        ["latency[cat]"],
        ["median", "50", "ms", "60", "ms", "+20.0%", "[+15.0%,", "+25.0%]", "+5.0%", "regressed", "[1]"],
        ["p99", "50", "ms", "60", "ms", "+20.0%", "[-10.0%,", "?]", "+5.0%", "inconclusive", "[2]"],
        ["latency[dog]"],
        ["median", "50", "ms", "40", "ms", "-20.0%", "[-25.0%,", "-15.0%]", "+5.0%", "improved"],
        ["accuracy[cat]"],
        ["mIoU", "70.00%", "70.10%", "+0.10", "pp", "-0.010", "pass"],
        ["[1]", "noise", "1", "%"],
        ["[2]", "more", "rounds"],
        ["note:", "a", "new", "item"],
        headline(result(SAME, FAST, VAGUE, SLOW)).log_line.split(),
    ]


def test_the_table_fits_eighty_columns_and_has_colour_only_on_demand() -> None:
    assert max(len(line) for line in render(result(SLOW, FAST, SAME, VAGUE)).splitlines()) <= 80
    for width in (80, 40):
        text = render(result(SLOW, FAST, SAME, VAGUE), width=width)
        assert max(len(line) for line in text.splitlines()) <= width
        assert all(part in "".join(text.split()) for part in ("latency[dog]", "p99", "60ms", "[1]noise1%"))
    assert "\x1b" not in render(result(SLOW))
    assert "\x1b[1;31mregressed" in render(result(SLOW), color=True)


def test_equal_reasons_share_a_footnote() -> None:
    assert render(result(SLOW, SLOW)).count("noise 1 %") == 1


@pytest.mark.parametrize(
    ("rows", "word", "line"),
    [
        ((SAME,), "Passed", "gate passed: new against old: 1 pass"),
        ((SLOW, VAGUE), "Failed", "gate FAILED: new against old: 1 regressed, 1 inconclusive"),
        ((VAGUE, SAME), "Undecided", "gate undecided: new against old: 1 inconclusive, 1 pass"),
        ((), "Undecided", "gate undecided: new against old: nothing was judged"),
    ],
)
def test_headline(rows: tuple[Row, ...], word: str, line: str) -> None:
    assert headline(result(*rows)).word == word
    assert headline(result(*rows)).log_line == line


@pytest.mark.parametrize("make", [render, markdown])
def test_hostile_names_stay_names(make: object) -> None:
    assert callable(make)
    row = Row(HOSTILE, HOSTILE, "regressed", HOSTILE, limit=HOSTILE)
    text = make(GateResult(HOSTILE, HOSTILE, (row,), (HOSTILE,)))
    assert "\x1b" not in text
    assert not re.search(r"^::", text, re.MULTILINE)
    if make is markdown:
        assert "<script" not in text
        assert "](" not in text.replace("\\](", "").replace("\\]\\(", "")
        assert not re.search(r"@team|#7", text)
        rows = [line for line in text.splitlines() if "❌ regressed" in line]
        assert len(rows) == 1
        assert len(re.findall(r"(?<!\\)\|", rows[0])) == 9


def test_markdown_shows_what_changed_and_folds_the_rest() -> None:
    text = markdown(result(SAME, SLOW, FAST, notes=("a new item",)))
    head, _, folded = text.partition("<details>")
    assert text.startswith("### ❌ segcore gate FAILED")
    assert "latency\\[cat\\]" in head
    assert "latency\\[dog\\]" in head
    assert "- a new item" in head
    assert "accuracy\\[cat\\]" in folded
    assert "1 passed" in folded
    assert folded.count("</details>") == 1


@pytest.mark.parametrize("verdict", VERDICTS)
def test_markdown_stays_within_what_a_comment_may_have(verdict: str) -> None:
    rows = [Row(f"latency[{n}]", "median", verdict, "because " * 20, "ms", 1.0, 2.0) for n in range(1200)]  # type: ignore[arg-type]
    text = markdown(result(*rows))
    assert len(text) < MAX_MARKDOWN
    assert "more lines are left out" in text
    assert text.count("<details>") == text.count("</details>")


def test_workflow_commands_are_errors_and_warnings_on_one_line_each() -> None:
    assert workflow_commands(result(SAME, SLOW, VAGUE, FAST)).splitlines() == [
        "::error title=segcore%3A regressed%3A latency[cat] median::"
        "+20.0%25 [+15.0%25, +25.0%25] (limit +5.0%25) noise 1 %25",
        "::warning title=segcore%3A inconclusive%3A latency[cat] p99::"
        "+20.0%25 [-10.0%25, ?] (limit +5.0%25) more rounds",
    ]
    text = workflow_commands(result(Row(HOSTILE, HOSTILE, "missing", HOSTILE)))
    assert text.count("\n") == 1
    assert text.startswith("::error title=")
    assert "::" not in text.partition("title=")[2].partition("::")[0]


@pytest.mark.parametrize(
    ("text", "data", "prop"),
    [
        ("50 %", "50 %25", "50 %25"),
        ("a\r\nb", "a%0D%0Ab", "a%0D%0Ab"),
        ("a:b,c", "a:b,c", "a%3Ab%2Cc"),
        ("%0A", "%250A", "%250A"),
    ],
)
def test_escapes_of_workflow_commands(text: str, data: str, prop: str) -> None:
    assert (command_data(text), command_property(text)) == (data, prop)


def test_json_is_strict_and_complete() -> None:
    text = json.dumps(as_json(result(VAGUE, Row("x", "item", "missing", "gone", new=math.nan))), allow_nan=False)
    found = json.loads(text)
    assert found["exit_code"] == 1
    assert found["verdict"] == "fail"
    assert found["counts"] == {"missing": 1, "inconclusive": 1}
    assert found["rows"][0]["interval"] == [-0.1, None]
    assert found["rows"][0]["change"] == 0.2
    assert found["rows"][1]["new"] is None
