"""Scoring on a Ray cluster: actors that hold the model, chunks that are done again where an actor dies.

An actor returns the counts of whole chunks, so a chunk counts once however often it was begun; and as sums are of
integers and batches never cross a chunk, the result is that of the local engine, whoever scored what.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from segcore.core.errors import DeviceError, SegcoreError
from segcore.evaluation.scoring import ImageScore, Job, Predictor, score_chunks

MAX_ATTEMPTS = 3
"""A chunk that so many actors died on is at fault itself, or there is no memory for the model."""


@dataclass(frozen=True)
class RayEngine:
    """Scores chunks on a Ray cluster; pass it to `segcore.evaluation.evaluate`.

    The dataset's files must be found at the same paths on every machine, and segcore be installed there.
    """

    make: Callable[[], Predictor]
    """Makes the model, once in each actor: ``functools.partial(Segmenter, "embedded", size=520)``."""
    actors: int | None = None
    """How many; as many as the cluster has room for where None."""
    cpus: int = 1
    """Processors, and threads, of each actor."""
    gpus: float = 0.0
    """GPUs of each actor; may be a fraction."""
    address: str | None = None
    """Of the cluster (``auto``, ``ray://host:10001``); a cluster of this machine is started where None."""

    def __call__(self, job: Job, chunks: Sequence[Sequence[int]]) -> Generator[ImageScore, None, None]:
        """Yield the scores of chunks as they are done.

        Raises:
            DeviceError: Ray is not installed or out of reach, has no room for an actor, or a chunk kills every actor.
        """
        with _cluster(self.address) as ray:
            yield from self._run(ray, job, chunks)

    def _run(self, ray: Any, job: Job, chunks: Sequence[Sequence[int]]) -> Generator[ImageScore, None, None]:
        actor_type = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(_Worker)
        shared_job = ray.put(job)  # once for each machine, not once for each actor
        count = min(self.actors or self._room(ray), len(chunks))
        queue, attempts = deque(chunks), Counter[int]()
        running: dict[Any, tuple[Any, Sequence[int]]] = {}

        def hand_out(actor: Any) -> None:
            if queue:
                chunk = queue.popleft()
                running[actor.score.remote(chunk)] = (actor, chunk)

        for _ in range(count):
            hand_out(actor_type.remote(self.make, shared_job, self.cpus))
        while running:
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            actor, chunk = running.pop(done)
            try:
                scores = ray.get(done)
            except ray.exceptions.RayActorError as error:
                attempts[chunk[0]] += 1
                if attempts[chunk[0]] == MAX_ATTEMPTS:
                    raise _hopeless(job, chunk, error) from error
                queue.appendleft(chunk)
                hand_out(actor_type.remote(self.make, shared_job, self.cpus))
                continue
            except ray.exceptions.RayTaskError as error:
                raise error.cause from error  # a bug, or a SegcoreError, as it was raised over there
            hand_out(actor)
            yield from scores

    def _room(self, ray: Any) -> int:
        found = ray.cluster_resources()
        room = int(found.get("CPU", 0) // self.cpus)
        if self.gpus:
            room = min(room, int(found.get("GPU", 0) / self.gpus))
        if room < 1:
            raise DeviceError(
                f"the Ray cluster has {found.get('CPU', 0):g} CPUs and {found.get('GPU', 0):g} GPUs, an actor wants "
                f"{self.cpus} and {self.gpus:g}: ask for less per actor or add machines"
            )
        return room


class _Worker:
    """The actor: a model, ready to score chunks of one job."""

    def __init__(self, make: Callable[[], Predictor], job: Job, threads: int) -> None:
        torch.set_num_threads(threads)
        self._job = job
        self._predictor = make()

    def score(self, chunk: Sequence[int]) -> list[ImageScore]:
        return list(score_chunks(self._predictor, self._job, [chunk]))


def _hopeless(job: Job, chunk: Sequence[int], error: Exception) -> SegcoreError:
    names = job.dataset.names
    last_line = str(error).strip().splitlines()[-1].strip()
    return DeviceError(
        f"{MAX_ATTEMPTS} Ray actors died on the images {names[chunk[0]]} to {names[chunk[-1]]} ({last_line}); "
        "score them with the local engine to see why, or give actors more memory"
    )


@contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one here; leave it as it was found."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # an evaluation tells nobody
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
