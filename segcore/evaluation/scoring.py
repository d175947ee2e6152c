"""From pairs of photo and mask to counts per image: decoding, forward pass and scoring, overlapping in threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segcore.core.errors import SegcoreError
from segcore.core.labels import NUM_CLASSES
from segcore.evaluation.metrics import BoundaryCounts, ConfusionMatrix, boundary_counts, confusion_matrix
from segcore.inference.decode import ClassMap, RgbImage, argmax_classes, upsample_class_map
from segcore.inputs.datasets import Dataset

Scale = Literal["photo", "model"]
Counts = npt.NDArray[np.int64]
"""Confusion matrix and boundary counts of one image as one row: see `split_counts`."""

_MATRIX_CELLS = NUM_CLASSES * NUM_CLASSES
COUNT_CELLS = _MATRIX_CELLS + NUM_CLASSES * 3


def split_counts(counts: Counts) -> tuple[ConfusionMatrix, BoundaryCounts]:
    """Return matrix (..., 21, 21) and boundary counts (..., 21, 3) of rows of counts, int64 (..., 504)."""
    matrix, boundary = counts[..., :_MATRIX_CELLS], counts[..., _MATRIX_CELLS:]
    lead = counts.shape[:-1]
    return matrix.reshape(*lead, NUM_CLASSES, NUM_CLASSES), boundary.reshape(*lead, NUM_CLASSES, 3)


class Predictor(Protocol):
    """What evaluation needs of a model; a `segcore.Segmenter` is one."""

    size: int
    """Shorter side of what the model sees, pixels."""

    def prepare(self, photo: RgbImage) -> torch.Tensor:
        """Return the input (3, h, w) for a photo, uint8 RGB (H, W, 3); called from several threads."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, h, w) for inputs (B, 3, h, w) of one shape; called from one thread."""


@dataclass(frozen=True)
class Job:
    """What is to be scored, and how: all that a worker on another machine has to know but the model."""

    dataset: Dataset
    scales: tuple[Scale, ...]
    batch: int = 1
    workers: int = 2
    """Threads that decode."""

    def chunks(self, done: frozenset[str] = frozenset()) -> list[tuple[int, ...]]:
        """Return the indices of pairs still to be scored, in the portions in which they are handed out.

        Batches never cross a chunk: whoever scores a chunk forms the same batches, hence the same logits to the bit.
        """
        step = max(16, 4 * self.batch)
        names = self.dataset.names
        every = (range(start, min(start + step, len(names))) for start in range(0, len(names), step))
        kept = (tuple(index for index in chunk if names[index] not in done) for chunk in every)
        return [chunk for chunk in kept if chunk]


@dataclass(frozen=True)
class ImageScore:
    """What one image adds: its counts at each scale, or why there are none."""

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


def score_pair(target: ClassMap, logits: torch.Tensor, scale: Scale) -> Counts:
    """Return the counts of one image, int64 (504,), at the size of its mask or at that of its logits.

    Args:
        target: uint8 (H, W).
        logits: float (21, h, w).
        scale: ``photo`` interpolates the logits, ``model`` resizes the mask by nearest as Pillow does.
    """
    if scale == "photo":
        prediction = upsample_class_map(logits, *target.shape)
    else:
        prediction = argmax_classes(logits[None])[0].cpu().numpy()
        if prediction.shape != target.shape:
            width_height = prediction.shape[::-1]
            target = np.asarray(Image.fromarray(target).resize(width_height, Image.Resampling.NEAREST))
    matrix = confusion_matrix(target, prediction)
    return np.concatenate([matrix.ravel(), boundary_counts(target, prediction).ravel()])


def score_chunks(predictor: Predictor, job: Job, chunks: Sequence[Sequence[int]]) -> Generator[ImageScore, None, None]:
    """Score pairs and yield them as they are done; what cannot be read comes out with its error.

    Photos are decoded in `job.workers` threads, one thread runs the model and one scores. What is in flight is bounded
    by the size of a chunk, so memory does not grow with the number of images.
    """
    waiting: deque[Future[list[ImageScore]]] = deque()
    with ThreadPoolExecutor(job.workers) as loaders, ThreadPoolExecutor(1) as runner, ThreadPoolExecutor(1) as scorer:
        try:
            for batch in _batches(predictor, job, chunks, loaders):
                if isinstance(batch, ImageScore):
                    yield batch
                    continue
                logits = runner.submit(_forward, predictor, batch)
                waiting.append(scorer.submit(_score_batch, batch, logits, job.scales))
                while len(waiting) > 2:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            for pool in (loaders, runner, scorer):
                pool.shutdown(wait=False, cancel_futures=True)


def _batches(
    predictor: Predictor, job: Job, chunks: Sequence[Sequence[int]], pool: ThreadPoolExecutor
) -> Iterator[list[_Loaded] | ImageScore]:
    """Yield inputs of one shape from one chunk, at most `job.batch` at a time, and failures as they are found."""
    indices = (index for chunk in chunks for index in chunk)
    ahead = deque(pool.submit(_load, predictor, job, index) for index in islice(indices, 2 * job.batch + job.workers))
    for chunk in chunks:
        groups: dict[torch.Size, list[_Loaded]] = {}
        for _ in chunk:
            loaded = ahead.popleft().result()
            ahead.extend(pool.submit(_load, predictor, job, index) for index in islice(indices, 1))
            if isinstance(loaded, ImageScore):
                yield loaded
                continue
            group = groups.setdefault(loaded.input.shape, [])
            group.append(loaded)
            if len(group) == job.batch:
                yield groups.pop(loaded.input.shape)
        yield from groups.values()


def _load(predictor: Predictor, job: Job, index: int) -> _Loaded | ImageScore:
    name = job.dataset.names[index]
    try:
        photo, target = job.dataset.load(index)
        return _Loaded(name, target, predictor.prepare(photo))
    except SegcoreError as error:
        return ImageScore(name, error=str(error))


def _forward(predictor: Predictor, batch: list[_Loaded]) -> tuple[torch.Tensor, float]:
    start = time.perf_counter()
    logits = predictor.forward(torch.stack([loaded.input for loaded in batch]))
    return logits, (time.perf_counter() - start) / len(batch)


def _score_batch(
    batch: list[_Loaded], run: Future[tuple[torch.Tensor, float]], scales: tuple[Scale, ...]
) -> list[ImageScore]:
    logits, seconds = run.result()
    found = []
    for loaded, row in zip(batch, logits, strict=True):
        try:
            counts = {scale: score_pair(loaded.target, row, scale) for scale in scales}
            found.append(ImageScore(loaded.name, counts, seconds))
        except SegcoreError as error:
            found.append(ImageScore(loaded.name, error=f"{loaded.name}: {error}"))
    return found
