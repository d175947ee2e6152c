"""Load items in the terminal, on the page and in the comment."""

from __future__ import annotations

import pytest

from segcore.core.records import LoadRecord, Run
from segcore.report.comment import render_folded
from segcore.report.html import render_html
from segcore.report.model import build_report
from segcore.report.run_tables import load_tables
from segcore.report.tables import items_table
from segcore.report.terminal import render_run
from tests.support.judged_runs import a_run, an_item


@pytest.fixture
def run() -> Run:
    checked = LoadRecord(
        seed=0,
        rate=5.0,
        max_p99_ms=400.0,
        validity="invalid",
        queries=662,
        over=30,
        images_per_s=4.9,
        bounds_s={"p50": 0.1, "p90": 0.3},
    )
    searched = LoadRecord(seed=0, queries=0, max_p99_ms=400.0, validity="undecided")
    return a_run(
        an_item(kind="load", scenario="server", load=checked),
        an_item(kind="load", scenario="server", size=640, load=searched),
        an_item(kind="load", scenario="multi-stream", batch=8, load=LoadRecord(seed=0, queries=3, images_per_s=20.0)),
        an_item(),
    )


def test_load_items_have_rows(run: Run) -> None:
    (table,) = load_tables(run)
    by_column = [dict(zip(table.columns, row, strict=True)) for row in table.cells()]
    first, second, third = ({name: cell.text for name, cell in row.items()} for row in by_column)
    assert [row["scenario"] for row in (first, second, third)] == ["server", "server", "multi-stream 8"]
    assert [first[name] for name in ("queries", "p50, ms", "p90, ms", "p99, ms")] == ["662", "100", "300", "-"]
    assert (first["queries/s"], first["images/s"], first["limit"]) == ("5", "4.90", "invalid: p99 within 400 ms")
    assert (second["queries/s"], second["limit"]) == ("-", "undecided: p99 within 400 ms")
    assert (third["images/s"], third["limit"]) == ("20", "")
    assert by_column[0]["limit"].tone == "bad"


def test_runs_without_load_items_have_no_load_table() -> None:
    assert load_tables(a_run(an_item())) == []


def test_the_load_table_is_in_every_report(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segcore.report.html._downloads", lambda runs: ["data:," for _ in runs])  # there is no file
    report = build_report([run])
    for text in (render_run(run, width=200), render_html(report), render_folded(report)):
        assert "multi-stream 8" in text
        assert "invalid: p99 within 400 ms" in text
        assert "99 % confidence" in text


def test_throughput_of_load_items_is_what_was_measured(run: Run) -> None:
    table = items_table(build_report([run]))
    images = {row[0]: row[table.columns.index("images/s")] for row in table.rows}
    assert images["load[cat-embedded-torch-cpu-320-server]"] == 4.9
    assert images["load[cat-embedded-torch-cpu-640-server]"] is None
    assert images["load[cat-embedded-torch-cpu-320-b8-multi-stream]"] == 20.0
