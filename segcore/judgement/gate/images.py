"""Judge the scores of a dataset, compared image by image with the baseline's.

Another sample of images would give other scores, so each difference has an interval, with verdicts as for speed: a
drop wholly beyond its limit has regressed, one wholly within has passed, and between them there are too few images.
The classes are many, and some are rare: where nobody set a limit of theirs, a class with too few images is
named in a note, and does not leave the gate undecided.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segcore.core.limits import Limits
from segcore.core.records import BenchmarkRecord, DatasetRecord
from segcore.core.scores import MEANS, score_names, score_words
from segcore.judgement.gate.verdict import Row, Verdict, decide
from segcore.judgement.paired_accuracy import (
    MIN_CLASS_IMAGES,
    MIN_IMAGES,
    ImagePairs,
    dense,
    image_pairs,
    images_by_class,
    score_changes,
    total_scores,
)
from segcore.judgement.sequential import error_of_look
from segcore.judgement.statistics import CONFIDENCE, Interval

ERROR = (1 - CONFIDENCE) / 2
LOOKS = (0.25, 0.5, 0.75, 1.0)
"""Shares of the images after which `segcore evaluate --against` may decide."""
POWER = 3.0
"""Of the spent error: the early looks, which cost the last one some width, find large changes only."""
_JUDGED = ("miou", "pixel_accuracy", "boundary_iou")
"""Scores that are judged besides the IoU of the classes."""
_ROUNDING = 1e-6
_SHOWN = 5


@dataclass(frozen=True)
class ImageVerdicts:
    """What follows from the images of one item."""

    rows: tuple[Row, ...]
    unjudged: tuple[str, ...] = ()
    """Classes without a limit of their own whose drop the images can neither confirm nor rule out, worst first."""


def has_counts(record: BenchmarkRecord) -> bool:
    """Return whether every scored image of a dataset has its counts."""
    dataset = record.dataset
    return dataset is not None and 1 < dataset.images == len(dataset.counts)


def counts_problem(record: BenchmarkRecord) -> str:
    """Return why the counts of a run contradict its scores; empty if they do not."""
    dataset, accuracy = record.dataset, record.accuracy
    if dataset is None or accuracy is None or not has_counts(record):
        return ""
    classes = tuple(dict.fromkeys(name for image in dataset.counts.values() for name in image))
    totals = total_scores(dense(list(dataset.counts.values()), classes), per_image=dataset.per_image)
    summed = dict(zip(score_names(classes), totals.tolist(), strict=True))
    said = [(name, share, summed.get(name, math.nan)) for name, share in dataset.scores.items()]
    said += [
        (name, accuracy.scores.get(score_words(name), math.nan), share)
        for name, share in summed.items()
        if score_words(name) in accuracy.scores
    ]
    wrong = [name for name, one, other in said if not abs(one - other) <= _ROUNDING]
    return f"the counts of its images do not give its {wrong[0].replace('_', ' ')}" if wrong else ""


def judge_images(old: DatasetRecord, new: BenchmarkRecord, limits: Limits) -> ImageVerdicts:
    """Judge the scores of one item, which has counts of the same images as `old`; see `judge_pairs`."""
    assert new.dataset
    return judge_pairs(new.key, image_pairs(old, new.dataset), limits, ERROR)


def judge_pairs(item: str, pairs: ImagePairs, limits: Limits, error: float) -> ImageVerdicts:
    """Judge the scores of an item: are they lower than allowed on images like these?

    Classes without a limit of their own are not judged if their images are too few. `error` bounds the probability of
    each wrong verdict.
    """
    if not pairs.names:
        return ImageVerdicts((Row(item, "item", "missing", "no image was scored"),))
    totals = (total_scores(counts, per_image=pairs.per_image).tolist() for counts in (pairs.before, pairs.after))
    names = score_names(pairs.classes)
    before, after = (dict(zip(names, shares, strict=True)) for shares in totals)
    changes, images = score_changes(pairs, error), images_by_class(pairs)
    rows, unjudged = [], []
    for name, change in changes.items():  # a class that one of them lacks is not in the masks
        if name in MEANS and name not in _JUDGED:
            continue
        enough = (images[name], MIN_CLASS_IMAGES) if name in images else (len(pairs.names), MIN_IMAGES)
        allowed = limits.max_miou_drop if name in ("miou", "boundary_iou") else limits.max_iou_drop
        row = _row(item, name, change, enough, allowed, (before[name], after[name]))
        if row.verdict == "inconclusive" and name not in MEANS and "max_iou_drop" not in limits.model_fields_set:
            unjudged.append((change.value, f"{row.aspect} {_points(change)}"))
        else:
            rows.append(row)
    return ImageVerdicts(tuple(rows), tuple(words for _, words in sorted(unjudged)))


def decide_drop(change: Interval, allowed: float) -> Verdict:
    """Compare the interval of after - before with the largest allowed drop."""
    return decide(Interval(-change.high, -change.value, -change.low), allowed, improved_below=0.0)


def _row(
    item: str, name: str, change: Interval, enough: tuple[int, int], allowed: float, shares: tuple[float, float]
) -> Row:
    images, least = enough  # for a class, those with it in the mask
    half = change.high - change.value
    verdict = decide_drop(change, allowed)
    if half and images < least:
        verdict, change = "inconclusive", Interval(-math.inf, change.value, math.inf)
        reason = f"too early: {images} of at least {least} images"
    elif half > 1:
        verdict, change = "inconclusive", Interval(-math.inf, change.value, math.inf)
        reason = f"{images} images differ too much to tell"
    else:
        reason = f"{images:,} images, paired: they can show a drop of {100 * half:.2g} points"
        if verdict == "inconclusive":
            needed = images_needed(change, allowed, images)
            reason += f"; about {needed:,} like them would decide" if needed else "; too near the limit to decide"
    old, new = shares
    return Row(item, score_words(name), verdict, reason, "share", old, new, change, f"{-allowed:+.3f}")


def images_needed(change: Interval, allowed: float, images: int) -> int | None:
    """Estimate how many images would decide, if the difference stays the same; None if more than a million."""
    distance = abs(change.value + allowed)
    half = change.high - change.value
    needed = math.inf if not distance else images * (half / distance) ** 2
    return math.ceil(needed) if needed < 1e6 else None


def unjudged_note(verdicts: Sequence[ImageVerdicts]) -> Iterator[str]:
    """Yield a note on the classes that are not judged, with the largest drops."""
    classes = list(dict.fromkeys(words for each in verdicts for words in each.unjudged))
    if classes:
        more = f" and {len(classes) - _SHOWN} more" if len(classes) > _SHOWN else ""
        yield (
            f"too few images to judge {len(classes)} classes, which have no max_iou_drop of their own; "
            f"change in points: {', '.join(classes[:_SHOWN])}{more}"
        )


def _points(change: Interval) -> str:
    if change.high - change.low > 1:  # says nothing
        return f"{100 * change.value:+.1f}"
    return f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"


def look_sizes(images: int) -> tuple[int, ...]:
    """Return the numbers of images after which to look, the last of them all."""
    sizes = (math.ceil(share * images) for share in LOOKS)
    return tuple(dict.fromkeys(size for size in sizes if size >= min(MIN_IMAGES, images)))


def error_at(size: int, images: int) -> float:
    """Return the error that one of `look_sizes` may add, so that all looks together err at most `ERROR`."""
    return error_of_look(size, look_sizes(images), ERROR, POWER)
