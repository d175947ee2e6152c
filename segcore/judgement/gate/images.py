"""Judge the scores of a dataset, compared image by image with the baseline's.

Another sample of images would give other scores, so each difference has an interval, with verdicts as for speed: a
drop wholly beyond its limit has regressed, one wholly within has passed, and between them there are too few images.
The classes are many, and some are rare: where nobody set a limit of theirs, a class with too few images is
named in a note, and does not leave the gate undecided.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from segcore.core.limits import Limits
from segcore.core.records import BenchmarkRecord, DatasetRecord
from segcore.core.scores import SCORES
from segcore.judgement.gate.verdict import Row, Verdict
from segcore.judgement.paired_accuracy import (
    MIN_IMAGES,
    ImagePairs,
    dense,
    image_pairs,
    images_by_class,
    score_changes,
    total_scores,
)
from segcore.judgement.statistics import CONFIDENCE, Interval

ERROR = (1 - CONFIDENCE) / 2
_ASPECTS = {"miou": "mIoU", "pixel_accuracy": "pixel accuracy", "boundary_iou": "boundary IoU"}
"""Judged scores besides the IoU of the classes, and what reports call them."""
_ROUNDING = 1e-6


@dataclass(frozen=True)
class ImageVerdicts:
    """What follows from the images of one item."""

    rows: tuple[Row, ...]
    untold: tuple[str, ...] = ()
    """Classes without a limit of their own whose drop the images can neither confirm nor rule out."""


def has_counts(record: BenchmarkRecord) -> bool:
    """Return whether every scored image of a dataset has its counts."""
    dataset = record.dataset
    return dataset is not None and 1 < dataset.images == len(dataset.counts)


def counts_problem(record: BenchmarkRecord) -> str:
    """Return why the counts of a run contradict its scores; empty if they do not."""
    dataset, accuracy = record.dataset, record.accuracy
    if dataset is None or accuracy is None or not has_counts(record):
        return ""
    counts = dense(list(dataset.counts.values()))
    summed = dict(zip(SCORES, total_scores(counts, per_image=dataset.matrix is None).tolist(), strict=True))
    said = [(name, share, summed.get(name, math.nan)) for name, share in dataset.scores.items()]
    said += [
        (name, accuracy.scores.get(aspect(name), math.nan), share)
        for name, share in summed.items()
        if aspect(name) in accuracy.scores
    ]
    wrong = [name for name, one, other in said if not abs(one - other) <= _ROUNDING]
    return f"the counts of its images do not give its {wrong[0].replace('_', ' ')}" if wrong else ""


def aspect(score: str) -> str:
    """Return what reports call a score: ``mIoU``, ``IoU cat``."""
    return _ASPECTS.get(score) or score.replace("iou ", "IoU ").replace("_", " ")


def judge_images(old: DatasetRecord, new: BenchmarkRecord, limits: Limits) -> ImageVerdicts:
    """Judge the scores of one item: are they lower than allowed on images like these?

    Args:
        old: of the baseline, with counts of the same images.
        new: the current item, with counts.
        limits: on the drop; those of classes are judged in both directions if they are set.
    """
    assert new.dataset
    pairs = image_pairs(old, new.dataset)
    return judge_pairs(new.key, pairs, limits, ERROR)


def judge_pairs(item: str, pairs: ImagePairs, limits: Limits, error: float) -> ImageVerdicts:
    """Judge the scores of pairs of images.

    Args:
        item: key of the item.
        pairs: the counts.
        limits: on the drop.
        error: bound on the probability of each wrong verdict.
    """
    totals = (total_scores(counts, per_image=pairs.per_image).tolist() for counts in (pairs.before, pairs.after))
    before, after = (dict(zip(SCORES, shares, strict=True)) for shares in totals)
    changes, images = score_changes(pairs, error), images_by_class(pairs)
    rows, untold = [], []
    for name in SCORES:
        if not (name in _ASPECTS or name.startswith("iou ")) or math.isnan(before[name]):
            continue
        change = changes.get(name)
        if change is None:
            rows.append(Row(item, aspect(name), "missing", "not in the current run", "share", before[name]))
            continue
        row = _row(
            item, name, change, images.get(name, len(pairs.names)), _allowed(name, limits), (before[name], after[name])
        )
        if row.verdict == "inconclusive" and name.startswith("iou ") and "max_iou_drop" not in limits.model_fields_set:
            untold.append(f"{row.aspect} {_points(change)}")
        else:
            rows.append(row)
    return ImageVerdicts(tuple(rows), tuple(untold))


def _allowed(name: str, limits: Limits) -> float:
    return limits.max_miou_drop if name in ("miou", "boundary_iou") else limits.max_iou_drop


def decide_drop(change: Interval, allowed: float) -> Verdict:
    """Compare the interval of after - before with the largest allowed drop."""
    if change.high < -allowed:
        return "regressed"
    if change.low >= -allowed:
        return "improved" if change.low > 0 else "pass"
    return "inconclusive"


def _row(item: str, name: str, change: Interval, images: int, allowed: float, shares: tuple[float, float]) -> Row:
    half = change.high - change.value
    verdict = decide_drop(change, allowed)
    if half and images < MIN_IMAGES:  # of a class, those that it is in
        verdict, change = "inconclusive", Interval(-math.inf, change.value, math.inf)
        reason = f"too early: {images} of at least {MIN_IMAGES} images"
    else:
        reason = f"{images:,} images, paired: they can show a drop of {100 * half:.2g} points"
        if verdict == "inconclusive":
            needed = images_needed(change, allowed, images)
            reason += f"; about {needed:,} like them would decide" if needed else "; too near the limit to decide"
    old, new = shares
    return Row(item, aspect(name), verdict, reason, "share", old, new, change, f"{-allowed:+.3f}")


def images_needed(change: Interval, allowed: float, images: int) -> int | None:
    """Estimate how many images would decide, if the difference stays the same; None if more than a million."""
    distance = abs(change.value + allowed)
    half = change.high - change.value
    needed = math.inf if not distance else images * (half / distance) ** 2
    return math.ceil(needed) if needed < 1e6 else None


def _points(change: Interval) -> str:
    return f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
