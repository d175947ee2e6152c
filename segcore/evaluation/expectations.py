"""Compare what a model saw in a photo with the expectations of its case."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from segcore.core.labels import ClassMap, LabelSet
from segcore.core.records import AccuracyRecord, CheckRecord
from segcore.core.scores import MEANS, class_scores
from segcore.evaluation.metrics import class_totals, metric_name
from segcore.inference.pipeline import SegmentationResult
from segcore.inputs.cases import Case, Expectations

SHOWN_CLASSES = 5


def check_expectations(case: Case, result: SegmentationResult, target: ClassMap | None = None) -> AccuracyRecord:
    """Return what was seen in the photo of a case, with a check for each of its expectations.

    The model has all classes that the case names (`segcore.inputs.cases.reason_against`). The target is the ground
    truth, upright, (H, W), if any.

    Raises:
        DatasetError: ground truth and photo differ in size.
    """
    scores = _scores(target, result.class_map, result.labels) if target is not None else {}
    record = AccuracyRecord(dominant=result.dominant, fractions=result.fractions, **scores)
    return record.model_copy(update={"checks": tuple(_checks(case.expect.in_labels(result.labels), record))})


def _scores(target: ClassMap, prediction: ClassMap, labels: LabelSet) -> dict[str, Any]:
    figures = class_scores(class_totals(target, prediction, labels)).tolist()
    means = dict(zip(MEANS, figures, strict=False))
    iou = zip(labels.names, figures[len(MEANS) :], strict=True)
    return {
        "iou": {name: value for name, value in iou if not math.isnan(value)},
        "miou": means["miou"],
        "pixel_accuracy": means["pixel_accuracy"],
        "metric": metric_name(labels),
    }


def _checks(expect: Expectations, record: AccuracyRecord) -> Iterator[CheckRecord]:
    if expect.dominant is not None:
        passed = record.dominant == expect.dominant
        yield CheckRecord(name="dominant class", wanted=expect.dominant, found=record.dominant, passed=passed)
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
    # NaN, the value of a class that was never scored, does not pass.
    passed = (least is None or value >= least) and (most is None or value <= most) and not math.isnan(value)
    wanted = " and ".join(words)
    return CheckRecord(name=name, wanted=wanted, found=_percent(value), passed=passed, least=least, most=most)


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def describe_failure(record: AccuracyRecord, directory: Path) -> str:
    """Return the expectations that do not hold, what was found instead, and the path of the overlay."""
    failed = [check for check in record.checks if not check.passed]
    top = list(record.fractions.items())[:SHOWN_CLASSES]
    lines = [f"{len(failed)} of {len(record.checks)} expectations do not hold"]
    lines += [f"  {check.name}: wanted {check.wanted}, found {check.found}" for check in failed]
    lines.append("  seen: " + ", ".join(f"{name} {_percent(share)}" for name, share in top))
    if record.overlay is not None:
        lines.append(f"  look at: {directory / record.overlay}")
    return "\n".join(lines)
