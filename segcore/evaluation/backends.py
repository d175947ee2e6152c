"""Which backend to execute a model is the fastest that keeps its masks: all of them timed in turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from segcore.evaluation.parity import REFERENCE, Parity, logits_parity, photo_logits, pooled
from segcore.inference.devices import Device
from segcore.inference.models import LoadedModel
from segcore.inference.pipeline import CALIBRATION_PHOTOS, Photo, Segmenter
from segcore.inference.runtimes import RUNTIMES, why_not

Backend = tuple[str, str]
"""Runtime and precision."""
Clock = Callable[[], int]


@dataclass(frozen=True)
class Candidate:
    """One backend to execute a model, as it was found."""

    runtime: str
    precision: str
    options: dict[str, str]
    build_s: float
    """Seconds to export, quantise and compile; 0.0 where all of it was in the cache."""
    parity: Parity
    seconds: tuple[float, ...]
    """Of each round: one photo, from file to colour mask."""
    speedups: tuple[float, ...]
    """The reference's seconds over its own, round by round."""

    @property
    def median_s(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)

    @property
    def speedup(self) -> float:
        """Median over the rounds: what slows a whole round down leaves it alone."""
        return statistics.median(self.speedups)

    def keeps_masks(self, max_miou_drop: float) -> bool:
        """Tell whether its masks are the reference's to within a drop of mIoU; logits that are no numbers never are."""
        return self.parity.miou_drop <= max_miou_drop and self.parity.largest_error < float("inf")


def available_backends(
    device: Device, runtimes: Sequence[str] = (), precisions: Sequence[str] = ()
) -> tuple[Backend, ...]:
    """Return the reference and every other backend that can run on a device, of those asked for (all when empty).

    Raises:
        DeviceError: a runtime is unknown.
    """
    others = [
        (runtime, precision)
        for runtime in runtimes or RUNTIMES
        for precision in (precisions or ("fp32", "bf16", "fp16", "int8"))
        if why_not(runtime, device, precision) is None
    ]
    return (REFERENCE, *(backend for backend in others if backend != REFERENCE))


def interleave(
    arms: Mapping[Backend, Callable[[], object]], rounds: int, clock: Clock = time.perf_counter_ns
) -> dict[Backend, tuple[float, ...]]:
    """Return the seconds of every arm in every round; each round runs all arms, beginning with another one."""
    names = list(arms)
    seconds: dict[Backend, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = clock()
            arms[name]()
            seconds[name].append((clock() - start) / 1e9)
    return {name: tuple(values) for name, values in seconds.items()}


def benchmark_backends(
    model: LoadedModel,
    device: Device,
    backends: Sequence[Backend],
    photos: Sequence[Photo],
    *,
    size: int,
    rounds: int,
    calibration: Sequence[Photo] = CALIBRATION_PHOTOS,
    progress: Callable[[str], None] = lambda step: None,
) -> tuple[Candidate, ...]:
    """Return every backend, measured together: parity on all photos, speed on the first.

    Args:
        model: with its weights.
        device: where they run.
        backends: the reference comes first (`available_backends`).
        photos: at least one.
        size: shorter side at model scale, pixels.
        rounds: of timing; every backend has run all photos before.
        calibration: photos for int8.
        progress: told what is being done.

    Raises:
        DeviceError: one of them cannot run.
        ImageError: a photo cannot be read.
    """
    segmenters: dict[Backend, Segmenter] = {}
    parities: dict[Backend, Parity] = {}
    wanted: list[torch.Tensor] = []  # the reference's, which comes first
    for runtime, precision in backends:
        progress(f"{runtime} {precision}")
        segmenter = Segmenter(
            model.module, device=device, size=size, runtime=runtime, precision=precision, calibration=calibration
        )
        logits = [photo_logits(segmenter, photo) for photo in photos]
        wanted = wanted or logits
        parities[runtime, precision] = pooled(map(logits_parity, wanted, logits))
        segmenters[runtime, precision] = segmenter
        segmenter(photos[0])
    progress(f"{rounds} rounds")
    seconds = interleave({backend: partial(s.run, [photos[0]]) for backend, s in segmenters.items()}, rounds)
    return tuple(
        Candidate(
            runtime=backend[0],
            precision=backend[1],
            options=segmenter.runtime_options,
            build_s=segmenter.build_seconds,
            parity=parities[backend],
            seconds=seconds[backend],
            speedups=tuple(base / own for base, own in zip(seconds[backends[0]], seconds[backend], strict=True)),
        )
        for backend, segmenter in segmenters.items()
    )


def fastest(candidates: Sequence[Candidate], max_miou_drop: float) -> Candidate:
    """Return the fastest that keeps the masks; the reference always does."""
    return max((c for c in candidates if c.keeps_masks(max_miou_drop)), key=lambda c: c.speedup)
