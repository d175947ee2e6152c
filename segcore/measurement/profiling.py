"""Where the time of a photo goes: stages of the pipeline, and operators as timed by the runtime's own profiler.

Profiling slows calls down, so it is done on calls of its own, never on measured ones.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch.profiler import record_function

from segcore.inference.pipeline import Segmenter, StageTimer
from segcore.inference.preprocess import Photo
from segcore.inference.runtimes.session import OperatorTime

CALLS = 3
"""Calls in a profile, after one to warm up."""


@dataclass(frozen=True)
class OperatorCost:
    """The time of one operator over all calls of a profile."""

    operator: str
    kind: str
    calls: int
    total_ms: float
    """Without the operators that it calls."""
    share: float
    """Of the time of all operators, 0 to 1."""


@dataclass(frozen=True)
class Profile:
    """A few calls of the pipeline on one photo."""

    title: str
    """Model, runtime, precision, device and shape."""
    calls: int
    stage_ms: dict[str, float]
    """Median milliseconds of each stage over the calls."""
    operators: tuple[OperatorCost, ...]
    """Every operator that took time of its own, the longest first."""
    trace: bytes | None
    """The runtime's own trace, in Chrome's JSON format; None if the runtime writes none."""


class _LabellingTimer(StageTimer):
    """A timer whose stages appear in a trace of torch's profiler."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time and label the body."""
        with record_function(name), super().stage(name):
            yield


def profile(segmenter: Segmenter, photo: Photo, *, size: int | None = None, calls: int = CALLS) -> Profile:
    """Profile a few calls on one photo (shorter side `size` pixels at model scale), after one that warms up.

    Raises:
        DeviceError: the runtime has no profiler.
        ImageError: the photo cannot be read.
    """
    profiled, session = segmenter.profiled()
    try:
        result = profiled.run([photo], size=size)[0]
        seconds = [_stage_seconds(profiled, photo, size) for _ in range(calls)]
    finally:
        found = session.finish()
    _, _, height, width = result.input_shape
    return Profile(
        title=f"{segmenter.model_name} {segmenter.runtime} {segmenter.precision} {segmenter.device.name} "
        f"{height}x{width}",
        calls=calls,
        stage_ms={stage: 1e3 * statistics.median(each[stage] for each in seconds) for stage in seconds[0]},
        operators=operator_costs([operator for operators in found.passes[-calls:] for operator in operators]),
        trace=found.trace,
    )


def _stage_seconds(segmenter: Segmenter, photo: Photo, size: int | None) -> dict[str, float]:
    timer = _LabellingTimer(segmenter.device)
    segmenter.run([photo], timer, size=size)
    return timer.seconds


def operator_costs(operators: Sequence[OperatorTime]) -> tuple[OperatorCost, ...]:
    """Return the total cost of each operator that took time of its own, the longest first."""
    own: dict[tuple[str, str], list[float]] = defaultdict(list)
    for each in operators:
        if each.seconds > 0:
            own[each.operator, each.kind].append(each.seconds)
    total = sum(map(sum, own.values()))
    costs = [
        OperatorCost(operator, kind, len(times), 1e3 * sum(times), sum(times) / total)
        for (operator, kind), times in own.items()
    ]
    return tuple(sorted(costs, key=lambda cost: -cost.total_ms))
