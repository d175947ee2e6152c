"""Accuracy over a dataset, under one or several protocols, on this machine or on many."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segcore.core.errors import UsageError
from segcore.core.records import AccuracyRecord, BenchmarkRecord, DatasetRecord, WorstRecord
from segcore.core.scores import score_names
from segcore.evaluation.journal import Journal
from segcore.evaluation.protocols import PROTOCOLS, Scale, ScoringProtocol, choose
from segcore.evaluation.scoring import ImageScore, Predictor, ScoringTask, count_cells, score_chunks
from segcore.evaluation.tally import Sums, Tally
from segcore.inference import models
from segcore.inference.pipeline import Segmenter
from segcore.inference.recording import record_of
from segcore.inference.result import dominant_class
from segcore.inputs.datasets import Dataset, fit

Engine = Callable[[ScoringTask, Sequence[Sequence[int]]], Generator[ImageScore, None, None]]
"""Scores the pairs in chunks of indices, each once, in any order."""

_PUBLISHED = ("coco-val", 5000, "torchvision-references")
"""Dataset, number of images and protocol of torchvision's published figures ("COCO-val2017-VOC-labels")."""


@dataclass(frozen=True)
class ScoringOptions:
    """Options that do not change figures, except by the rounding of a larger batch.

    Raises:
        UsageError: a value is too small.
    """

    batch: int = 1
    """Photos of one shape that go through the model together."""
    workers: int = 2
    """Decoding threads."""
    worst: int = 10
    """Number of worst images to name."""
    journal: Path | None = None
    """File that keeps the score of every image, so that the evaluation can be resumed."""
    resume: bool = False
    """Continue from the journal instead of starting a new one."""

    def __post_init__(self) -> None:
        if self.batch < 1 or self.workers < 1 or self.worst < 0:
            raise UsageError(
                "batch and workers must be at least 1, worst at least 0; "
                f"found {self.batch}, {self.workers} and {self.worst}"
            )


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation."""

    results: tuple[DatasetRecord, ...]
    """One per protocol, in the order given."""
    fractions: dict[str, float]
    """Share of the scored pixels by predicted class, largest first."""
    wall_s: float
    forward_s: float
    """Seconds of the forward pass, summed over all workers and including resumed images."""
    resumed: int
    """Number of images taken from the journal of an earlier run."""

    def __getitem__(self, protocol: str) -> DatasetRecord:
        """Return the result under one protocol.

        Raises:
            UsageError: the protocol was not scored.
        """
        for result in self.results:
            if result.protocol == protocol:
                return result
        raise UsageError(f"not scored under {protocol!r}, but {', '.join(result.protocol for result in self.results)}")

    @property
    def images(self) -> int:
        """Number of images scored."""
        return self.results[0].images

    @property
    def failed(self) -> dict[str, str]:
        """Reason by name of the images that could not be scored."""
        return self.results[0].failed


def evaluate(
    segmenter: Predictor,
    dataset: Dataset,
    *,
    protocols: Sequence[str] = ("voc-original",),
    options: ScoringOptions = ScoringOptions(),
    engine: Engine | None = None,
    progress: Callable[[int, float], None] | None = None,
    save: Callable[[Evaluation], None] | None = None,
    enough: Callable[[ImageScore], bool] | None = None,
) -> Evaluation:
    """Score a model on a dataset.

    Args:
        segmenter: a `Segmenter` or any other `Predictor`.
        dataset: see `segcore.inputs.datasets.open_dataset`.
        protocols: names of `segcore.evaluation.protocols.PROTOCOLS`, all scored in one pass.
        options: batch, threads and journal.
        engine: a `segcore.evaluation.ray_engine.RayEngine`; this process if None.
        progress: called after each image with the number of images done and the running mIoU of the first protocol.
        save: called with the result before the journal is marked as finished; if it fails, the evaluation can be
            resumed.
        enough: called with each score; if it returns True, no more images are scored. Images are then scored in random
            order (`Dataset.shuffled`), and the result is of those that were.

    Raises:
        UsageError: a protocol is unknown, or requires another size; or the dataset has classes that are not the
            model's, and nothing says what they count as.
        RecordError: the journal cannot be used.
        OutputError: the journal cannot be written.
    """
    start = time.perf_counter()
    chosen = choose(protocols, segmenter.size)
    labels = segmenter.labels
    dataset = fit(dataset, labels)
    scales = tuple(dict.fromkeys(protocol.scale for protocol in chosen))
    task = ScoringTask(dataset.shuffled() if enough else dataset, scales, options.batch, options.workers)
    tally, resumed = Tally(chosen, options.worst, labels, dataset.judged), 0
    with ExitStack() as stack:
        journal = None
        if options.journal is not None:
            identity = _identity(segmenter, dataset, scales)
            opened = Journal(options.journal, identity, options.resume, count_cells(labels))
            journal = stack.enter_context(closing(opened))
        with closing(_scores(task, journal, engine or partial(score_chunks, segmenter))) as scores:
            for score, is_new in scores:
                tally.add(score)
                resumed += not is_new
                if progress and is_new:
                    progress(tally.seen, tally.running_miou)
                if enough and enough(score):
                    dataset = dataset.only(tally.names)
                    break
        if tally.seen != len(dataset):
            raise RuntimeError(f"{len(dataset)} images asked for, {tally.images} + {len(tally.failed)} came back")
        evaluation = Evaluation(
            results=tuple(_result(segmenter, dataset, tally, sums) for sums in tally.sums),
            fractions=tally.fractions(),
            wall_s=time.perf_counter() - start,
            forward_s=tally.forward_s,
            resumed=resumed,
        )
        if save:
            save(evaluation)
        if journal:
            journal.finish()
    return evaluation


def _scores(
    task: ScoringTask, journal: Journal | None, engine: Engine
) -> Generator[tuple[ImageScore, bool], None, None]:
    """Yield the scores in the journal, then those of the engine, which are added to it; the flag marks the latter."""
    done: set[str] = set()
    for score in journal.scores() if journal else ():
        if score.name not in done:  # also in journals that two processes wrote
            done.add(score.name)
            yield score, False
    with closing(engine(task, task.chunks(frozenset(done)))) as scores:
        for score in scores:
            if journal:
                journal.append(score)
            yield score, True


def _identity(segmenter: Predictor, dataset: Dataset, scales: Sequence[Scale]) -> Mapping[str, object]:
    """Return what determines the scores of an image, up to rounding."""
    model: dict[str, object] = {
        "model": type(segmenter).__name__,
        "size": segmenter.size,
        "labels": segmenter.labels.digest,
    }
    if isinstance(segmenter, Segmenter):
        model |= {"model": segmenter.model_name, "weights": segmenter.weights.sha256}
        model |= {"runtime": segmenter.runtime, "precision": segmenter.precision}
    if label_map := dataset.label_map:
        model |= {"map": label_map.digest} if label_map.origin == "file" else {}
    model |= {"masks": dataset.masks} if dataset.masks else {}
    return {**model, "dataset": dataset.name, "images": dataset.sha256, "scales": list(scales)}


def _result(segmenter: Predictor, dataset: Dataset, tally: Tally, sums: Sums) -> DatasetRecord:
    figures = zip(score_names(segmenter.labels.names), sums.scores().tolist(), sums.intervals().T.tolist(), strict=True)
    known = {name: (value, ends) for name, value, ends in figures if not np.isnan(value)}
    return DatasetRecord(
        name=dataset.name,
        sha256=dataset.sha256,
        label_map=dataset.map_in_file,
        masks=dataset.masks,
        images=tally.images,
        failed=tally.failed,
        protocol=sums.protocol.name,
        scores={name: value for name, (value, _) in known.items()},
        intervals={name: (low, high) for name, (_, (low, high)) in known.items()},
        published=published_figures(segmenter, dataset, sums.protocol),
        matrix=sums.matrix(),
        counts=tally.counts_at(sums.protocol.scale),
        worst=tuple(WorstRecord(name=name, miou=miou) for miou, name in tally.worst),
    )


def published_figures(segmenter: Predictor, dataset: Dataset, protocol: ScoringProtocol) -> dict[str, float]:
    """Return torchvision's published figures by name of `score_names`, or none if they do not apply.

    They apply to the pretrained weights on all of COCO val2017 under torchvision's own protocol.
    """
    if not isinstance(segmenter, Segmenter) or segmenter.weights.kind != "pretrained":
        return {}
    if (dataset.name, len(dataset), protocol.name) != _PUBLISHED:
        return {}
    names = {"miou": "miou", "pixel_acc": "pixel_accuracy"}
    published = models.listed(segmenter.model_name).published
    return {names[name]: percent / 100 for name, percent in published.items() if name in names}


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
