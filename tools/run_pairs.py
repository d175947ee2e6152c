"""What two ordinary runs of the same code differ by on this machine: ``python -m tools.run_pairs --pairs 20``.

Makes pairs of runs as a person makes them (``pytest bench/ --benchmark-save``), prints for every item the noise between
processes, that between runs beyond it, and the gate's verdicts on the pairs, and then what the gate should assume where
it has no history (`ASSUMED_RUN_SD`, `assumed_noise`): the upper ends of 90 % intervals. With ``--slower 0.2``, a third
run follows each pair, in which every call is 20 % slower, and is judged against the first of its pair. With
``--gap 3600``, the runs of a pair are an hour apart; with ``--chain``, the second run of a pair is also the first of
the next, which takes fewer runs; with ``--neighbour``, another process loads one core in bursts. Runs are kept in
``--storage``, and ``--pairs 0`` judges those that are there.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import random
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.special import chdtri

from segcore.core.limits import Limits
from segcore.core.records import Benchmark, Run
from segcore.judgement.estimate import Estimate, estimate
from segcore.judgement.gate import seconds_between
from segcore.judgement.gate.speed import judge_change
from segcore.judgement.reference import SpeedCurve, curves_of
from segcore.judgement.statistics import median_error
from segcore.results.store import find_runs, load_run
from tools.slower import SHARE

NAME, SLOWER_NAME = "pairs", "slower"
TIMED = ("latency", "throughput")
BURST_S = 20.0
"""Mean length of a neighbour's bursts of load, and of the pauses between them."""


Pair = tuple[Run, Run]


@dataclass(frozen=True)
class ItemNoise:
    """What the runs of one item differ by; standard deviations of log times."""

    item: str
    pairs: int
    process_sd: float
    """Between the processes of a run, relative to the reference where that explains them."""
    pair_sd: float
    """Of one run: that of the changes in pairs, over sqrt 2."""
    run_sd: float
    """Of one run, beyond the median of its processes."""
    verdicts: dict[str, int]


def analyse(pairs: Sequence[Pair], limit: float) -> tuple[ItemNoise, ...]:
    """Return the noise of every timed item that all runs have.

    Args:
        pairs: runs of the same code, in pairs.
        limit: of the gate on each pair, 0.10 for 10 %.
    """
    found = []
    for key, each in by_item(pairs).items():
        estimates = [estimated(item) for item in each]
        changes = [e.interval.value for e in estimates]
        process_sd = _rms([e.noise.sd for e in estimates])
        pair_sd = _rms(changes) / math.sqrt(2)
        part = process_sd * max(median_error(len(item.old.processes)) for item in each)
        run_sd = math.sqrt(max(0.0, pair_sd**2 - part**2))
        found.append(ItemNoise(key, len(each), process_sd, pair_sd, run_sd, dict(count_verdicts(each, limit))))
    return tuple(found)


@dataclass(frozen=True)
class Measured:
    """One item in two runs, their curve, and the seconds between them."""

    old: Benchmark
    new: Benchmark
    curve: SpeedCurve | None
    apart_s: float


def estimated(item: Measured) -> Estimate:
    """Return the change of an item."""
    return estimate(([item.old], [item.new]), 0.5, None, item.curve, item.apart_s)


def by_item(pairs: Sequence[Pair]) -> dict[str, list[Measured]]:
    """Return every timed item that all runs have, in each pair."""
    found: dict[str, list[Measured]] = {}
    for pair in pairs:
        old, new = ({b.info.key: b.quiet() for b in run.benchmarks if b.info.kind in TIMED} for run in pair)
        both = {key: (old[key], new[key]) for key in old if key in new}
        curves, apart_s = curves_of(both), seconds_between(*(run.record for run in pair))
        for key, items in both.items():
            found.setdefault(key, []).append(Measured(*items, curves.get(key), apart_s))
    return {key: each for key, each in found.items() if len(each) == len(pairs)}


def count_verdicts(items: Iterable[Measured], limit: float) -> Counter[str]:
    """Return how many pairs of an item in two runs the gate gives each verdict."""
    limits = Limits(max_slowdown={"p50": limit})
    return Counter(
        row.verdict
        for item in items
        for row in judge_change((item.old,), (item.new,), item.new.info.key, limits, None, item.curve, item.apart_s)
    )


def judge_slower(pairs: Sequence[Pair], limit: float) -> Iterator[str]:
    """Yield a line for each timed item: its verdicts in (run, slower run), and the median measured slowdown."""
    for key, each in by_item(pairs).items():
        slowdown = math.expm1(float(np.median([estimated(item).interval.value for item in each])))
        yield f"{key:<52} {slowdown:+7.1%}  {words(count_verdicts(each, limit))}"


def words(verdicts: Mapping[str, int]) -> str:
    """Return counts in one line."""
    return ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))


def upper(sds: Sequence[float], df: int) -> float:
    """Return the upper 95 % bound of the root mean square of standard deviations with `df` degrees of freedom each.

    The items of one run share its machine, so they do not add degrees of freedom.
    """
    return math.sqrt(float(np.mean(np.square(sds))) * df / float(chdtri(df, 0.95)))


def describe(found: Sequence[ItemNoise]) -> str:
    """Return a table and the defaults that follow."""
    lines = [f"{'item':<52} {'processes':>9} {'runs':>6} {'beyond':>6}  verdicts"]
    for noise in found:
        figures = f"{noise.process_sd:9.2%} {noise.pair_sd:6.2%} {noise.run_sd:6.2%}"
        lines.append(f"{noise.item:<52} {figures}  {words(noise.verdicts)}")
    pairs = found[0].pairs
    one = [math.hypot(noise.process_sd, noise.run_sd) for noise in found]
    lines += [
        f"{pairs} pairs; verdicts: {words(sum((Counter(noise.verdicts) for noise in found), Counter()))}",
        "root mean squares, upper bounds in brackets:",
        f"between processes {_rms([n.process_sd for n in found]):.2%}, "
        f"between runs {_rms([n.pair_sd for n in found]):.2%}",
        f"assume between runs, beyond their processes: {_both([noise.run_sd for noise in found], pairs)}",
        f"assume for a run of one process: {_both(one, pairs)}",
    ]
    return "\n".join(lines)


def _rms(sds: Sequence[float]) -> float:
    return math.sqrt(float(np.mean(np.square(sds))))


def _both(sds: Sequence[float], pairs: int) -> str:
    return f"{_rms(sds):.2%} [{upper(sds, pairs):.2%}]"


def _burn(parent: int) -> None:
    while os.getppid() == parent:  # which may have been killed
        end = time.monotonic() + random.expovariate(1 / BURST_S)
        while time.monotonic() < end:
            pass
        time.sleep(random.expovariate(1 / BURST_S))


@contextmanager
def neighbour(wanted: bool) -> Iterator[None]:
    """Load one core in bursts during the body."""
    process = multiprocessing.get_context("spawn").Process(target=_burn, args=(os.getpid(),), daemon=True)
    if wanted:
        process.start()
    try:
        yield
    finally:
        if wanted:
            process.kill()
            process.join()


def planned(pairs: int, slower: float, chain: bool) -> list[tuple[float, bool]]:
    """Return the runs of pairs, or of a chain of them: by what share slower, and whether it is a pair's second run."""
    first, second = (0.0, False), (0.0, True)
    more = [(slower, False)] if slower else []
    if chain:
        return [first, *[*more, second] * pairs] if pairs else []
    return [first, second, *more] * pairs


def make_run(arguments: Sequence[str], storage: Path, slower: float = 0.0) -> None:
    """Make one run; its tables go to a log beside the runs."""
    plugin = ["-p", "tools.slower"] if slower else []
    name = SLOWER_NAME if slower else NAME
    command = [sys.executable, "-m", "pytest", *plugin, *arguments, f"--benchmark-save={name}"]
    with (storage / "log.txt").open("a", encoding="utf-8") as log:
        done = subprocess.run(
            [*command, f"--benchmark-storage={storage}"],
            env={**os.environ, SHARE: str(slower)},
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"a run ended with exit code {done.returncode}: see {storage / 'log.txt'}")


def main() -> None:
    """Make the pairs, and print what they differ by."""
    parser = argparse.ArgumentParser(prog="python -m tools.run_pairs", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--args", default="bench", help="pytest's arguments (default: bench)")
    parser.add_argument("--gap", type=float, default=0.0, help="seconds between the runs of a pair")
    parser.add_argument("--chain", action="store_true", help="the second run of a pair is the first of the next")
    parser.add_argument("--neighbour", action="store_true", help="load one core in bursts meanwhile")
    parser.add_argument("--slower", type=float, default=0.0, help="make a third run, by this share slower (0.2: 20 %%)")
    parser.add_argument("--limit", type=float, default=0.10, help="of the gate on each pair (default 0.10)")
    parser.add_argument("--storage", type=Path, default=Path("reports/pairs"))
    options = parser.parse_args()
    options.storage.mkdir(parents=True, exist_ok=True)
    with neighbour(options.neighbour):
        plan = planned(options.pairs, options.slower, options.chain)
        for number, (slower, is_second) in enumerate(plan, start=1):
            if is_second:
                time.sleep(options.gap)
            print(f"run {number} of {len(plan)}", file=sys.stderr, flush=True)
            make_run(shlex.split(options.args), options.storage, slower)
    paths = find_runs(options.storage)
    runs, slower_runs = (
        [run for run in map(load_run, paths) if run.record.complete and run.record.name == name]
        for name in (NAME, SLOWER_NAME)
    )
    firsts = runs if options.chain else runs[::2]
    pairs = list(pairwise(runs)) if options.chain else list(zip(firsts, runs[1::2], strict=False))
    found = analyse(pairs, options.limit) if pairs else ()
    print(describe(found) if found else f"no pairs of runs with timed items in {options.storage}")
    if pairs and slower_runs:
        print("slower runs against the first of their pair:")
        print(*judge_slower(list(zip(firsts, slower_runs, strict=False)), options.limit), sep="\n")


if __name__ == "__main__":
    main()
