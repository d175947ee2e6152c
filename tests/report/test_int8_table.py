"""The table of what `segcore quantize` found."""

from __future__ import annotations

from segcore.core.record_int8 import Int8Record, LayerRecord
from segcore.report.run_tables import int8_table
from segcore.report.table import Cell

LAYERS = (
    LayerRecord(name="a", kind="Add", changed=0.2, halved=0.3, damage=0.1),
    LayerRecord(name="b", kind="Conv", module="head", time=0.5, changed=0.1, halved=0.1, damage=0.2, kept=True),
    LayerRecord(
        name="c", kind="Conv", time=0.25, changed=0.3, halved=0.4, damage=0.3, classes={"cat": 0.2, "dog": 0.1}
    ),
)
RECORD = Int8Record(
    model="net",
    weights="",
    runtime="openvino",
    size=32,
    calibration="",
    truth="its own masks in fp32",
    limit=0.01,
    plain_drop=0.3,
    drop=0.004,
    evaluations=5,
    layers=LAYERS,
)


def test_layers_in_fp32_come_first_then_those_that_change_most() -> None:
    table = int8_table(RECORD)
    assert [row[0] for row in table.rows] == ["head", "c", "a"]
    assert [row[-1] for row in table.rows] == [Cell("fp32", "warn"), Cell("int8"), Cell("int8")]
    assert [cell.text for cell in table.cells()[1]] == [
        "c", "Conv", "25.00", "30.00", "40.00", "0.3000", "cat 0.200, dog 0.100", "int8",
    ]  # fmt: skip
    assert table.rows[2][2] is None  # fused into another


def test_it_is_cut_with_a_note() -> None:
    table = int8_table(RECORD, 1, brief=True)
    assert [row[0] for row in table.rows] == ["head", "c"]
    assert table.columns == ("layer", "kind", "time %", "changed %", "mIoU drop", "stays in")
    assert table.notes[0].startswith("1 more")
