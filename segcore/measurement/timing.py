"""The clock: the pipeline called again and again, its stages kept apart, and what a sample of times can be asked.

The clock around a whole call is pytest-benchmark's. What makes it honest on a device that works asynchronously is in
here and in `segcore.inference.pipeline.StageTimer`: a call begins and ends with the device waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from segcore.inference.pipeline import SegmentationResult, Segmenter, StageTimer
from segcore.inference.preprocess import Photo

FAST_CALL_S = 0.5
"""A warm-up call that takes less is followed by two more: lazily made caches settle within three."""

Stages = dict[str, tuple[float, ...]]


@dataclass
class PipelineCall:
    """One call of the pipeline on fixed photos, to be timed from outside; it remembers the stages of every call.

    Args:
        segmenter: what is measured.
        photos: go through together, as one batch where their shapes agree.
        size: shorter side at model scale, pixels.
        rounds_done: how many rounds the timing loop has finished, None before its first: tells warm-up, calibration
            and whatever else is called from the rounds whose times are kept.
        clock: of the stages, nanoseconds.
    """

    segmenter: Segmenter
    photos: Sequence[Photo]
    size: int
    rounds_done: Callable[[], int | None] = lambda: None
    clock: Callable[[], int] = time.perf_counter_ns
    _calls: list[tuple[int | None, dict[str, float]]] = field(default_factory=list)

    def __call__(self) -> list[SegmentationResult]:
        """Run the pipeline once, the device waited for at both ends."""
        timer = StageTimer(self.segmenter.device, self.clock)
        results = self.segmenter.run(self.photos, timer, size=self.size)
        self._calls.append((self.rounds_done(), timer.seconds))
        return results

    @property
    def count(self) -> int:
        """How often it was called."""
        return len(self._calls)

    def warm_up(self) -> float:
        """Call once, and twice more if that was fast; return the seconds of the last call."""
        seconds = self._timed()
        if seconds < FAST_CALL_S:
            self._timed()
            seconds = self._timed()
        return seconds

    def _timed(self) -> float:
        start = self.clock()
        self()
        return (self.clock() - start) / 1e9

    def stages(self, rounds: int, iterations: int = 1) -> Stages:
        """Return seconds per stage and round: the mean over a round's iterations."""
        by_round: list[list[dict[str, float]]] = [[] for _ in range(rounds)]
        for done, seconds in self._calls:
            if done is not None and done < rounds:
                by_round[done].append(seconds)
        # A user's own warm-up (--benchmark-warmup) also comes before the first round is done: the last calls count.
        kept = [calls[-iterations:] for calls in by_round]
        names = dict.fromkeys(name for calls in kept for seconds in calls for name in seconds)
        return {name: tuple(sum(s[name] for s in calls) / len(calls) for calls in kept) for name in names}
