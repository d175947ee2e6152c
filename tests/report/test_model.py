"""What a report says: verdict, changes, cases and tables, as data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from segcore.core.limits import Limits
from segcore.core.records import (
    AccuracyRecord,
    CheckRecord,
    DatasetRecord,
    EnergyRecord,
    OutcomeRecord,
    Run,
)
from segcore.judgement.drift import run_drift
from segcore.judgement.gate import judge
from segcore.judgement.gate.verdict import GateResult
from segcore.judgement.gate.verdict import Row as GateRow
from segcore.report.gate import TONES, headline
from segcore.report.model import build_report, open_pictures, run_headline
from segcore.report.tables import ITEM_COLUMNS, OPTIONAL_COLUMNS, dataset_tables, facts, items_table, side_by_side
from tests.support.factories import make_run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    directory = tmp_path_factory.mktemp("runs")
    return (
        make_run(directory, "base", models=("embedded",)),
        make_run(directory, "head", models=("embedded",), slower=1.5, shift=9, seed=1),
    )


def outcome(kind: str, reason: str = "", item: str = "i", where: str = "") -> OutcomeRecord:
    fields = {"item": item, "kind": "latency", "outcome": kind, "reason": reason, "where": where}
    return OutcomeRecord.model_validate(fields)


def with_outcomes(run: Run, *outcomes: OutcomeRecord, complete: bool = True) -> Run:
    record = run.record.model_copy(update={"outcomes": outcomes, "complete": complete})
    return run.model_copy(update={"record": record})


def with_accuracy(run: Run, **changes: object) -> Run:
    """Change the accuracy of the first case."""
    place, first = next((i, b) for i, b in enumerate(run.benchmarks) if b.info.accuracy)
    assert first.info.accuracy
    accuracy = first.info.accuracy.model_copy(update=changes)
    changed = first.model_copy(update={"info": first.info.model_copy(update={"accuracy": accuracy})})
    return run.model_copy(update={"benchmarks": (*run.benchmarks[:place], changed, *run.benchmarks[place + 1 :])})


@pytest.mark.parametrize(
    ("outcomes", "complete", "line", "tone"),
    [
        (["passed", "passed"], True, "Passed: all 2 items", "good"),
        (["passed", "skipped"], True, "Passed: 1 passed, 1 skipped", "good"),
        (["passed", "failed", "skipped"], True, "Failed: 1 failed, 1 passed, 1 skipped", "bad"),
        (["passed", "error"], True, "Failed: 1 error, 1 passed", "bad"),
        (["passed"], False, "Incomplete: 1 passed", "warn"),
        ([], True, "Passed: 9 items measured", "good"),
    ],
)
def test_headline_of_a_run(pair: tuple[Run, Run], outcomes: list[str], complete: bool, line: str, tone: str) -> None:
    found = run_headline(with_outcomes(pair[0], *(outcome(kind) for kind in outcomes), complete=complete))
    assert (found.line, found.tone) == (line, tone)


def test_an_expectation_that_is_not_met_is_a_failure(pair: tuple[Run, Run]) -> None:
    wrong = CheckRecord(name="dominant", wanted="cat", found="dog", passed=False)
    run = with_accuracy(with_outcomes(pair[0]), checks=(wrong,))
    assert run_headline(run).line == "Failed: 1 not as expected, 9 items measured"


@pytest.mark.parametrize(
    ("verdicts", "word", "tone"),
    [
        (["pass", "improved"], "Passed", "good"),
        (["pass", "regressed", "inconclusive"], "Failed", "bad"),
        (["missing"], "Failed", "bad"),
        (["pass", "inconclusive"], "Undecided", "warn"),
        (["incomparable"], "Undecided", "warn"),
        ([], "Undecided", "warn"),
    ],
)
def test_headline_of_a_gate(pair: tuple[Run, Run], verdicts: list[str], word: str, tone: str) -> None:
    rows = tuple(GateRow("i", "median", verdict, "") for verdict in verdicts)  # type: ignore[arg-type]
    found = headline(GateResult("base", "head", rows))
    assert (found.word, found.tone) == (word, tone)


def test_changes_are_worst_first_and_without_what_passed(pair: tuple[Run, Run]) -> None:
    order = ("pass", "improved", "incomparable", "missing", "regressed", "inconclusive")
    rows = tuple(GateRow(f"i{n}", "median", verdict, "") for n, verdict in enumerate(order))  # type: ignore[arg-type]
    report = build_report([pair[1]], pair[0], GateResult("base", "head", rows))
    assert [c.verdict for c in report.changed] == ["regressed", "missing", "inconclusive", "incomparable", "improved"]


def test_changes_of_a_real_gate(pair: tuple[Run, Run]) -> None:
    base, head = pair
    report = build_report([head], base, judge([base], [head], Limits(), drift=run_drift(base, head)))
    changed = {(row.item, row.aspect): row for row in report.changed}
    drifted = changed["accuracy[chelsea-embedded-torch-cpu-320]", "changed pixels"]
    assert (drifted.verdict, TONES[drifted.verdict]) == ("regressed", "bad")
    slower = changed["latency[chelsea-embedded-torch-cpu-320]", "median"]
    assert slower.unit == "ms"
    assert slower.change
    assert 0.45 < slower.change.value < 0.55


def test_pictures_and_what_changed_in_them(pair: tuple[Run, Run]) -> None:
    base, head = pair
    report = build_report([head], base)
    seen = open_pictures(report.cases[0])
    assert seen.photo is not None
    assert seen.class_map is not None
    assert seen.changed is not None
    assert seen.photo.shape[:2] == seen.class_map.shape == seen.changed.shape
    share = float(np.mean(seen.changed))
    assert 0.005 < share < 0.2
    assert seen.change == f"{share:.2%} of the pixels changed class."
    assert open_pictures(build_report([base], base).cases[0]).change == "No pixel changed class."


def test_class_maps_of_other_sizes_are_not_compared(pair: tuple[Run, Run]) -> None:
    base, head = pair
    accuracy = next(b.info.accuracy for b in head.benchmarks if b.info.case == "astronaut" and b.info.accuracy)
    seen = open_pictures(build_report([with_accuracy(head, class_map=accuracy.class_map)], base).cases[0])
    assert seen.changed is None
    assert "no changed pixels can be shown" in seen.notes[0]


def test_what_is_not_as_expected_comes_first(pair: tuple[Run, Run]) -> None:
    wrong = (CheckRecord(name="dominant", wanted="a", found="b", passed=False),)
    run = pair[0]
    last = run.benchmarks[-1]
    assert last.info.accuracy
    failed = last.info.model_copy(update={"accuracy": last.info.accuracy.model_copy(update={"checks": wrong})})
    changed = run.model_copy(update={"benchmarks": (*run.benchmarks[:-1], last.model_copy(update={"info": failed}))})
    assert [case.title for case in build_report([run]).cases] == ["chelsea", "astronaut"]
    assert [case.title for case in build_report([changed]).cases] == ["astronaut", "chelsea"]


def test_failures_are_grouped_by_reason(pair: tuple[Run, Run]) -> None:
    run = with_outcomes(
        pair[0],
        outcome("skipped", "no network", "a", where="http://a.example/x"),
        outcome("skipped", "no network", "b", where="http://a.example/y"),
        outcome("failed", "a dog", "c"),
        outcome("passed", "", "d"),
    )
    assert [(t.outcome, t.reason, t.items) for t in build_report([run]).failures] == [
        ("failed", "a dog", ("c",)),
        ("skipped", "no network", ("a", "b")),
    ]


def test_items_table_has_the_numbers_of_the_run(pair: tuple[Run, Run]) -> None:
    base, head = pair
    report = build_report([head], base, judge([base], [head], Limits(), drift=run_drift(base, head)))
    table = items_table(report)
    assert table.columns == tuple(name for name in ITEM_COLUMNS if name not in OPTIONAL_COLUMNS)
    assert len(table.rows) == 2 * 9
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    found = {str(row["item"]): row for row in rows if row["run"] == "head"}
    row = found["latency[chelsea-embedded-torch-cpu-320]"]
    benchmark = next(b for b in head.benchmarks if b.info.key == row["item"])
    assert row["verdict"] == "regressed"
    assert row["median, ms"] == pytest.approx(float(np.median(benchmark.samples)) * 1e3)
    assert row["p95, ms"] is None  # 40 rounds say nothing of a p95
    assert row["rounds"] == 40.0
    assert row["GMAC/s"] == pytest.approx(0.9 / (0.85 * float(np.median(benchmark.samples))))
    accuracy = found["accuracy[chelsea-embedded-torch-cpu-320]"]
    assert (accuracy["verdict"], accuracy["score, %"]) == ("regressed", 100.0)


def test_what_was_built_has_a_column_where_something_was(pair: tuple[Run, Run]) -> None:
    base = pair[0]
    first, second, *rest = base.benchmarks
    built = [
        first.model_copy(update={"info": first.info.model_copy(update={"build_s": 0.0})}),
        second.model_copy(update={"info": second.info.model_copy(update={"runtime": "openvino", "build_s": 2.5})}),
    ]
    table = items_table(build_report([base.model_copy(update={"benchmarks": (*built, *rest)})]))
    place = table.columns.index("built, s")
    assert [row[place] for row in table.rows[:3]] == [None, 2.5, None]


def test_energy_has_a_column_where_it_was_counted(pair: tuple[Run, Run]) -> None:
    base = pair[0]
    place = next(i for i, b in enumerate(base.benchmarks) if b.info.batch == 4)
    energy = EnergyRecord(joules=60.0, calls=3, counter="RAPL package-0")
    benchmarks = list(base.benchmarks)
    info = benchmarks[place].info.model_copy(update={"energy": energy})
    benchmarks[place] = benchmarks[place].model_copy(update={"info": info})
    table = items_table(build_report([base.model_copy(update={"benchmarks": tuple(benchmarks)})]))
    column = [row[table.columns.index("J/image")] for row in table.rows]
    assert column[place] == 5.0
    assert column.count(None) == len(column) - 1


def test_one_device_needs_no_table_side_by_side(pair: tuple[Run, Run]) -> None:
    assert side_by_side(pair[:1]) == []
    assert side_by_side([pair[0].model_copy(update={"benchmarks": ()})]) == []


def test_side_by_side(pair: tuple[Run, Run]) -> None:
    (table,) = side_by_side(pair)
    assert table
    assert table.columns == ("work", "base cpu", "head cpu")
    row = next(r for r in table.rows if r[0] == "latency embedded @320 (2 cases)")
    assert str(row[1]).endswith(" *")
    assert "x" not in str(row[1])
    assert ", 0.67x, " in str(row[2])


def dataset_run(
    run: Run, miou: float, protocol: str = "voc-original", published: dict[str, float] | None = None
) -> Run:
    record = DatasetRecord(
        name="voc-val",
        sha256="ab",
        images=1449,
        protocol=protocol,
        scores={"miou": miou, "iou cat": 0.7},
        intervals={"miou": (miou - 0.01, miou + 0.01), "iou cat": (0.6, 0.8)},
        published=published or {},
        failed={"x.jpg": "cut off"},
    )
    accuracy = AccuracyRecord(dominant="cat", fractions={})
    info = run.benchmarks[0].info.model_copy(update={"kind": "dataset", "dataset": record, "accuracy": accuracy})
    return run.model_copy(update={"benchmarks": (run.benchmarks[0].model_copy(update={"info": info}),)})


def test_dataset_beside_baseline_and_published_figures(pair: tuple[Run, Run]) -> None:
    now, before = dataset_run(pair[1], 0.62, published={"miou": 0.637}), dataset_run(pair[0], 0.60)
    (table,) = dataset_tables(now, before)
    assert table.columns == ("score", "%", "low, %", "high, %", "baseline, %", "published, %", "to published, pp")
    assert table.rows[0][:-1] == ("mIoU", 62.0, 61.0, 63.0, 60.0, 63.7)
    assert table.rows[0][-1] == pytest.approx(-1.7)
    assert table.rows[1][:4] == ("IoU cat", 70.0, 60.0, 80.0)
    assert "protocol voc-original" in table.title
    assert table.notes == ("not scored: x.jpg: cut off",)


def test_other_protocols_are_not_put_beside(pair: tuple[Run, Run]) -> None:
    now, before = dataset_run(pair[1], 0.62), dataset_run(pair[0], 0.60, protocol="per-image")
    assert dataset_tables(now, before)[0].columns == ("score", "%", "low, %", "high, %")


def test_facts_name_the_machine(tmp_path: Path, pair: tuple[Run, Run]) -> None:
    found = dict(facts(pair[0]))
    assert found["processor"] == "Imaginary CPU (family 6)"
    assert found["memory"] == "8.0 GiB"
    assert found["OMP_NUM_THREADS"] == "2"
    assert found["peak of cpu in fp32"] == "matrix product 190, convolution 165 GMAC/s, copy 14 GB/s"
    assert found["commit"].startswith("0123456789")
