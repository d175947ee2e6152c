"""Find the fastest backend (runtime and precision) that keeps a model's masks, timing all of them in turns."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from segcore.core.errors import DeviceError, ModelError
from segcore.core.model_spec import SourceKind, own_runtime
from segcore.evaluation.parity import Parity, logits_parity, photo_logits, pooled
from segcore.inference.allocator import give_back_freed_memory
from segcore.inference.devices import Device
from segcore.inference.pipeline import Segmenter
from segcore.inference.preprocess import Photo
from segcore.inference.runtimes import RUNTIMES, why_not

CPU = Device("cpu")
SHORT_CALL_S = 0.5
"""Below this, what the backend before left running can be seen in a call."""
Backend = tuple[str, str]
"""Runtime and precision."""


@dataclass(frozen=True)
class Candidate:
    """Measurements of one backend."""

    runtime: str
    precision: str
    options: dict[str, str]
    build_s: float
    """Seconds to export, quantise and compile; 0.0 if everything was cached."""
    memory_bytes: int | None
    """Added to the process at the peak of a call: model, kernels and activations; None if the system does not tell."""
    parity: Parity
    seconds: tuple[float, ...]
    """One photo, from file to colour mask, in each round."""
    speedups: tuple[float, ...]
    """Seconds of the reference divided by its own, round by round."""

    @property
    def median_s(self) -> float:
        """Median seconds of a round."""
        return statistics.median(self.seconds)

    @property
    def speedup(self) -> float:
        """Median over the rounds, which a slow round does not change."""
        return statistics.median(self.speedups)

    def keeps_masks(self, max_miou_drop: float) -> bool:
        """Return whether the mIoU against the reference drops by at most this; never for logits that are not finite."""
        return self.parity.miou_drop <= max_miou_drop and self.parity.finite


def available_backends(
    device: Device, runtimes: Sequence[str] = (), precisions: Sequence[str] = (), kind: SourceKind = "module"
) -> tuple[Backend, ...]:
    """Return the reference and every other backend available on a device, of those named (all if none is).

    `kind` is that of the model's source.

    Raises:
        DeviceError: a runtime is unknown.
    """
    others = [
        (runtime, precision)
        for runtime in runtimes or RUNTIMES
        for precision in (precisions or ("fp32", "bf16", "fp16", "int8"))
        if why_not(runtime, device, precision, kind) is None
    ]
    reference = (own_runtime(kind), "fp32")
    return (reference, *(backend for backend in others if backend != reference))


def interleave(
    arms: Mapping[Backend, Callable[[], object]],
    rounds: int,
    clock: Callable[[], int] = time.perf_counter_ns,
    again_s: float = SHORT_CALL_S,
) -> dict[Backend, tuple[float, ...]]:
    """Return the seconds of each arm in each round; every round runs all arms and starts with another one.

    Calls that take less than `again_s` are made twice, and the second is timed: after a pass, the threads of a runtime
    spin for a while, which made OpenVINO's calls of 37 ms after those of onnxruntime take 54.
    """
    names = list(arms)
    seconds: dict[Backend, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            if max(seconds[name], default=0.0) < again_s:
                arms[name]()
            start = clock()
            arms[name]()
            seconds[name].append((clock() - start) / 1e9)
    return {name: tuple(values) for name, values in seconds.items()}


def benchmark_backends(
    make: Callable[[str, str], Segmenter],
    backends: Sequence[Backend],
    photos: Sequence[Photo],
    rounds: int,
    progress: Callable[[str], None] = lambda step: None,
    device: Device = CPU,
) -> tuple[Candidate, ...]:
    """Return the measurements of backends, timed in the same rounds: the reference first (see `available_backends`).

    Parity is over all photos, speed that of the first. A backend that cannot run the model, or whose logits are not
    finite, is left out, with a line on stderr.

    Raises:
        DeviceError: a backend is not available.
        ImageError: a photo cannot be read.
        ModelError: the reference's logits are not finite, or no logits of its classes.
    """
    measured: dict[Backend, tuple[Segmenter, Parity, int | None]] = {}
    wanted: list[torch.Tensor] = []
    for index, backend in enumerate(backends, 1):
        progress(f"{' '.join(backend)}, {index} of {len(backends)}")
        before = _memory_now(device)
        try:
            segmenter = make(*backend)
            run = partial(segmenter.run, [photos[0]])
            run()
            segmenter.settle(run)
            known = RUNTIMES[segmenter.runtime].memory_is_known(device.name)
            added = _memory_added(device, before, run) if known else None
            logits = [photo_logits(segmenter, photo) for photo in photos]
        except (ModelError, DeviceError) as error:  # NaN, an operator or a library that a runtime does not have
            if backend == backends[0]:
                raise
            sys.stderr.write(f"segcore: {' '.join(backend)} is left out: {error}\n")
            continue
        wanted = wanted or logits
        parities = (logits_parity(*pair, len(segmenter.labels)) for pair in zip(wanted, logits, strict=True))
        measured[backend] = segmenter, pooled(parities), added
    progress(f"{rounds} rounds")
    seconds = interleave({backend: partial(s.run, [photos[0]]) for backend, (s, *_) in measured.items()}, rounds)
    reference = seconds[backends[0]]
    return tuple(
        Candidate(
            *backend,
            options=segmenter.runtime_options,
            build_s=segmenter.build_seconds,
            memory_bytes=memory,
            parity=parity,
            seconds=seconds[backend],
            speedups=tuple(base / own for base, own in zip(reference, seconds[backend], strict=True)),
        )
        for backend, (segmenter, parity, memory) in measured.items()
    )


def _memory_now(device: Device) -> int | None:
    """Return the bytes in use, without those that the allocator keeps for later; None if the system does not tell."""
    give_back_freed_memory()
    return device.peak_memory_bytes() if device.reset_peak_memory() else None


def _memory_added(device: Device, before: int | None, call: Callable[[], object]) -> int | None:
    """Return the peak of a call above the bytes that were in use before the model was made."""
    if before is None or _memory_now(device) is None:
        return None
    call()
    peak = device.peak_memory_bytes()
    return None if peak is None else max(0, peak - before)


def fastest(candidates: Sequence[Candidate], max_miou_drop: float) -> Candidate:
    """Return the fastest candidate that keeps the masks; the reference always does."""
    return max((c for c in candidates if c.keeps_masks(max_miou_drop)), key=lambda c: c.speedup)
