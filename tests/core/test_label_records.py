"""Label sets in run files."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from segcore.core.labels import ADE20K, LABEL_SETS, VOC, LabelSet, numbered
from segcore.core.records import BenchmarkRecord, LabelsRecord, LabelsRef
from tests.support.judged_runs import a_run, an_item

OWN = LabelSet("own", ("road", "sky"), ((1, 2, 3), (255, 254, 253)), aliases={"heaven": "sky"}, background=1, ignore=7)


@pytest.mark.parametrize("labels", [OWN, *LABEL_SETS.values(), numbered(300), LabelSet("all", ("a",), ignore=None)])
def test_label_sets_survive_the_record(labels: LabelSet) -> None:
    record = LabelsRecord.model_validate_json(LabelsRecord.of(labels).model_dump_json())
    assert record.labels.digest == labels.digest
    assert (record.labels.names, record.labels.colors) == (labels.names, labels.colors)
    assert (record.labels.background, record.labels.ignore) == (labels.background, labels.ignore)


def test_an_item_that_names_no_labels_has_those_of_voc() -> None:
    document = an_item().info.model_dump()
    assert document.pop("labels") == {"name": "voc", "classes": 21, "sha256": VOC.digest}
    assert BenchmarkRecord.model_validate(document).labels == LabelsRef.of(VOC)


def test_labels_of_an_item_are_those_of_its_run_then_those_that_segcore_knows() -> None:
    own, ade, unknown = (an_item(labels=LabelsRef.of(labels)) for labels in (OWN, ADE20K, numbered(5)))
    run = a_run(own, labels=(LabelsRecord.of(OWN),))
    found = run.labels_of(own.info)
    assert found is not None
    assert found.colors == OWN.colors
    assert run.labels_of(an_item().info) is VOC
    assert run.labels_of(ade.info) is ADE20K
    assert run.labels_of(unknown.info) is None


@pytest.mark.parametrize(
    "change",
    [
        {"names": ("a", "a")},
        {"colors": ("#000000",)},
        {"colors": ("#000000", "red")},
        {"background": 2},
        {"ignore": 1},
        {"names": ()},
        {"names": ("a", "")},
    ],
)
def test_contradictions_in_a_file_are_refused(change: dict[str, Any]) -> None:
    document = {"name": "own", "names": ("a", "b"), "colors": ("#000000", "#ffffff"), **change}
    with pytest.raises(ValidationError):
        LabelsRecord.model_validate(document)
