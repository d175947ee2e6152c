from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from segcore.core.limits import Limits
from segcore.core.records import AccuracyRecord, DatasetRecord, Run
from segcore.core.scores import MEANS, score_names
from segcore.judgement.compare import compare
from segcore.judgement.gate import GateResult, judge
from segcore.judgement.gate.images import ERROR, error_at, judge_pairs, look_sizes
from segcore.judgement.paired_accuracy import (
    ImagePairs,
    image_differences,
    image_pairs,
    images_by_class,
    pairs_of,
    score_changes,
    total_scores,
)
from tests.support.judged_runs import a_run, an_item
from tools.accuracy_simulation import JUDGED, sample, simulate, true_changes

CLASSES = ("background", "cat", "dog")
Counts = dict[str, dict[str, tuple[int, ...]]]


def counts(images: int, quality: float = 0.8, seed: int = 0) -> Counts:
    """Images of 10,000 pixels with background and a cat or a dog, of which about a share is found."""
    masks, rng = np.random.default_rng(0), np.random.default_rng(seed)
    found: Counts = {}
    for n in range(images):
        size, label = int(masks.integers(500, 5000)), CLASSES[1 + n % 2]
        hit = int(size * np.clip(rng.normal(quality, 0.05) + masks.normal(0, 0.1), 0, 1))
        found[f"{n:04}"] = {
            "background": (10_000 - size, 10_000 - size, 10_000 - hit, 90, 100, 120),
            label: (hit, size, hit, hit // 20, size // 20, hit // 20),
        }
    return found


def dataset(found: Counts, **fields: Any) -> DatasetRecord:
    base = {"name": "voc-val", "sha256": "aa", "images": len(found), "protocol": "p", "matrix": ((1,),)}
    record = DatasetRecord.model_validate(base | {"scores": {}, "intervals": {}, "counts": found} | fields)
    pairs = image_pairs(record, record)
    shares = zip(score_names(pairs.classes), total_scores(pairs.before, per_image=pairs.per_image), strict=True)
    scores = {name: float(share) for name, share in shares if not math.isnan(share)}
    return record.model_copy(update={"scores": scores, "intervals": dict.fromkeys(scores, (0.0, 1.0))})


def evaluated(found: Counts, name: str = "run", accuracy: dict[str, Any] | None = None, **fields: Any) -> Run:
    record = dataset(found, **fields)
    said = {
        "miou": record.scores["miou"],
        "pixel_accuracy": record.scores["pixel_accuracy"],
        "iou": {label: record.scores[f"iou {label}"] for label in CLASSES if f"iou {label}" in record.scores},
        **(accuracy or {}),
    }
    info = AccuracyRecord(dominant="cat", fractions={}, **said)
    return a_run(an_item([1.0], kind="dataset", case="voc", dataset=record, accuracy=info), name=name)


def gate(before: Run, after: Run, **limits: Any) -> GateResult:
    return judge([before], [after], Limits(**limits))


def verdicts(result: GateResult) -> dict[str, str]:
    return {row.aspect: row.verdict for row in result.rows}


def test_the_difference_is_judged_with_an_interval_image_by_image() -> None:
    before, after = evaluated(counts(300)), evaluated(counts(300, 0.7, seed=1))
    result = gate(before, after)
    assert result.exit_code == 1
    row = next(row for row in result.rows if row.aspect == "mIoU")
    assert (row.verdict, row.unit, row.limit) == ("regressed", "share", "-0.010")
    assert row.change is not None
    assert row.change.low < row.change.value < row.change.high < -0.01
    assert row.old is not None
    assert row.new is not None
    assert row.change.value == pytest.approx(row.new - row.old)
    assert gate(before, after, max_miou_drop=0.5, max_iou_drop=0.5).exit_code == 0
    assert verdicts(gate(after, before))["mIoU"] == "improved"


def test_equal_predictions_pass_on_any_number_of_images() -> None:
    for images in (2, 5, 100):
        result = gate(evaluated(counts(images)), evaluated(counts(images)))
        assert (result.exit_code, set(verdicts(result).values())) == (0, {"pass"})


@pytest.mark.parametrize(
    ("images", "quality", "limits", "wanted"),
    [
        (300, 0.8, {"max_miou_drop": 0.02, "max_iou_drop": 0.02}, "pass"),
        (40, 0.795, {}, "inconclusive"),
        (12, 0.2, {}, "inconclusive"),
        (300, 0.6, {}, "regressed"),
    ],
)
def test_the_number_of_images_decides(images: int, quality: float, limits: dict[str, float], wanted: str) -> None:
    result = gate(evaluated(counts(images)), evaluated(counts(images, quality, seed=1)), **limits)
    assert verdicts(result)["mIoU"] == wanted


def test_too_few_images_show_no_interval() -> None:
    rows = gate(evaluated(counts(12)), evaluated(counts(12, 0.5, seed=1))).rows
    assert {(row.reason, row.change is not None and math.isfinite(row.change.low)) for row in rows} == {
        ("too early: 12 of at least 20 images", False)
    }


def test_classes_are_judged_both_ways_only_by_a_limit_of_their_own() -> None:
    before, after = evaluated(counts(60)), evaluated(counts(60, 0.79, seed=1))
    result = gate(before, after, max_miou_drop=0.9)
    assert verdicts(result).keys() == {"mIoU", "pixel accuracy", "boundary IoU"}
    assert [note.partition("; change in points: ")[0] for note in result.notes] == [
        f"{before.benchmarks[0].info.key}: too few images to judge 3 classes, which have no max_iou_drop of their own"
    ]
    explicit = gate(before, after, max_miou_drop=0.9, max_iou_drop=0.01)
    assert (explicit.exit_code, verdicts(explicit)["IoU cat"]) == (3, "inconclusive")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda found: found.pop("0003"), "1 images in the baseline alone: 0003"),
        (lambda found: found.update(x=found["0001"]), "1 images in the current run alone: x"),
        (
            lambda found: found["0004"].update(background=(1, 2, 3, 0, 0, 0)),
            "1 images with another mask: 0004",
        ),
    ],
)
def test_other_images_are_incomparable_and_named(change: Any, words: str) -> None:
    found = counts(30)
    change(found)
    (row,) = gate(evaluated(counts(30)), evaluated(found)).rows
    assert (row.verdict, row.reason) == ("incomparable", words)


@pytest.mark.parametrize(
    ("accuracy", "scores"), [({"miou": 0.99}, {}), ({"iou": {"cat": 0.99}}, {}), ({}, {"scores": {"dice": 0.99}})]
)
def test_counts_that_contradict_the_scores_are_no_pass(accuracy: dict[str, Any], scores: dict[str, Any]) -> None:
    run = evaluated(counts(30), accuracy=accuracy)
    info = run.benchmarks[0].info
    if scores and info.dataset:
        changed = info.dataset.model_copy(update={"scores": info.dataset.scores | scores["scores"]})
        item = run.benchmarks[0].model_copy(update={"info": info.model_copy(update={"dataset": changed})})
        run = run.model_copy(update={"benchmarks": (item,)})
    (row,) = gate(evaluated(counts(30)), run).rows
    assert row.verdict == "missing"
    assert "the counts of its images do not give its" in row.reason


def test_runs_without_counts_are_judged_by_the_difference_alone() -> None:
    without = [evaluated(counts(30, q), name="old") for q in (0.8, 0.6)]
    runs = []
    for run in without:
        info = run.benchmarks[0].info
        assert info.dataset
        bare = info.model_copy(update={"dataset": info.dataset.model_copy(update={"counts": {}})})
        runs.append(run.model_copy(update={"benchmarks": (run.benchmarks[0].model_copy(update={"info": bare}),)}))
    row = next(row for row in judge([runs[0]], [runs[1]], Limits()).rows if row.aspect == "mIoU")
    assert (row.verdict, row.change and row.change.low == row.change.high) == ("regressed", True)


def loop_change(pairs: ImagePairs) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Differences and pseudo-values in a plain loop."""

    def figures(rows: list[int]) -> np.ndarray[Any, Any]:
        part = [total_scores(each[rows], per_image=pairs.per_image) for each in (pairs.before, pairs.after)]
        return np.asarray(part[1] - part[0])

    n = len(pairs.names)
    whole = figures(list(range(n)))
    return whole, np.stack([n * whole - (n - 1) * figures([k for k in range(n) if k != left]) for left in range(n)])


@pytest.mark.parametrize("matrix", [((1,),), None])
def test_intervals_equal_those_of_a_plain_loop(matrix: Any) -> None:
    one, other = dataset(counts(40), matrix=matrix), dataset(counts(40, 0.7, seed=1), matrix=matrix)
    pairs = image_pairs(one, other)
    whole, pseudo = loop_change(pairs)
    changes = score_changes(pairs, ERROR)
    for column, name in enumerate(score_names(pairs.classes)):
        if name in MEANS:
            values = pseudo[:, column]
            z = (values - values.mean()) / values.std()
            assert min(2 * 40 / ((z**4).mean() - 1), 39) > 1
            interval = changes[name]
            assert interval.value == pytest.approx(whole[column])
            assert interval.low < min(whole[column], values.mean())
            middle = abs(whole[column] - values.mean())
            half = (interval.high - interval.low - middle) / 2
            error = values.std(ddof=1) / math.sqrt(40)
            assert 1.96 * error < half < 3.2 * error


def test_images_are_counted_by_class_and_compared_by_name() -> None:
    old, new = counts(5), counts(5, 0.7)
    assert images_by_class(image_pairs(dataset(old), dataset(new))) == {
        "iou background": 5,
        "iou cat": 3,
        "iou dog": 2,
    }
    assert image_differences(old, dict(reversed(new.items()))) == []  # type: ignore[arg-type]  # validated in records


@pytest.mark.parametrize(("images", "sizes"), [(1000, (250, 500, 750, 1000)), (30, (23, 30)), (3, (3,)), (20, (20,))])
def test_looks_spend_the_error_once(images: int, sizes: tuple[int, ...]) -> None:
    assert look_sizes(images) == sizes
    assert sum(error_at(size, images) for size in sizes) == pytest.approx(ERROR)


def test_compare_shows_the_interval_of_the_difference() -> None:
    table = compare([evaluated(counts(100), name="a"), evaluated(counts(100, 0.7, seed=1), name="b")])
    miou = next(line for line in table.scores if line.score == "miou")
    cell = miou.cells["b cpu"]
    assert cell.difference_low is not None
    assert cell.difference is not None
    assert cell.difference_high is not None
    assert cell.difference_low < cell.difference < cell.difference_high < 0
    assert miou.cells["a cpu"].difference_low is None


@pytest.mark.slow
@pytest.mark.parametrize("looks", [False, True])
def test_error_rates_at_the_limit_are_nominal(looks: bool) -> None:
    pairs = image_pairs(dataset(counts(200)), dataset(counts(200, 0.7, seed=1)))
    truth, rng = true_changes(pairs), np.random.default_rng(0)
    limits = {name: -change for name, change in truth.items()}
    rates = simulate(lambda: sample(pairs, 80, rng), limits, 300, looks=looks)
    for name in JUDGED:
        for verdict in ("pass", "regressed"):
            assert rates[name].verdicts[verdict] <= 0.025 * 300 + 3 * math.sqrt(0.025 * 300), (name, verdict)
    real = simulate(lambda: sample(pairs, 80, rng), dict.fromkeys(truth, 0.01), 50, looks=looks)
    assert real["miou"].verdicts["regressed"] == 50


def test_no_image_is_missing() -> None:
    pairs = pairs_of((), {}, {}, per_image=False)
    assert [row.verdict for row in judge_pairs("x", pairs, Limits(), ERROR).rows] == ["missing"]
