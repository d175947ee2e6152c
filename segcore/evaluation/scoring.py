"""Counts per image from pairs of photo and mask: decoding, forward pass and scoring overlap in threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segcore.core.errors import ProgramError, SegcoreError
from segcore.core.labels import VOC, ClassMap, LabelSet
from segcore.evaluation.metrics import (
    MATRIX_CLASSES,
    BoundaryCounts,
    ConfusionMatrix,
    Totals,
    boundary_counts,
    class_counts,
    class_totals,
    confusion_matrix,
)
from segcore.evaluation.protocols import Scale
from segcore.inference.decode import RgbImage, argmax_classes, check_logits, upsample_class_map
from segcore.inference.pipeline import Segmenter
from segcore.inference.result import Placement
from segcore.inputs.datasets import Dataset

Counts = npt.NDArray[np.int64]
"""Confusion matrix (above `MATRIX_CLASSES` classes: totals) and boundary counts of one image, one row of int64."""


def count_cells(labels: LabelSet) -> int:
    """Return the length of a row of counts: 504 for VOC."""
    return len(labels) * (_wide(labels) + 3)


def _wide(labels: LabelSet) -> int:
    return len(labels) if len(labels) <= MATRIX_CLASSES else 3


def split_counts(counts: Counts, labels: LabelSet = VOC) -> tuple[ConfusionMatrix | Totals, BoundaryCounts]:
    """Return matrix (..., n, n) or totals (..., n, 3), and boundary counts (..., n, 3), of rows of counts."""
    cells, lead = len(labels) * _wide(labels), counts.shape[:-1]
    first, boundary = counts[..., :cells], counts[..., cells:]
    return first.reshape(*lead, len(labels), _wide(labels)), boundary.reshape(*lead, len(labels), 3)


def split_totals(
    counts: Counts, labels: LabelSet, judged: frozenset[int] | None = None
) -> tuple[Totals, BoundaryCounts]:
    """Return totals (..., n, 3) and boundary counts (..., n, 3) of rows of counts, from which all figures follow.

    `judged` are the indices of the classes that a mask can have, None for all: predictions of the others are wrong
    where they are, and no score is theirs.
    """
    first, boundary = split_counts(counts, labels)
    totals = class_counts(first) if len(labels) <= MATRIX_CLASSES else first
    if judged is not None:
        others = [index for index in range(len(labels)) if index not in judged]
        totals, boundary = totals.copy(), boundary.copy()
        totals[..., others, 2] = boundary[..., others, 2] = 0
    return totals, boundary


class Predictor(Protocol):
    """What evaluation needs of a model; `segcore.Segmenter` provides it."""

    size: int
    """Shorter side of the model's input, pixels."""
    labels: LabelSet
    """The classes, which are also those of the masks."""

    def prepare(self, photo: RgbImage) -> torch.Tensor:
        """Return the input (3, h, w) for a photo, uint8 RGB (H, W, 3); called from several threads."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w) for inputs (B, 3, h, w) of one shape; called from one thread."""


@dataclass(frozen=True)
class ScoringTask:
    """What to score and how: everything but the model that a worker on another machine needs."""

    dataset: Dataset
    scales: tuple[Scale, ...]
    batch: int = 1
    workers: int = 2

    def chunks(self, done: frozenset[str] = frozenset()) -> list[tuple[int, ...]]:
        """Return the indices of the pairs still to be scored, in chunks.

        Batches never cross the border of a chunk, so every engine forms the same batches and gets the same logits.
        """
        step = max(16, 4 * self.batch)
        names = self.dataset.names
        chunks = (range(start, min(start + step, len(names))) for start in range(0, len(names), step))
        remaining = (tuple(index for index in chunk if names[index] not in done) for chunk in chunks)
        return [chunk for chunk in remaining if chunk]


@dataclass(frozen=True)
class ImageScore:
    """Counts of one image at each scale, or the reason why there are none."""

    name: str
    counts: dict[Scale, Counts] = field(default_factory=dict)
    forward_s: float = 0.0
    """Seconds of the forward pass; an equal share of the batch's."""
    error: str | None = None


@dataclass(frozen=True, eq=False)
class _Loaded:
    name: str
    target: ClassMap
    input: torch.Tensor
    place: Placement | None
    """How the logits reach the photo; None if they are those of the photo."""


def score_pair(
    target: ClassMap, logits: torch.Tensor, scale: Scale, labels: LabelSet = VOC, *, align_corners: bool = False
) -> Counts:
    """Return the counts, int64 (`count_cells`,), of a target (H, W) and logits (classes, h, w).

    At scale ``photo`` the logits are interpolated to (H, W), at ``model`` the target is resized to (h, w) by nearest.
    """
    if scale == "photo":
        prediction = upsample_class_map(logits, *target.shape, align_corners=align_corners)
    else:
        prediction = argmax_classes(logits[None])[0].cpu().numpy()
        if prediction.shape != target.shape:
            width_height = prediction.shape[::-1]
            target = np.asarray(Image.fromarray(target).resize(width_height, Image.Resampling.NEAREST))
    count = confusion_matrix if len(labels) <= MATRIX_CLASSES else class_totals
    boundary = boundary_counts(target, prediction, labels)
    return np.concatenate([count(target, prediction, labels).ravel(), boundary.ravel()])


def score_chunks(
    predictor: Predictor, task: ScoringTask, chunks: Sequence[Sequence[int]]
) -> Generator[ImageScore, None, None]:
    """Yield the scores of pairs as they complete; a pair that cannot be read yields its error.

    Photos are decoded in `task.workers` threads, one thread runs the model and one scores. At most about a chunk is in
    flight, so memory does not grow with the number of images.
    """
    waiting: deque[Future[list[ImageScore]]] = deque()
    with ThreadPoolExecutor(task.workers) as loaders, ThreadPoolExecutor(1) as runner, ThreadPoolExecutor(1) as scorer:
        try:
            for batch in _batches(predictor, task, chunks, loaders):
                if isinstance(batch, ImageScore):
                    yield batch
                    continue
                logits = runner.submit(_forward, predictor, batch)
                waiting.append(scorer.submit(_score_batch, batch, logits, task.scales, predictor.labels))
                while len(waiting) > 2:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for pool in (loaders, runner, scorer):
                pool.shutdown(wait=False, cancel_futures=True)


def _batches(
    predictor: Predictor, task: ScoringTask, chunks: Sequence[Sequence[int]], pool: ThreadPoolExecutor
) -> Iterator[list[_Loaded] | ImageScore]:
    """Yield inputs of one shape from one chunk, at most `task.batch` at a time, and failures as they occur."""
    indices = (index for chunk in chunks for index in chunk)
    ahead = deque(
        pool.submit(_load, predictor, task, index) for index in islice(indices, 2 * task.batch + task.workers)
    )
    for chunk in chunks:
        groups: dict[torch.Size, list[_Loaded]] = {}
        for _ in chunk:
            loaded = ahead.popleft().result()
            ahead.extend(pool.submit(_load, predictor, task, index) for index in islice(indices, 1))
            if isinstance(loaded, ImageScore):
                yield loaded
                continue
            group = groups.setdefault(loaded.input.shape, [])
            group.append(loaded)
            if len(group) == task.batch:
                yield groups.pop(loaded.input.shape)
        yield from groups.values()


def _load(predictor: Predictor, task: ScoringTask, index: int) -> _Loaded | ImageScore:
    name = task.dataset.names[index]
    try:
        photo, target = task.dataset.load(index)
        place = predictor.place(photo) if isinstance(predictor, Segmenter) else None
        return _Loaded(name, target, predictor.prepare(photo), place)
    except SegcoreError as error:
        return ImageScore(name, error=str(error))


def _forward(predictor: Predictor, batch: list[_Loaded]) -> tuple[list[torch.Tensor | ProgramError], float]:
    """Return the output of each image, or the error of a program that failed on it, and the seconds of each."""
    start = time.perf_counter()
    inputs = torch.stack([loaded.input for loaded in batch])
    outputs: list[torch.Tensor | ProgramError]
    try:
        logits = predictor.forward(inputs)
        outputs = list(
            logits if isinstance(predictor, Segmenter) else check_logits(logits, inputs.shape, labels=predictor.labels)
        )
    except ProgramError as error:
        outputs = [error] if len(batch) == 1 else [_forward(predictor, [loaded])[0][0] for loaded in batch]
    return outputs, (time.perf_counter() - start) / len(batch)


def _counts(loaded: _Loaded, output: torch.Tensor, scale: Scale, labels: LabelSet) -> Counts:
    """Return the counts of one image, with the padding of its input cut off."""
    if loaded.place is None:
        return score_pair(loaded.target, output, scale, labels)
    cut = loaded.place.before_photo if scale == "photo" else loaded.place.at_model_scale
    align = loaded.place.align_corners
    return score_pair(loaded.target, cut(output[None])[0], scale, labels, align_corners=align)


def _score_batch(
    batch: list[_Loaded],
    run: Future[tuple[list[torch.Tensor | ProgramError], float]],
    scales: tuple[Scale, ...],
    labels: LabelSet,
) -> list[ImageScore]:
    outputs, seconds = run.result()
    scores = []
    for loaded, row in zip(batch, outputs, strict=True):
        try:
            if isinstance(row, ProgramError):
                raise row
            counts = {scale: _counts(loaded, row, scale, labels) for scale in scales}
            scores.append(ImageScore(loaded.name, counts, seconds))
        except SegcoreError as error:
            scores.append(ImageScore(loaded.name, error=f"{loaded.name}: {error}"))
    return scores
