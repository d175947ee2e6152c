"""Scoring on a Ray cluster: actors hold the model, and Ray restarts those that die and repeats their chunks.

An actor returns the counts of a whole chunk, so a chunk counts once however often it was started. As sums are of
integers and batches never cross a chunk, the figures are those of the local engine.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from segcore.core.errors import DeviceError
from segcore.evaluation.scoring import ImageScore, Predictor, ScoringTask, score_chunks
from segcore.inference.allocator import keep_freed_memory

MAX_ATTEMPTS = 3
"""A chunk during which this many actors died is not tried again: its images, or too little memory, kill them."""


@dataclass(frozen=True)
class RayEngine:
    """Scores chunks on a Ray cluster; pass it to `segcore.evaluation.datasets.evaluate`.

    Every machine needs segcore and the dataset's files, at the same paths.
    """

    make: Callable[[], Predictor]
    """Makes the model, once in each actor: ``functools.partial(Segmenter, "embedded", size=520)``."""
    actors: int | None = None
    """Number of actors; as many as the cluster has room for if None."""
    cpus: int = 1
    """Processors, and threads, of each actor."""
    gpus: float = 0.0
    """GPUs of each actor; may be a fraction."""
    address: str | None = None
    """Address of the cluster (``auto``, ``ray://host:10001``); starts one on this machine if None."""

    def __call__(self, task: ScoringTask, chunks: Sequence[Sequence[int]]) -> Generator[ImageScore, None, None]:
        """Yield the scores of chunks as they complete.

        Raises:
            DeviceError: Ray is not installed or not reachable, has no room for an actor, or a chunk kills its actors.
        """
        with _cluster(self.address) as ray:
            yield from self._run(ray, task, chunks)

    def _run(self, ray: Any, task: ScoringTask, chunks: Sequence[Sequence[int]]) -> Generator[ImageScore, None, None]:
        resources = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        actor_type = ray.remote(**resources, max_restarts=-1, max_task_retries=MAX_ATTEMPTS - 1)(_Actor)
        idle = [actor_type.remote(self.make, self.cpus) for _ in range(self._count(ray, len(chunks)))]
        shared_task = ray.put(task)  # sent once to each machine, not with each chunk
        waiting = deque(chunks)
        running: dict[Any, tuple[Any, Sequence[int]]] = {}
        while waiting or running:
            while waiting and idle:
                actor, chunk = idle.pop(), waiting.popleft()
                running[actor.score.remote(shared_task, chunk)] = actor, chunk
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            actor, chunk = running.pop(done)
            try:
                scores = ray.get(done)
            except ray.exceptions.RayActorError as error:
                raise _actors_died(task.dataset.names, chunk, error) from error
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error  # as it was raised in the actor
            idle.append(actor)
            yield from scores

    def _count(self, ray: Any, chunks: int) -> int:
        """Return the number of actors to start."""
        found = ray.cluster_resources()
        room = int(found.get("CPU", 0) // self.cpus)
        if self.gpus:
            room = min(room, int(found.get("GPU", 0) / self.gpus))
        if room < 1:
            raise DeviceError(
                f"the Ray cluster has {found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs, an actor needs "
                f"{self.cpus} and {self.gpus:g}: request less per actor or add machines"
            )
        return min(self.actors or room, chunks)


class _Actor:
    """Holds the model, made with the first chunk so that a death while it loads is an attempt at that chunk."""

    def __init__(self, make: Callable[[], Predictor], threads: int) -> None:
        keep_freed_memory()
        torch.set_num_threads(threads)
        self._make = make

    @cached_property
    def _predictor(self) -> Predictor:
        return self._make()

    def score(self, task: ScoringTask, chunk: Sequence[int]) -> list[ImageScore]:
        return list(score_chunks(self._predictor, task, [chunk]))


def _actors_died(names: Sequence[str], chunk: Sequence[int], error: Exception) -> DeviceError:
    last_line = str(error).strip().splitlines()[-1].strip()
    return DeviceError(
        f"{MAX_ATTEMPTS} Ray actors died on the images {names[chunk[0]]} to {names[chunk[-1]]} ({last_line}); "
        "score them with the local engine to find the cause, or give actors more memory"
    )


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one here; shut down only what was started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise DeviceError("the Ray engine needs Ray, which is not installed: pip install segcore[ray]") from None
    if ray.is_initialized():
        yield ray
        return
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        raise DeviceError(f"no Ray cluster at {address or 'this machine'}: {error}; see `ray status`") from error
    try:
        yield ray
    finally:
        ray.shutdown()
