"""Cases and models with other classes than VOC's."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from segcore.core.labels import CITYSCAPES, COCO_STUFF, VOC, LabelSet
from segcore.inputs.cases import Case, check_cases, json_schema, load_cases, reason_against
from tests.support.bad_cases import HEAD

OWN = LabelSet("own", ("road", "lane", "sofa"), aliases={"couch": "sofa", "marking": "lane"}, background=0)


def case_of(directory: Path, text: str, *labels: LabelSet) -> Case:
    (directory / "a.yaml").write_text(HEAD + text)
    (case,) = load_cases(directory / "a.yaml", lambda models: labels)
    return case


def problems_of(directory: Path, text: str, *labels: LabelSet) -> list[str]:
    (directory / "a.yaml").write_text(HEAD + text)
    found = check_cases(directory / "a.yaml", lambda models: labels)[1]
    return [f"{problem.line}:{problem.column}: {problem.what}" for problem in found]


def test_names_are_those_of_the_models_labels(tmp_path: Path) -> None:
    case = case_of(tmp_path, "expect: {dominant: Marking, absent: [2], classes: {ROAD: {min_fraction: 0.1}}}", OWN)
    assert (case.expect.dominant, case.expect.absent, list(case.expect.classes)) == ("lane", ("sofa",), ["road"])


def test_names_stay_text_where_models_differ(tmp_path: Path) -> None:
    case = case_of(tmp_path, "expect: {dominant: couch, classes: {plant: {max_fraction: 0.1}}}", VOC, COCO_STUFF, OWN)
    assert (case.expect.dominant, list(case.expect.classes)) == ("couch", ["plant"])
    assert case.expect.in_labels(VOC).dominant == "sofa"
    assert list(case.expect.in_labels(VOC).classes) == ["pottedplant"]
    assert reason_against(case, VOC) is None
    assert reason_against(case, OWN) == "the labels own have no class 'plant' (expect.classes)"
    assert reason_against(case, CITYSCAPES) == (
        "the labels cityscapes have no class 'couch' (expect.dominant), 'plant' (expect.classes)"
    )


@pytest.mark.parametrize(
    ("text", "labels", "problems"),
    [
        ("expect: {dominant: raod}", (OWN,), ["3:20: expect.dominant: unknown class 'raod' (did you mean 'road'?)"]),
        ("expect: {dominant: 3}", (OWN,), ["3:20: expect.dominant: class 3 is not a class of own"]),
        (
            "expect: {dominant: person}",
            (OWN,),
            ["3:20: expect.dominant: unknown class 'person'; the classes of own are"],
        ),
        ("expect: {dominant: person}", (OWN, VOC), []),
        ("expect: {dominant: 20}", (OWN, VOC), []),
        ("expect: {dominant: 21}", (OWN, VOC), ["3:20: expect.dominant: unknown class 21; none of own, voc has it"]),
        (
            "expect: {absent: [cat, lana, catt]}",
            (OWN, VOC),
            [
                "3:24: expect.absent[2]: unknown class 'lana' (did you mean 'lane'?); none of own, voc",
                "3:30: expect.absent[3]: unknown class 'catt' (did you mean 'cat'?)",
            ],
        ),
        ("expect: {dominant: couch, absent: [sofa]}", (OWN, VOC), ["3:10: expect: sofa is both dominant and absent"]),
        ("expect: {absent: [couch, sofa]}", (OWN,), ["3:18: expect.absent: names sofa twice"]),
        ("expect: {absent: [couch, sofa]}", (OWN, VOC), ["3:18: expect.absent: names sofa twice"]),
        ("expect: {absent: [couch, sofa, cat]}", (OWN, CITYSCAPES, VOC), ["3:18: expect.absent: names sofa twice"]),
        (
            "expect: {dominant: road, classes: {marking: {min_fraction: 0.1}}}",
            (OWN,),
            ["3:10: expect: road is dominant only without other classes, but lane has a min_fraction"],
        ),
        ("expect: {dominant: anything}", (), []),
    ],
)
def test_classes_are_checked_against_the_labels_at_hand(
    tmp_path: Path, text: str, labels: tuple[LabelSet, ...], problems: list[str]
) -> None:
    found = problems_of(tmp_path, text, *labels)
    assert len(found) == len(problems)
    assert all(line.startswith(start.partition(": ")[0]) for line, start in zip(found, problems, strict=True))
    assert all(start.partition(": ")[2] in line for line, start in zip(found, problems, strict=True))


def test_models_are_those_of_the_case_or_of_its_directory(tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    def labels_of(models: tuple[str, ...]) -> tuple[LabelSet, ...]:
        seen.append(models)
        return (OWN,) if models == ("roadnet",) else (VOC,)

    (tmp_path / "defaults.yaml").write_text("models: [roadnet]")
    (tmp_path / "a.yaml").write_text(HEAD + "expect: {dominant: lane}")
    (tmp_path / "b.yaml").write_text(HEAD.replace("cat", "dog") + "models: [embedded]\nexpect: {dominant: dog}")
    assert [case.expect.dominant for case in load_cases(tmp_path, labels_of)] == ["lane", "dog"]
    assert seen == [("roadnet",), ("embedded",)]


@pytest.mark.parametrize("expect", [{"dominant": "lane marking"}, {"absent": [65534]}, {"min_iou": {"lane": 0.5}}])
def test_the_schema_accepts_any_class(expect: dict[str, object]) -> None:
    image = {"resource": "skimage:chelsea.png"}
    jsonschema.validate({"name": "a", "image": image, "expect": expect}, json_schema())


@pytest.mark.parametrize("expect", [{"dominant": ""}, {"absent": [65535]}, {"classes": {"": {}}}, {"dominant": True}])
def test_the_schema_refuses_what_can_be_no_class(expect: dict[str, object]) -> None:
    image = {"resource": "skimage:chelsea.png"}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "a", "image": image, "expect": expect}, json_schema())
