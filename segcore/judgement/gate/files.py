"""The gate on run files: which runs are meant, and what their store and their class maps add to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from segcore.core.errors import RecordError
from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.judgement.drift import run_drift
from segcore.judgement.gate import TIMED, GateResult, judge
from segcore.judgement.history import learned_noise
from segcore.judgement.statistics import ProcessNoise
from segcore.results.store import find_runs, load_run, resolve_run

LEARN_FROM = 15
"""The latest runs of the store, from which the noise between processes is learned."""


def load_arm(reference: str, storage: Path) -> tuple[Run, ...]:
    """Return the runs that are meant: by path, name or ``latest``; or a directory, whose runs are processes of one arm.

    Raises:
        RecordError: there is no such run, or it cannot be read.
    """
    if not Path(reference).is_dir():
        return (load_run(resolve_run(reference, storage)),)
    runs = tuple(load_run(path) for path in find_runs(reference))
    if not runs:
        raise RecordError(
            f"{reference}: no run files in this directory; wanted those of `pytest bench/ --benchmark-save`"
        )
    return runs


def judge_runs(
    baseline: Sequence[Run],
    current: Sequence[Run],
    defaults: Limits,
    storage: Path,
    process_noise: float | None = None,
) -> GateResult:
    """Judge runs with all that is known around them: the store's history and the class maps beside the files.

    Args:
        baseline: at least one run.
        current: at least one run.
        defaults: limits for what a case leaves open.
        storage: directory of runs from which the noise between processes is learned.
        process_noise: standard deviation of the log latency between processes, where the user knows it.
    """
    noise: dict[str, ProcessNoise] = {}
    items = {b.info.key: b.info for run in current for b in run.benchmarks if b.info.kind in TIMED}
    if process_noise is not None:
        noise = dict.fromkeys(items, ProcessNoise(process_noise, math.inf, "as given"))
    elif items:
        known = _others(storage, current)
        found = {key: learned_noise(known, current[0].record.machine, info) for key, info in items.items()}
        noise = {key: value for key, value in found.items() if value is not None}
    return judge(baseline, current, defaults, noise=noise, drift=run_drift(baseline[0], current[0]))


def _others(storage: Path, current: Sequence[Run]) -> list[Run]:
    """Return the latest readable runs of the store but the one that is judged, which must not vouch for itself."""
    judged = {run.path.resolve() for run in current}
    runs = []
    for path in find_runs(storage)[-LEARN_FROM:]:
        if path.resolve() not in judged:
            try:
                runs.append(load_run(path))
            except RecordError:
                continue  # of another version, perhaps: it has nothing to teach, and is not what was asked about
    return runs
