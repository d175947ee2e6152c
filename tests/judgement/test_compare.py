from __future__ import annotations

import csv
import io
import math

import pytest

from segcore.core.errors import UsageError
from segcore.core.records import (
    CalibrationRecord,
    DatasetRecord,
    GpuRecord,
    LabelsRef,
    Precision,
    Run,
    WeightsRecord,
)
from segcore.judgement.compare import achieved, compare, disturbed_calibrations
from segcore.report.comparison import cells_table, comparison_table
from segcore.report.model import build_report
from segcore.report.table import to_csv, to_markdown
from segcore.report.terminal import render_run
from tests.support.factories import make_machine
from tests.support.judged_runs import a_run, an_item, steady

PEAK = CalibrationRecord(device="cpu", matmul_gmacs_per_s=200.0, conv_gmacs_per_s=150.0, copy_gbytes_per_s=10.0)


def test_work_shared_by_all_columns_is_compared_case_by_case() -> None:
    laptop = a_run(an_item(steady(0.04)), an_item(steady(0.09), case="dog"), an_item(case="only here"), name="laptop")
    server = a_run(an_item(steady(0.02)), an_item(steady(0.03), case="dog"), name="server")
    table = compare([laptop, server])
    (line,) = table.lines
    assert (line.title, line.cases) == ("latency embedded @320", ("cat", "dog"))
    assert [column.label for column in table.columns] == ["laptop cpu", "server cpu"]
    assert line.cells["laptop cpu"].seconds == pytest.approx(0.06, rel=0.01)
    assert line.cells["server cpu"].ratio == pytest.approx(0.06 / 0.0245, rel=0.02)
    assert line.cells["laptop cpu"].ratio == 1.0
    assert (line.cells["laptop cpu"].best, line.cells["server cpu"].best) == (False, True)


def test_the_reference_is_chosen_by_run_or_by_column() -> None:
    runs = [a_run(an_item(steady(0.04)), name="a"), a_run(an_item(steady(0.02)), name="b")]
    for reference in ("b", "b cpu"):
        table = compare(runs, reference)
        assert table.reference == "b cpu"
        assert table.lines[0].cells["a cpu"].ratio == pytest.approx(0.5, rel=0.01)
    with pytest.raises(UsageError, match=r"no column 'b cup' \(did you mean 'b cpu'\?\)"):
        compare(runs, "b cup")


def test_efficiency_is_a_share_of_what_the_same_session_calibrated() -> None:
    item = an_item(steady(0.2), gmacs=10.0, stages={"forward": steady(0.1)})
    cell = compare([a_run(item, calibration=(PEAK,))]).lines[0].cells["run cpu"]
    assert cell.gmacs_per_s == pytest.approx(100, rel=0.01)
    assert cell.efficiency == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("precision", ["int8", "bf16", "fp16"])
def test_other_precisions_have_no_share_of_the_fp32_peak(precision: str) -> None:
    item = an_item(steady(0.02), gmacs=10.0, precision=precision)
    run = a_run(item, calibration=(PEAK,))
    cell = compare([run]).lines[0].cells["run cpu"]
    assert cell.gmacs_per_s == pytest.approx(500, rel=0.01)
    assert cell.efficiency is None
    assert "of peak" not in to_markdown(comparison_table(compare([run]))).partition("|")[2].splitlines()[-1]


@pytest.mark.parametrize(
    ("precision", "matmul", "share"),
    [("int8", 800.0, 0.625), ("bf16", 100.0, None), ("bf16", 510.0, 0.98)],
    ids=["its own peak, not fp32's", "disturbed", "just below"],
)
def test_a_precision_is_held_against_its_own_peak(precision: Precision, matmul: float, share: float | None) -> None:
    own = PEAK.model_copy(update={"precision": precision, "matmul_gmacs_per_s": matmul})
    run = a_run(an_item(steady(0.02), gmacs=10.0, precision=precision), calibration=(PEAK, own))
    cell = compare([run]).lines[0].cells["run cpu"]
    assert cell.efficiency == (None if share is None else pytest.approx(share, rel=0.01))
    assert cell.disturbed == (share is None)
    assert len(disturbed_calibrations(run)) == (share is None)


def test_the_peak_is_that_of_the_faster_product_and_at_least_that_of_fp32() -> None:
    slow = PEAK.model_copy(update={"precision": "bf16", "matmul_gmacs_per_s": 1.0, "conv_gmacs_per_s": None})
    record = a_run(an_item(), calibration=(PEAK, slow)).record
    assert record.peak_gmacs_per_s("cpu", "bf16") == 200.0
    assert slow.peak_gmacs_per_s == 1.0
    assert record.peak_gmacs_per_s("cpu", "int8") is None
    assert record.peak_gmacs_per_s("cuda", "fp32") is None


def test_a_rate_above_the_peak_is_no_share_but_a_disturbed_calibration_and_is_said_everywhere() -> None:
    run = a_run(an_item(steady(0.01), gmacs=10.0), an_item(steady(0.02), gmacs=10.0, size=640), calibration=(PEAK,))
    (said,) = disturbed_calibrations(run)
    assert "cpu-320]" in said, "the fastest item"
    assert said in build_report([run]).warnings
    assert said in " ".join(render_run(run, width=400).split())
    shown = to_markdown(comparison_table(compare([run])))
    assert shown.count("calibration disturbed") == 2
    assert "500%" not in shown


@pytest.mark.parametrize(
    ("item", "calibration"),
    [
        (an_item(gmacs=None), (PEAK,)),
        (an_item(gmacs=10.0), ()),
        (an_item(gmacs=10.0), (PEAK.model_copy(update={"device": "cuda"}),)),
    ],
)
def test_unknown_efficiency_is_absent_not_zero(item: object, calibration: tuple[CalibrationRecord, ...]) -> None:
    assert compare([a_run(item, calibration=calibration)]).lines[0].cells["run cpu"].efficiency is None  # type: ignore[arg-type]


def test_different_kinds_of_work_are_separate_lines() -> None:
    random = WeightsRecord(kind="random", name="0", sha256="cd" * 32)
    run = a_run(
        an_item(),
        an_item(size=640),
        an_item(precision="int8", runtime="openvino"),
        an_item(model="fcn_resnet101", weights=random),
        an_item(steady(0.2), kind="throughput", batch=4),
        an_item(kind="accuracy"),
    )
    table = compare([run])
    assert [line.title for line in table.lines] == [
        "latency embedded openvino.int8 @320",
        "latency embedded @320",
        "latency embedded @640",
        "latency fcn_resnet101 torch (random weights) @320",
        "throughput embedded @320 batch 4",
    ]
    assert table.lines[-1].cells["run cpu"].images_per_s == pytest.approx(20, rel=0.01)
    assert not any(cell.best for line in table.lines for cell in line.cells.values())


def test_columns_without_a_common_case_have_no_ratio() -> None:
    line = compare([a_run(an_item(case="a"), name="x"), a_run(an_item(case="b"), name="y")]).lines[0]
    assert line.cases == ()
    assert {cell.ratio for cell in line.cells.values()} == {None}


def test_devices_of_one_run_are_columns_and_equal_names_are_numbered() -> None:
    gpu = make_machine().model_copy(update={"gpus": (GpuRecord(name="H100", driver="550"),)})
    run = a_run(an_item(), an_item(device="cuda"), machine=gpu)
    assert [(c.label, c.machine) for c in compare([run, run]).columns] == [
        ("run#1 cpu", "Imaginary CPU (family 6), 2 threads"),
        ("run#1 cuda", "H100"),
        ("run#2 cpu", "Imaginary CPU (family 6), 2 threads"),
        ("run#2 cuda", "H100"),
    ]


def test_nothing_timed_is_an_error() -> None:
    with pytest.raises(UsageError, match="nothing to compare: no times and no dataset scores in run"):
        compare([a_run(an_item(kind="accuracy"), an_item((float("nan"),)))])


def test_a_run_without_times_is_named() -> None:
    found = compare([a_run(an_item(), name="both"), a_run(an_item(kind="accuracy"), name="seen")])
    assert found.without == ("seen",)
    assert any("seen" in note for note in comparison_table(found).notes)
    assert compare([a_run(an_item())]).without == ()


def a_dataset(miou: float, **fields: object) -> DatasetRecord:
    scores = {"miou": miou, "iou cat": miou + 0.1}
    intervals = {name: (share - 0.02, share + 0.02) for name, share in scores.items()}
    base = {"name": "voc-val", "sha256": "aa", "images": 9, "protocol": "voc-original"}
    return DatasetRecord.model_validate(base | {"scores": scores, "intervals": intervals} | fields)


def scored(name: str, *records: DatasetRecord) -> Run:
    return a_run(*(an_item([math.nan], kind="dataset", case=r.protocol, dataset=r) for r in records), name=name)


def test_scores_of_datasets_are_compared_where_images_and_protocol_are_the_same() -> None:
    table = compare([scored("a", a_dataset(0.61)), scored("b", a_dataset(0.64))])
    miou, cat = table.scores
    assert (miou.score, cat.score) == ("miou", "iou cat")
    assert miou.cells["a cpu"].difference == 0
    assert miou.cells["b cpu"].difference == pytest.approx(0.03)
    assert (miou.cells["a cpu"].best, miou.cells["b cpu"].best) == (False, True)
    shown = to_markdown(comparison_table(table))
    assert r"mIoU on voc-val \(9 images\), voc-original" in shown
    assert r"320: 64.00% \(62.0 to 66.0\) +3.00 \*" in shown
    assert "cat" not in shown
    assert len(comparison_table(table).notes) == 2, "the machine, and how to read scores"
    rows = list(csv.DictReader(io.StringIO(to_csv(cells_table(table)))))
    assert [(row["score"], row["column"], row["kind"], row["seconds"]) for row in rows[1:3]] == [
        ("miou", "b cpu", "dataset", ""),
        ("iou cat", "a cpu", "dataset", ""),
    ]


def test_two_models_in_one_run_are_two_columns() -> None:
    items = [
        an_item([math.nan], kind="dataset", case="d", model=model, dataset=a_dataset(miou))
        for model, miou in {"embedded": 0.4, "fcn_resnet101": 0.6}.items()
    ]
    table = compare([a_run(*items)])
    assert [column.label for column in table.columns] == ["run cpu", "run cpu fcn_resnet101 @320"]
    assert table.scores[0].cells["run cpu fcn_resnet101 @320"].difference == pytest.approx(0.2)


@pytest.mark.parametrize("other", [{"protocol": "per-image"}, {"sha256": "bb"}, {"images": 8}])
def test_scores_under_another_protocol_or_on_other_images_stand_alone(other: dict[str, object]) -> None:
    table = compare([scored("a", a_dataset(0.61)), scored("b", a_dataset(0.64, **other))])
    assert len(table.scores) == 4
    for line in table.scores:
        (cell,) = line.cells.values()
        assert not cell.best
        assert cell.difference in (0, None)


@pytest.mark.parametrize(("threads", "known"), [(None, True), (2, True), (1, False), (3, False)])
def test_efficiency_is_known_for_the_threads_of_the_calibration(threads: int | None, known: bool) -> None:
    item = an_item(steady(0.2), kind="throughput", gmacs=10.0, threads=threads)
    run = a_run(item, calibration=(PEAK,))
    assert run.record.machine.intra_op_threads == 2
    assert (achieved(run, item) is not None) == known


def test_another_number_of_threads_is_a_separate_line() -> None:
    items = [an_item(steady(0.1 / threads), kind="throughput", threads=threads) for threads in (1, 2)]
    lines = compare([a_run(*items)]).lines
    assert [line.title for line in lines] == [
        "throughput embedded torch 1 thread @320 batch 1",
        "throughput embedded torch 2 threads @320 batch 1",
    ]
    assert [line.cells["run cpu"].images_per_s for line in lines] == pytest.approx([10, 20], rel=0.01)


def test_scores_with_other_labels_stand_alone() -> None:
    fields = {"kind": "dataset", "case": "d", "dataset": a_dataset(0.6)}
    own = an_item([math.nan], labels=LabelsRef(name="own", classes=2, sha256="ab"), **fields)
    table = compare([a_run(an_item([math.nan], **fields), name="a"), a_run(own, name="b")])
    assert len(table.scores) == 4
    assert all(len(line.cells) == 1 for line in table.scores)
