"""Run the gate on run files, with the history of their store and the class maps beside them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from segcore.core.errors import RecordError, UsageError
from segcore.core.limits import Limits
from segcore.core.records import TIMED, Run
from segcore.judgement.drift import run_drift
from segcore.judgement.gate import GateResult, judge
from segcore.judgement.gate.settle import remedies
from segcore.judgement.history import learned_noise
from segcore.judgement.statistics import ProcessNoise
from segcore.results.naming import name_pattern, saved_name
from segcore.results.store import find_runs, load_readable, load_run, resolve_run

RUN_LIMITS = Limits(max_slowdown={"p50": 0.10})
"""Limits of items whose case sets none, if two runs are judged: they cannot tell 5 % from nothing reliably, which
measuring in turns can (`tools.run_simulation`, `tools.gate_simulation`)."""
_SHARES = {"max_miou_drop", "max_iou_drop", "max_drift"}


def load_runs(reference: str, storage: Path) -> tuple[Run, ...]:
    """Return the run with a path or name, or ``latest``; or the runs in a directory, as processes of one arm.

    Copies of a run count once.

    Raises:
        RecordError: there is no such run, or it cannot be read.
    """
    if not os.path.isdir(reference):  # noqa: PTH112 - Path.is_dir() raises if the name is too long
        return (load_run(resolve_run(reference, storage)),)
    runs = _distinct(load_run(path) for path in find_runs(reference))
    if not runs:
        raise RecordError(
            f"{reference}: no run files in this directory; wanted those of `pytest bench/ --benchmark-save`"
        )
    return runs


def load_baseline(reference: str, storage: Path) -> tuple[Run, ...]:
    """Return the runs that `load_runs` finds, to judge others against.

    Raises:
        RecordError: as `load_runs`; also if a run is empty or was interrupted.
    """
    runs = load_runs(reference, storage)
    for run in runs:
        if not run.benchmarks:
            raise RecordError(f"{run.path}: the run measured nothing; wanted a complete run: record it again")
        if not run.record.complete:
            raise RecordError(
                f"{run.path}: the run was interrupted after {len(run.benchmarks)} items; "
                "wanted a complete run: record it again, or name another one"
            )
    return runs


def judge_runs(
    baseline: Sequence[Run],
    current: Sequence[Run],
    defaults: Limits,
    storage: Path,
    process_noise: float | None = None,
    *,
    accept_changed_limits: bool = False,
    require_all: bool = False,
) -> GateResult:
    """Judge runs, as `judge` does, with the history of a store and the class maps beside the run files.

    `process_noise` is the standard deviation of the log latency from run to run; None: it is learned from `storage`.
    For the other arguments see `judge`.

    Raises:
        UsageError: a run is on both sides.
    """
    both = {run.measured: run for run in baseline}.keys() & {run.measured for run in current}
    if both:
        paths = [str(run.path) for run in (*baseline, *current) if run.measured in both]
        raise UsageError(f"BASELINE and CURRENT are the same run: {', '.join(dict.fromkeys(paths))}")
    noise: dict[str, ProcessNoise] = {}
    items = {b.info.key: b.info for run in current for b in run.benchmarks if b.info.kind in TIMED}
    if process_noise is not None:
        noise = dict.fromkeys(items, ProcessNoise(process_noise, math.inf, "as given"))
    elif items:
        earlier = _earlier_runs(storage, baseline[0].name, current)
        machine = current[0].record.machine
        learned = {key: learned_noise(earlier, machine, info) for key, info in items.items()}
        noise = {key: value for key, value in learned.items() if value is not None}
    drift = run_drift(baseline[0], current[0])
    flags = {"accept_changed_limits": accept_changed_limits, "require_all": require_all}
    result = judge(baseline, current, defaults, noise=noise, drift=drift, **flags)
    options = gate_options(defaults, process_noise, **flags)
    return replace(result, commands=remedies(result, baseline, current, defaults, options))


def gate_options(
    defaults: Limits,
    process_noise: float | None = None,
    *,
    accept_changed_limits: bool = False,
    require_all: bool = False,
) -> tuple[str, ...]:
    """Return the options of ``segcore gate`` that judge runs as `judge_runs` does with these arguments."""
    shares = {f"--{name.replace('_', '-')}": getattr(defaults, name) for name in _SHARES & defaults.model_fields_set}
    if defaults.max_slowdown != RUN_LIMITS.max_slowdown:
        shares["--max-slowdown"] = defaults.slowdowns[0.5]
    if process_noise is not None:
        shares["--process-noise"] = process_noise
    flags = {"--accept-changed-limits": accept_changed_limits, "--require-all": require_all}
    values = (f"{name}={value:g}" for name, value in sorted(shares.items()))
    return (*values, *(flag for flag, given in flags.items() if given))


def _earlier_runs(storage: Path, name: str, current: Sequence[Run]) -> tuple[Run, ...]:
    """Return the readable runs of the store whose names follow the pattern of one name, without the judged run.

    Runs of other names may be of changes that were rejected.
    """
    judged = {run.measured for run in current}
    pattern = name_pattern(name)
    runs, _ = load_readable(path for path in find_runs(storage) if name_pattern(saved_name(path)) == pattern)
    return tuple(run for run in _distinct(runs) if run.measured not in judged)


def _distinct(runs: Iterable[Run]) -> tuple[Run, ...]:
    return tuple({run.measured: run for run in runs}.values())
