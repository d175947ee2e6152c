"""Calls of the pipeline to be timed, with the time of each stage; devices are synchronised at both ends of a call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segcore.inference.pipeline import SegmentationResult, Segmenter, StageTimer
from segcore.inference.preprocess import Photo

FAST_CALL_S = 0.5
"""A warm-up call that takes less is followed by two more: lazily built caches are complete after three."""

Stages = dict[str, tuple[float, ...]]


@dataclass
class PipelineCall:
    """A call of the pipeline on fixed photos, to be timed by the caller; keeps the stages of every call.

    Args:
        segmenter: runs the photos.
        photos: one batch if their shapes agree.
        size: shorter side at model scale, pixels.
        rounds_done: returns how many rounds the timing loop has finished, None before the first; distinguishes rounds
            whose times are kept from warm-up and other calls.
        clock: of the stages, nanoseconds.
    """

    segmenter: Segmenter
    photos: Sequence[Photo]
    size: int
    rounds_done: Callable[[], int | None] = lambda: None
    clock: Callable[[], int] = time.perf_counter_ns
    _calls: list[tuple[int | None, dict[str, float]]] = field(default_factory=list)

    def __call__(self) -> list[SegmentationResult]:
        """Run the pipeline once."""
        timer = StageTimer(self.segmenter.device, self.clock)
        results = self.segmenter.run(self.photos, timer, size=self.size)
        self._calls.append((self.rounds_done(), timer.seconds))
        return results

    @property
    def count(self) -> int:
        """Number of calls so far."""
        return len(self._calls)

    def warm_up(self, again: bool = False) -> None:
        """Call once; twice more if that took less than `FAST_CALL_S`, or anything but a CPU; and until it is settled.

        The first call on a GPU loads kernels and chooses among them, which may take longer than a hundred calls.

        Args:
            again: the same call was warmed up before in this process: a CPU needs no more than the untimed call that
                precedes the rounds of short calls anyway.
        """
        accelerator = self.segmenter.device.torch_device.type != "cpu"
        if accelerator or not again:
            start = self.clock()
            self()
            if accelerator or (self.clock() - start) / 1e9 < FAST_CALL_S:
                self()
                self()
        self.segmenter.settle(self)

    def stages(self, rounds: int, iterations: int = 1) -> Stages:
        """Return the seconds of each stage in each round: means over the iterations of the round."""
        by_round: list[list[dict[str, float]]] = [[] for _ in range(rounds)]
        for done, seconds in self._calls:
            if done is not None and done < rounds:
                by_round[done].append(seconds)
        # The warm-up of --benchmark-warmup also precedes the end of the first round: only the last calls count.
        kept = [calls[-iterations:] for calls in by_round]
        names = dict.fromkeys(name for calls in kept for seconds in calls for name in seconds)
        return {name: tuple(sum(s[name] for s in calls) / len(calls) for calls in kept) for name in names}
