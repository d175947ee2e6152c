"""Where the time of a photo goes: stages of the pipeline, and the operators that its runtime's own profiler saw.

A profile slows down what it looks at. It is made of calls of its own, never of measured ones.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segcore.core.files import write_file
from segcore.inference.pipeline import Photo, Segmenter, StageTimer
from segcore.inference.runtimes import OperatorSpan

CALLS = 3
"""Calls in a profile, after one to warm up."""
KERNELS = "kernel"
"""Kind of what runs on a GPU, beside the CPU."""


@dataclass(frozen=True)
class StageSpan:
    """One stage of one call."""

    stage: str
    start_s: float
    """From the beginning of the first call."""
    seconds: float


@dataclass(frozen=True)
class OperatorCost:
    """What one operator took in all calls of a profile."""

    operator: str
    kind: str
    calls: int
    total_ms: float
    """Without what it calls in turn."""
    share: float
    """Of the time of all operators, 0 to 1."""


@dataclass(frozen=True)
class Profile:
    """A few calls of the pipeline on one photo."""

    title: str
    """What ran, for people."""
    stages: tuple[StageSpan, ...]
    """Of all calls, in the order they ran."""
    passes: tuple[tuple[OperatorSpan, ...], ...]
    """The operators of each call's forward pass."""

    @property
    def stage_ms(self) -> dict[str, float]:
        """Median milliseconds of each stage over the calls."""
        seconds: dict[str, list[float]] = defaultdict(list)
        for span in self.stages:
            seconds[span.stage].append(span.seconds)
        return {stage: 1e3 * statistics.median(values) for stage, values in seconds.items()}

    @property
    def operators(self) -> tuple[OperatorCost, ...]:
        """Every operator that took time of its own, the longest first."""
        own: dict[tuple[str, str], list[float]] = defaultdict(list)
        for span in (span for spans in self.passes for span in spans):
            if span.own_s > 0:
                own[span.operator, span.kind].append(span.own_s)
        whole = sum(map(sum, own.values()))
        costs = [
            OperatorCost(operator, kind, len(times), 1e3 * sum(times), sum(times) / whole)
            for (operator, kind), times in own.items()
        ]
        return tuple(sorted(costs, key=lambda cost: -cost.total_ms))


class SpanTimer(StageTimer):
    """A timer that also notes when each stage began."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.spans: list[tuple[str, int, int]] = []
        """Stage, begin and end in nanoseconds of the clock."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body and note when it began and ended."""
        begin = self._clock()
        with super().stage(name):
            yield
        self.spans.append((name, begin, self._clock()))


def profile(segmenter: Segmenter, photo: Photo, calls: int = CALLS) -> Profile:
    """Return the profile of some calls on one photo, after one that warms up.

    Raises:
        DeviceError: the runtime has no profiler.
        ImageError: the photo cannot be read.
    """
    with segmenter.profiled() as session:
        try:
            result = segmenter.run([photo])[0]
            timer = SpanTimer(segmenter.device)
            for _ in range(calls):
                segmenter.run([photo], timer)
        finally:
            passes = session.passes()
    begin = timer.spans[0][1]
    _, _, height, width = result.input_shape
    title = f"{segmenter.model_name} {segmenter.runtime} {segmenter.precision} {segmenter.device.name} {height}x{width}"
    return Profile(
        title=title,
        stages=tuple(StageSpan(name, (start - begin) / 1e9, (end - start) / 1e9) for name, start, end in timer.spans),
        passes=tuple(passes[-calls:]),
    )


def chrome_trace(found: Profile) -> dict[str, Any]:
    """Return a profile in Chrome's trace event format, for Perfetto or ``chrome://tracing``.

    Complete events ("X") with times in microseconds: stages in the first row, operators below, a GPU's kernels last.
    """
    rows = {0: "stages", 1: "operators", 2: "kernels"}
    events: list[dict[str, Any]] = [_metadata("process_name", 0, found.title)]
    events += [_metadata("thread_name", row, name) for row, name in rows.items()]
    events += [_event(span.stage, "stage", 0, span.start_s, span.seconds) for span in found.stages]
    forwards = [span.start_s for span in found.stages if span.stage == "forward"]
    for begin, spans in zip(forwards, found.passes, strict=True):
        for span in spans:
            row = 2 if span.kind == KERNELS else 1
            events.append(_event(span.operator, span.kind, row, begin + span.start_s, span.seconds))
    return {"traceEvents": events, "displayTimeUnit": "ms", "otherData": {"title": found.title}}


def _metadata(what: str, row: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": 0, "tid": row, "args": {"name": name}}


def _event(name: str, category: str, row: int, start_s: float, seconds: float) -> dict[str, Any]:
    times = {"ts": round(start_s * 1e6, 3), "dur": round(seconds * 1e6, 3)}
    return {"ph": "X", "name": name, "cat": category, "pid": 0, "tid": row, **times}


def save_trace(found: Profile, path: Path) -> None:
    """Write `chrome_trace` as JSON, whole or not at all.

    Raises:
        OutputError: the file cannot be written.
    """
    write_file(path, json.dumps(chrome_trace(found)).encode())
