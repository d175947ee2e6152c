from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from segcore.core.errors import DatasetError
from segcore.core.image_files import load_indexed_png, save_indexed_png
from segcore.core.labels import VOC_CLASSES
from segcore.evaluation.expectations import check_expectations, describe_failure
from segcore.evaluation.pictures import save_pictures
from segcore.inference.pipeline import SegmentationResult
from segcore.inputs.cases import Case

CAT, DOG = VOC_CLASSES.index("cat"), VOC_CLASSES.index("dog")


def result() -> SegmentationResult:
    """10 x 10 pixels: 30 of cat, 5 of dog, 65 of background."""
    classes = np.zeros((10, 10), dtype=np.uint8)
    classes[:3] = CAT
    classes[9, :5] = DOG
    logits = torch.nn.functional.one_hot(torch.from_numpy(classes).long(), 21).permute(2, 0, 1).float()
    photo = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    margins = np.linspace(0, 20, 100, dtype=np.float32).reshape(10, 10)
    colours = np.zeros((10, 10, 3), dtype=np.uint8)
    return SegmentationResult(photo, classes, colours, {"forward": 0.1}, (1, 3, 10, 10), margins, logits)


def case(**expect: Any) -> Case:
    fields = {"name": "x", "image": {"resource": "skimage:chelsea.png"}, "expect": expect}
    return Case.model_validate(fields)


@pytest.mark.parametrize(
    ("expect", "name", "wanted", "found", "passed"),
    [
        ({"dominant": "cat"}, "dominant class", "cat", "cat", True),
        ({"dominant": "dog"}, "dominant class", "dog", "cat", False),
        ({"classes": {"cat": {"min_fraction": 0.3}}}, "fraction of cat", "at least 30.00 %", "30.00 %", True),
        ({"classes": {"cat": {"min_fraction": 0.31}}}, "fraction of cat", "at least 31.00 %", "30.00 %", False),
        ({"classes": {"dog": {"max_fraction": 0.05}}}, "fraction of dog", "at most 5.00 %", "5.00 %", True),
        (
            {"classes": {"dog": {"min_fraction": 0.01, "max_fraction": 0.04}}},
            "fraction of dog",
            "at least 1.00 % and at most 4.00 %",
            "5.00 %",
            False,
        ),
        ({"classes": {"bird": {"min_fraction": 0.1}}}, "fraction of bird", "at least 10.00 %", "0.00 %", False),
        ({"absent": ["bird"]}, "absence of bird", "0 %", "0.00 %", True),
        ({"absent": ["dog"]}, "absence of dog", "0 %", "5.00 %", False),
    ],
)
def test_each_expectation_is_a_check(expect: dict[str, Any], name: str, wanted: str, found: str, passed: bool) -> None:
    record = check_expectations(case(**expect), result())
    (check,) = record.checks
    assert (check.name, check.wanted, check.found, check.passed) == (name, wanted, found, passed)
    assert record.passed == passed
    assert record.dominant == "cat"
    assert record.fractions == {"background": 0.65, "cat": 0.3, "dog": 0.05}


def test_a_case_without_expectations_passes() -> None:
    assert check_expectations(case(), result()).checks == ()
    assert check_expectations(case(), result()).passed


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    truth = np.zeros((10, 10), dtype=np.uint8)
    truth[:2] = CAT
    truth[2] = 255
    save_indexed_png(truth, tmp_path / "mask.png")
    return tmp_path / "mask.png"


def test_iou_is_scored_against_the_mask(mask: Path) -> None:
    scored = case(
        ground_truth={"path": "mask.png"}, min_iou={"cat": 1.0, "background": 0.95, "bird": 0.1}, min_miou=0.6
    )
    record = check_expectations(scored, result(), load_indexed_png(mask))
    # 90 pixels scored: 20 cat right, 65 background right, 5 background taken for dog.
    assert record.iou == pytest.approx({"background": 65 / 70, "cat": 1.0, "dog": 0.0})
    assert record.miou == pytest.approx((65 / 70 + 1) / 3)
    assert record.pixel_accuracy == pytest.approx(85 / 90)
    assert record.metric is not None
    assert [(check.name, check.passed) for check in record.checks] == [
        ("IoU of cat", True),
        ("IoU of background", False),
        ("IoU of bird", False),
        ("mIoU", True),
    ]
    assert record.checks[2].found == "nan %"  # in neither mask nor prediction


def test_a_mask_of_another_size_is_an_error() -> None:
    with pytest.raises(DatasetError, match="must have the same shape"):
        check_expectations(case(ground_truth={"path": "mask.png"}), result(), np.zeros((5, 5), dtype=np.uint8))


def test_pictures_show_the_result(tmp_path: Path) -> None:
    seen = result()
    record = save_pictures(seen, check_expectations(case(), seen), tmp_path / "run", "item")
    assert record.class_map is not None
    assert record.margin_map is not None
    assert record.overlay is not None
    assert record.photo is not None
    assert (load_indexed_png(tmp_path / "run" / record.class_map) == seen.class_map).all()
    margins = np.asarray(Image.open(tmp_path / "run" / record.margin_map)).astype(float) / 32
    assert seen.margins is not None
    assert np.abs(margins - np.minimum(seen.margins, 255 / 32)).max() <= 1 / 64
    with Image.open(tmp_path / "run" / record.photo) as photo, Image.open(tmp_path / "run" / record.overlay) as overlay:
        assert photo.format == overlay.format == "JPEG"
        assert photo.size == overlay.size == (10, 10)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [
        "item.classes.png",
        "item.margin.png",
        "item.overlay.jpg",
        "item.photo.jpg",
    ]


def test_a_failure_names_what_was_found_and_the_overlay(tmp_path: Path) -> None:
    seen = result()
    record = check_expectations(case(dominant="dog", classes={"cat": {"max_fraction": 0.1}}, absent=["bird"]), seen)
    record = save_pictures(seen, record, tmp_path, "item")
    assert describe_failure(record, tmp_path).splitlines() == [
        "2 of 3 expectations do not hold",
        "  dominant class: wanted dog, found cat",
        "  fraction of cat: wanted at most 10.00 %, found 30.00 %",
        "  seen: background 65.00 %, cat 30.00 %, dog 5.00 %",
        f"  look at: {tmp_path / 'item.overlay.jpg'}",
    ]


def test_nan_never_passes() -> None:
    from segcore.evaluation.expectations import _bounded

    assert not _bounded("x", math.nan, None, None).passed
