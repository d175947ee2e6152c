"""Records of an evaluation, for its run file."""

from __future__ import annotations

from segcore.core.records import AccuracyRecord, BenchmarkRecord, WorstRecord
from segcore.evaluation.datasets import Evaluation
from segcore.evaluation.protocols import PROTOCOLS
from segcore.inference.pipeline import Segmenter
from segcore.inference.recording import record_of
from segcore.inference.result import dominant_class


def records_of(
    evaluation: Evaluation, segmenter: Segmenter, worst: tuple[WorstRecord, ...] = ()
) -> tuple[BenchmarkRecord, ...]:
    """Return one record per protocol, with the pictures of the worst images."""
    labels = segmenter.labels
    return tuple(
        record_of(
            segmenter,
            kind="dataset",
            case=f"{result.name}.{result.protocol}",
            input_shape=(1, 3, segmenter.size, segmenter.size),  # at least: photos differ in their longer side
            accuracy=AccuracyRecord(
                dominant=dominant_class(evaluation.fractions, labels),
                fractions=evaluation.fractions,
                iou={name: result.scores[f"iou {name}"] for name in labels.names if f"iou {name}" in result.scores},
                miou=result.scores.get("miou"),
                pixel_accuracy=result.scores.get("pixel_accuracy"),
                metric=f"{result.protocol} on {result.images + len(result.failed)} images of {result.name} "
                f"(names {result.sha256[:12]}): {PROTOCOLS[result.protocol].description(labels)}",
            ),
            dataset=result.model_copy(update={"worst": worst}),
            order=order,
        )
        for order, result in enumerate(evaluation.results)
    )
