"""The table of backends: figures of the same cases, the largest memory, build time and difference of each backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segcore.core.record_accuracy import AccuracyRecord, ParityRecord
from segcore.core.records import Benchmark
from segcore.report.html import render_html
from segcore.report.model import build_report
from segcore.report.run_tables import backends_tables
from segcore.report.terminal import render_run
from tests.support.factories import make_run
from tests.support.judged_runs import a_run, an_item, steady

INT8: dict[str, Any] = {"runtime": "openvino", "precision": "int8"}


def accuracy(unlike: float, error: float | None, **fields: Any) -> Benchmark:
    parity = ParityRecord(reference="torch fp32", unlike=unlike, equal=1 - unlike, logit_error=error)
    record = AccuracyRecord(dominant="cat", fractions={"cat": 0.4}, parity=parity)
    return an_item(kind="accuracy", **fields).model_copy(
        update={"info": an_item(kind="accuracy", **fields).info.model_copy(update={"accuracy": record})}
    )


def figures(*items: Benchmark) -> dict[str, dict[str, Any]]:
    (table,) = backends_tables(a_run(*items))
    cells = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return {f"{row['runtime'].text} {row['precision'].text}": row for row in cells}  # type: ignore[union-attr]


def test_figures_are_those_of_the_cases_that_all_backends_have() -> None:
    found = figures(
        an_item(steady(0.04), peak_memory_bytes=10**8),
        an_item(steady(0.16), case="dog"),
        an_item(steady(9.0), case="only eager"),
        an_item(steady(0.01), build_s=2.0, peak_memory_bytes=2 * 10**8, **INT8),
        an_item(steady(0.04), case="dog", build_s=3.5, peak_memory_bytes=10**8, **INT8),
        accuracy(0.01, 0.2, **INT8),
        accuracy(0.03, None, case="dog", **INT8),
    )
    eager, int8 = found["torch fp32"], found["openvino int8"]
    assert eager["ms"] == pytest.approx(80, rel=0.01)
    assert (eager["speedup"], eager["build, s"], eager["changed"]) == (1.0, None, None)
    assert int8["ms"] == pytest.approx(20, rel=0.01)
    assert int8["speedup"] == pytest.approx(4, rel=0.01)
    assert (int8["memory, MB"], int8["build, s"], int8["changed"], int8["logit error"]) == (200.0, 3.5, 0.03, 0.2)
    assert (eager["runtime"].tone, int8["runtime"].tone) == ("", "good")


def test_without_a_common_case_there_is_no_speedup() -> None:
    found = figures(an_item(case="a"), an_item(case="b", **INT8))
    assert {(row["ms"], row["speedup"]) for row in found.values()} == {(None, None)}


def test_there_is_a_table_for_each_model_and_size_with_several_backends() -> None:
    run = a_run(an_item(), an_item(**INT8), an_item(size=640), an_item(size=640, **INT8), an_item(model="one backend"))
    assert len(backends_tables(run)) == 2
    assert not backends_tables(a_run(an_item(), an_item(size=640), an_item([float("nan")], **INT8)))


def test_page_and_terminal_have_the_table(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert 'id="backends"' not in render_html(build_report([run]))
    copies = tuple(
        b.model_copy(update={"info": b.info.model_copy(update=INT8)})
        for b in run.benchmarks
        if b.info.kind == "latency"
    )
    both = run.model_copy(update={"benchmarks": (*run.benchmarks, *copies)})
    assert 'id="backends"' in render_html(build_report([both]))
    assert "Backends (model " in render_run(both)
