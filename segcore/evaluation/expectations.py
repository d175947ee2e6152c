"""A result held against its case's expectations, and the pictures that show it. Nothing here asserts or prints."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from segcore.core.files import write_file
from segcore.core.labels import VOC_CLASSES
from segcore.core.records import MARGIN_PNG_STEP, AccuracyRecord, CheckRecord
from segcore.evaluation.metrics import METRIC_VOC, confusion_matrix, iou_per_class, mean_iou, pixel_accuracy
from segcore.inference.pipeline import SegmentationResult
from segcore.inputs.cases import Case
from segcore.inputs.images import load_mask, save_indexed_png

JPEG_QUALITY = 90
SHOWN_CLASSES = 5


def judge(case: Case, result: SegmentationResult, mask: Path | None = None) -> AccuracyRecord:
    """Return what was seen in a photo, with a check for every expectation of its case.

    Args:
        case: with its expectations.
        result: of its photo.
        mask: file of its ground truth, if it has one.

    Raises:
        ImageError: the ground-truth mask cannot be read.
        DatasetError: the mask and the photo do not fit.
    """
    record = AccuracyRecord(dominant=result.dominant, fractions=result.fractions)
    if mask is not None:
        matrix = confusion_matrix(load_mask(mask), result.class_map)
        scored = {name: float(v) for name, v in zip(VOC_CLASSES, iou_per_class(matrix), strict=True) if not np.isnan(v)}
        record = record.model_copy(
            update={
                "iou": scored,
                "miou": mean_iou(matrix),
                "pixel_accuracy": pixel_accuracy(matrix),
                "metric": METRIC_VOC,
            }
        )
    return record.model_copy(update={"checks": tuple(_checks(case, record))})


def _checks(case: Case, record: AccuracyRecord) -> Iterator[CheckRecord]:
    expect = case.expect
    if expect.dominant is not None:
        yield CheckRecord(
            name="dominant class",
            wanted=expect.dominant,
            found=record.dominant,
            passed=record.dominant == expect.dominant,
        )
    for name, bounds in expect.classes.items():
        share = record.fractions.get(name, 0.0)
        yield _bounded(f"fraction of {name}", share, bounds.min_fraction, bounds.max_fraction)
    for name in expect.absent:
        share = record.fractions.get(name, 0.0)
        yield CheckRecord(name=f"absence of {name}", wanted="0 %", found=_percent(share), passed=share == 0.0)
    for name, least in expect.min_iou.items():
        yield _bounded(f"IoU of {name}", (record.iou or {}).get(name, math.nan), least, None)
    if expect.min_miou is not None:
        yield _bounded("mIoU", math.nan if record.miou is None else record.miou, expect.min_miou, None)


def _bounded(name: str, value: float, least: float | None, most: float | None) -> CheckRecord:
    words = [f"at least {_percent(least)}"] if least is not None else []
    words += [f"at most {_percent(most)}"] if most is not None else []
    # Written so that NaN, which is what a class that was never scored has, does not pass.
    passed = (least is None or value >= least) and (most is None or value <= most) and not math.isnan(value)
    return CheckRecord(name=name, wanted=" and ".join(words), found=_percent(value), passed=passed)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def save_pictures(result: SegmentationResult, record: AccuracyRecord, directory: Path, name: str) -> AccuracyRecord:
    """Write class map, margin map, photo and overlay; return the record with their file names.

    Args:
        result: with its margins.
        record: gets the names, relative to `directory`.
        directory: is made if need be.
        name: of the item; part of the file names.

    Raises:
        OutputError: a file cannot be written.
    """
    names = {
        "class_map": f"{name}.classes.png",
        "margin_map": f"{name}.margin.png",
        "photo": f"{name}.photo.jpg",
        "overlay": f"{name}.overlay.jpg",
    }
    save_indexed_png(result.class_map, directory / names["class_map"])
    if result.margins is not None:
        grey = np.clip(np.rint(result.margins / MARGIN_PNG_STEP), 0, 255).astype(np.uint8)
        _save(Image.fromarray(grey), directory / names["margin_map"], "PNG")
    _save(Image.fromarray(result.photo), directory / names["photo"], "JPEG")
    _save(Image.fromarray(result.overlay()), directory / names["overlay"], "JPEG")
    return record.model_copy(update=names if result.margins is not None else {**names, "margin_map": None})


def _save(image: Image.Image, path: Path, kind: str) -> None:
    data = io.BytesIO()
    image.save(data, kind, quality=JPEG_QUALITY, optimize=kind == "PNG")
    write_file(path, data.getvalue())


def describe_failure(record: AccuracyRecord, directory: Path) -> str:
    """Return which expectations did not hold, what was found instead, and where the overlay lies."""
    failed = [check for check in record.checks if not check.passed]
    top = list(record.fractions.items())[:SHOWN_CLASSES]
    lines = [f"{len(failed)} of {len(record.checks)} expectations do not hold"]
    lines += [f"  {check.name}: wanted {check.wanted}, found {check.found}" for check in failed]
    lines.append("  seen: " + ", ".join(f"{name} {_percent(share)}" for name, share in top))
    if record.overlay is not None:
        lines.append(f"  look at: {directory / record.overlay}")
    return "\n".join(lines)
