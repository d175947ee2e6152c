"""Further processes of a bench run measure every speed item as well, so that its record shows the noise between them.

They run one after the other when the main process has finished, with the worker of the paired gate. Each comes back to
the items with short calls, in turns, so that what slows the machine for some seconds meets a part of an item's rounds.
Only times are measured there: stages, memory, energy and traces are of the main process.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from segcore.core.errors import ArmError
from segcore.core.records import ProcessRecord
from segcore.measurement.neighbours import Neighbours
from segcore.measurement.timing import FAST_CALL_S
from segcore.paired.arms import Arm
from segcore.paired.process import Rounds, RoundsClient, start_worker
from segcore.plugin.progress import LiveLine
from segcore.plugin.session import BenchSession
from segcore.plugin.storage import benchmark_session

CACHE_OPTIONS = (
    *("--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--new-first", "--cache-clear"),
    *("--sw", "--stepwise", "--sw-skip", "--stepwise-skip", "--sw-reset", "--stepwise-reset"),
)
"""Options of pytest's cache, which a worker does not have; it is told which items to run."""
TURN_S = 60.0
"""Longest time between two answers of a process, unless one call takes longer."""

VISITS = 3
"""How often a process measures a part of the rounds of an item with short calls."""

StartWorker = Callable[[Arm, "tuple[str, ...] | None"], AbstractContextManager[RoundsClient]]


@dataclass(frozen=True)
class Wanted:
    """What a further process is to measure of an item."""

    rounds: int
    call_s: float
    """Of the main process, median."""
    device: str
    model: tuple[object, ...] = ()
    """Items of one model come after each other, as a process keeps one model loaded."""

    @property
    def visits(self) -> int:
        """How often a process comes back to measure a part of the rounds; only to short calls."""
        return min(self.rounds, VISITS) if self.call_s < FAST_CALL_S else 1


def measure_further(
    session: BenchSession,
    fail: Callable[[str, str], None],
    line: LiveLine,
    start: StartWorker | None = None,
) -> None:
    """Measure the items that have passed in the further processes of a run, and add the results to their records.

    Args:
        session: of the run.
        fail: called with the node id of an item that could not be measured, and why.
        line: shows the progress.
        start: see `measure_process`; the default is `start_worker`.
    """
    directory = session.config.invocation_params.dir
    failed: set[str] = set()
    for number in range(2, session.processes + 1):
        items = {node: wanted for node, wanted in _wanted(session).items() if node not in failed}
        if not items:
            break
        name = f"process {number}"
        line.start(name)
        arm = bench_arm(name, session.config.invocation_params.args, directory)

        def tell(node: str, name: str = name) -> None:
            line.describe(f"{name}: {session.items[node].key}")

        records, errors = measure_process(arm, items, session.neighbours, tell, start or start_worker)
        for benchmark in benchmark_session(session.config).benchmarks:
            if benchmark.fullname in records:
                found = records[benchmark.fullname].model_dump(mode="json")
                benchmark.extra_info["segcore"]["processes"].append(found)
        for node, reason in errors.items():
            fail(node, reason)
        failed |= errors.keys()
        line.finish(name, f"{name} of {session.processes}", "error" if errors else "passed")
    session.processes_left = 0


def _wanted(session: BenchSession) -> dict[str, Wanted]:
    passed = {key for key, outcome in session.outcomes.items() if outcome.outcome == "passed"}
    return {
        benchmark.fullname: Wanted(
            rounds=len(benchmark.stats.data),
            call_s=statistics.median(benchmark.stats.data),
            device=session.items[benchmark.fullname].device,
            model=session.items[benchmark.fullname].model_key,
        )
        for benchmark in benchmark_session(session.config).benchmarks
        if benchmark.fullname in session.items
        and session.items[benchmark.fullname].key in passed
        and "segcore" in benchmark.extra_info
    }


def bench_arm(name: str, args: Sequence[str], directory: Path) -> Arm:
    """Return the arm of a further process: the bench as it was called, with the same directories to import from.

    Args:
        name: of the process, for errors.
        args: pytest's.
        directory: where pytest was called.
    """
    path = tuple(entry or str(directory) for entry in sys.path)
    kept = tuple(arg for arg in args if arg.partition("=")[0] not in CACHE_OPTIONS)
    return Arm(name, kept, directory, path=path)


def measure_process(
    arm: Arm,
    items: Mapping[str, Wanted],
    neighbours: Neighbours,
    tell: Callable[[str], None] = lambda _: None,
    start: StartWorker = start_worker,
) -> tuple[dict[str, ProcessRecord], dict[str, str]]:
    """Measure items in one more process; return the records by node id, and by node id why an item has none.

    If the process ends with an item, another one measures those that are left.

    Args:
        arm: the bench.
        items: what to measure, by node id.
        neighbours: waits for a quiet machine.
        tell: called with the node id of each item when it begins.
        start: starts a process of an arm for the given items.
    """
    left = visits(items)
    parts, errors = dict[str, list[ProcessRecord]](), dict[str, str]()
    while left:
        current = ""
        try:
            with start(arm, left) as worker:
                while item := worker.item():
                    current = item.name
                    tell(current)
                    own = parts.setdefault(current, [])
                    rounds = items[current].rounds - sum(len(part.samples) for part in own)
                    found = _measured(worker, items[current], math.ceil(rounds / left.count(current)), neighbours)
                    own.append(found.model_copy(update={"cold_start_s": item.cold_start_s}))
                    position = left.index(current)
                    left = left[:position] + left[position + 1 :]
                    current = ""
                    worker.next_item()
            reason = f"{arm.name} did not run it"
        except ArmError as error:
            reason = str(error)
        for node in [current] if current else set(left):
            errors[node] = reason
        left = _without_repeats(node for node in left if node not in errors)
    return {node: _joined(own) for node, own in parts.items() if node not in errors}, errors


def visits(items: Mapping[str, Wanted]) -> tuple[str, ...]:
    """Return which items a process measures one after the other; those of a model with short calls come back in turns.

    An item never follows itself: pytest would not set it up again.
    """
    order: list[str] = []
    for _, group in groupby(items, key=lambda node: items[node].model):
        nodes = list(group)
        order += [node for visit in range(VISITS) for node in nodes if visit < items[node].visits]
    return _without_repeats(order)


def _without_repeats(nodes: Iterable[str]) -> tuple[str, ...]:
    return tuple(node for node, _ in groupby(nodes))


def _joined(parts: Sequence[ProcessRecord]) -> ProcessRecord:
    """Return what a process measured in several visits as one record."""
    loads = [part.other_load for part in parts if part.other_load is not None]
    return ProcessRecord(
        samples=tuple(seconds for part in parts for seconds in part.samples),
        reference=tuple(seconds for part in parts for seconds in part.reference),
        other_load=max(loads, default=None),
        cold_start_s=parts[0].cold_start_s,
    )


def _measured(worker: RoundsClient, wanted: Wanted, rounds: int, neighbours: Neighbours) -> ProcessRecord:
    if wanted.call_s < FAST_CALL_S:
        worker.measure(1)  # the process has been stopped since its warm-up

    def block() -> tuple[Rounds, float]:
        turn, left = max(1, int(TURN_S / wanted.call_s)), rounds
        found = Rounds((), (), 0.0)
        while left:
            more = worker.measure_rounds(min(turn, left), wanted.device)
            left -= len(more.times_s)
            found = Rounds(found.times_s + more.times_s, found.reference_s + more.reference_s, found.cpu_s + more.cpu_s)
        return found, found.cpu_s

    found = neighbours.measure(block)
    return ProcessRecord(samples=found.result.times_s, reference=found.result.reference_s, other_load=found.load)
