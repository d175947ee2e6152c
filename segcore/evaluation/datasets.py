"""Accuracy over a whole dataset, under one or several protocols, on this machine or on many."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from segcore.core.errors import UsageError
from segcore.core.labels import VOC_CLASSES
from segcore.core.records import DatasetRecord, WorstRecord
from segcore.evaluation.journal import Journal
from segcore.evaluation.metrics import SCORES
from segcore.evaluation.protocols import Protocol, choose
from segcore.evaluation.scoring import ImageScore, Job, Predictor, score_chunks
from segcore.evaluation.tally import Sums, Tally, scale_of
from segcore.inference import models
from segcore.inference.pipeline import Segmenter
from segcore.inputs.datasets import Dataset

__all__ = ["Evaluation", "Predictor", "evaluate"]

Engine = Callable[[Job, Sequence[Sequence[int]]], Generator[ImageScore, None, None]]
"""Scores the pairs of chunks of indices, each once, in any order."""

_PUBLISHED = ("coco-val", 5000, "torchvision-references")
"""Dataset, its number of images, and protocol of torchvision's published figures ("COCO-val2017-VOC-labels")."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found."""

    results: tuple[DatasetRecord, ...]
    """One per protocol, in the order asked for."""
    fractions: dict[str, float]
    """Share of the scored pixels by predicted class, largest first."""
    wall_s: float
    forward_s: float
    """Seconds spent in the forward pass by all workers together; of resumed images too."""
    resumed: int
    """How many images an earlier, interrupted run had scored."""

    def __getitem__(self, protocol: str) -> DatasetRecord:
        """Return the result under one protocol.

        Raises:
            UsageError: it was not scored under that.
        """
        for result in self.results:
            if result.protocol == protocol:
                return result
        raise UsageError(f"not scored under {protocol!r}, but {', '.join(result.protocol for result in self.results)}")

    @property
    def images(self) -> int:
        """How many images were scored."""
        return self.results[0].images

    @property
    def failed(self) -> dict[str, str]:
        """Reason by name of what could not be scored."""
        return self.results[0].failed


def evaluate(
    segmenter: Predictor,
    dataset: Dataset,
    *,
    protocols: Sequence[str] = ("voc-original",),
    batch: int = 1,
    workers: int = 2,
    worst: int = 10,
    engine: Engine | None = None,
    journal: Path | None = None,
    resume: bool = False,
    progress: Callable[[int, float], None] | None = None,
) -> Evaluation:
    """Score a model on a dataset.

    Args:
        segmenter: a `Segmenter`, or whatever does as `Predictor` says.
        dataset: see `segcore.inputs.datasets.open_dataset`.
        protocols: names of `segcore.evaluation.protocols.PROTOCOLS`; several are scored in one pass.
        batch: photos of one shape that go through the model together. Logits, and with them pixels on the verge, can
            differ in rounding from one size to another.
        workers: threads that decode.
        worst: how many of the worst images to name.
        engine: who does the work: this process where None, or a `segcore.evaluation.ray_engine.RayEngine`.
        journal: file that remembers every image scored.
        resume: go on from the journal instead of starting anew.
        progress: called with the number of images done, and the mIoU of the first protocol so far.

    Raises:
        UsageError: an unknown protocol, or one that demands another size.
        RecordError: the journal cannot be used.
    """
    chosen = choose(protocols, segmenter.size)
    if batch < 1 or workers < 1 or worst < 0:
        raise UsageError(f"batch and workers are at least 1, worst at least 0; found {batch}, {workers} and {worst}")
    job = Job(dataset, tuple(dict.fromkeys(scale_of(protocol) for protocol in chosen)), batch, workers)
    tally, done, start = Tally(chosen, worst), set(), time.perf_counter()
    with ExitStack() as stack:
        book = stack.enter_context(closing(Journal(journal, _identity(segmenter, job), resume))) if journal else None
        for score in book.scores() if book else ():
            tally.add(score)
            done.add(score.name)
        work = (engine or partial(score_chunks, segmenter))(job, job.chunks(frozenset(done)))
        for score in stack.enter_context(closing(work)):
            if book:
                book.append(score)
            tally.add(score)
            if progress:
                progress(tally.images + len(tally.failed), tally.running_miou)
    if tally.images + len(tally.failed) != len(dataset):
        raise RuntimeError(f"{len(dataset)} images asked for, {tally.images} + {len(tally.failed)} came back")
    shares = tally.predicted / max(1, tally.predicted.sum())
    return Evaluation(
        results=tuple(_result(segmenter, dataset, tally, sums) for sums in tally.sums),
        fractions={VOC_CLASSES[i]: float(shares[i]) for i in np.argsort(-shares, kind="stable") if shares[i] > 0},
        wall_s=time.perf_counter() - start,
        forward_s=tally.forward_s,
        resumed=len(done),
    )


def _identity(segmenter: Predictor, job: Job) -> Mapping[str, object]:
    """What decides on the scores of an image, up to rounding."""
    about: dict[str, object] = {"model": type(segmenter).__name__, "size": segmenter.size}
    if isinstance(segmenter, Segmenter):
        about |= {"model": segmenter.model_name, "weights": segmenter.weights.sha256}
        about |= {"runtime": segmenter.runtime, "precision": segmenter.precision}
    return {**about, "dataset": job.dataset.name, "images": job.dataset.sha256, "scales": list(job.scales)}


def _result(segmenter: Predictor, dataset: Dataset, tally: Tally, sums: Sums) -> DatasetRecord:
    found = dict(zip(SCORES, sums.scores().tolist(), strict=True))
    ends = dict(zip(SCORES, sums.intervals().T.tolist(), strict=True))
    known = [name for name, value in found.items() if not np.isnan(value)]
    return DatasetRecord(
        name=dataset.name,
        sha256=dataset.sha256,
        images=tally.images,
        failed=tally.failed,
        protocol=sums.protocol.name,
        scores={name: found[name] for name in known},
        intervals={name: (ends[name][0], ends[name][1]) for name in known},
        published=published_figures(segmenter, dataset, sums.protocol),
        matrix=sums.matrix(),
        worst=tuple(WorstRecord(name=name, miou=miou) for miou, name in tally.worst),
    )


def published_figures(segmenter: Predictor, dataset: Dataset, protocol: Protocol) -> dict[str, float]:
    """Return torchvision's published figures by name of `SCORES`; empty where they are not about this.

    They apply to the pretrained weights, on all of COCO val2017, under torchvision's own protocol.
    """
    if not isinstance(segmenter, Segmenter) or segmenter.weights.kind != "pretrained":
        return {}
    if (dataset.name, len(dataset), protocol.name) != _PUBLISHED:
        return {}
    names = {"miou": "miou", "pixel_acc": "pixel_accuracy"}
    published = models.weights_status(segmenter.model_name).published
    return {names[name]: percent / 100 for name, percent in published.items() if name in names}
