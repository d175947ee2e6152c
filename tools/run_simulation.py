"""Error rates of the gate on two runs of four processes under a noise model: ``python -m tools.run_simulation``.

The gate's decision code runs on simulated records of several items. Drawn are what runs differ by (normal; a part of
it is the speed of the machine, which the reference task shows as well and all items share), what processes differ by
(normal), rounds (normal), and outliers: rounds that were interrupted, and processes that a neighbour has disturbed for
longer than the run would wait, most of which are marked (exponential).

With ``--settle``, what the two runs leave undecided is measured in turns, under the noise of `tools.gate_simulation`.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segcore.core.limits import Limits
from segcore.core.records import Benchmark, BenchmarkRecord, ProcessRecord, WeightsRecord
from segcore.judgement.gate.speed import judge_change
from segcore.judgement.reference import curves_of
from segcore.judgement.statistics import Floats, share_interval
from tools import gate_simulation

SLOWDOWNS = (0.0, 0.05, 0.10, 0.20)
ITEMS, PROCESSES, ROUNDS = 8, 4, 16
REFERENCE_S, CALL_S = 0.002, 0.06
VERDICTS = ("pass", "regressed", "inconclusive")


@dataclass(frozen=True)
class Noise:
    """Standard deviations of log times; docs/measuring.md says where they come from."""

    between_runs: float = 0.010
    machine_share: float = 0.5
    """Share of the variance between runs that is the machine's speed."""
    between_processes: float = 0.011
    within: float = 0.03
    outlier_share: float = 0.05
    """Share of rounds."""
    outlier_scale: float = 0.3
    """Mean of the exponential log ratio that an interrupted round adds."""
    disturbed_share: float = 0.02
    """Share of processes."""
    marked_share: float = 0.9
    """Share of the disturbed processes for which the load of others was measured."""
    disturbed_scale: float = 0.1
    """Mean of the exponential log ratio of their rounds."""

    def run(self, slowdown: float, rng: np.random.Generator) -> list[Benchmark]:
        """Draw the items of one run."""
        machine = rng.normal(0, self.between_runs * math.sqrt(self.machine_share))
        return [self._item(slowdown, machine, rng) for _ in range(ITEMS)]

    def _item(self, slowdown: float, machine: float, rng: np.random.Generator) -> Benchmark:
        level = math.log(CALL_S) + math.log1p(slowdown) + machine
        level += rng.normal(0, self.between_runs * math.sqrt(1 - self.machine_share))
        shape = (PROCESSES, ROUNDS)
        times = level + rng.normal(0, self.between_processes, (PROCESSES, 1)) + rng.normal(0, self.within, shape)
        times += (rng.random(shape) < self.outlier_share) * rng.exponential(self.outlier_scale, shape)
        disturbed = rng.random((PROCESSES, 1)) < self.disturbed_share
        times += disturbed * rng.exponential(self.disturbed_scale, (PROCESSES, 1))
        loads = np.where(disturbed & (rng.random((PROCESSES, 1)) < self.marked_share), 0.5, 0.0)
        reference = math.log(REFERENCE_S) + machine + rng.normal(0, self.within, shape)
        return item(np.exp(times), np.exp(reference), loads[:, 0])


def item(times: Floats, reference: Floats, loads: Floats) -> Benchmark:
    """Return an item from the seconds of its rounds and of the reference, shape (processes, rounds), and loads."""
    main, *further = (
        ProcessRecord.model_construct(samples=tuple(own), reference=tuple(task), other_load=load)
        for own, task, load in zip(times.tolist(), reference.tolist(), loads.tolist(), strict=True)
    )
    info = BenchmarkRecord(
        kind="latency",
        case="simulated",
        model="simulated",
        weights=WeightsRecord(kind="random", name="seed 0", sha256=""),
        device="cpu",
        size=320,
        input_shape=(1, 3, 320, 320),
        preprocess="none",
        reference=main.reference,
        other_load=main.other_load,
        processes=tuple(further),
    )
    return Benchmark(name=info.key, samples=main.samples, info=info)


def simulate(slowdown: float, limit: float, trials: int, noise: Noise, seed: int = 0) -> Counter[str]:
    """Return the number of each verdict on `trials` items at a true slowdown; `improved` counts as `pass`."""
    rng, limits = np.random.default_rng(seed), Limits(max_slowdown={"p50": limit})
    verdicts: Counter[str] = Counter()
    for _ in range(trials // ITEMS):
        both = zip(noise.run(0.0, rng), noise.run(slowdown, rng), strict=True)
        pairs = {str(number): pair for number, pair in enumerate(both)}
        curves = curves_of(pairs)
        for key, (old, new) in pairs.items():
            (row,) = judge_change((old,), (new,), new.info.key, limits, None, curves.get(key))
            verdicts["pass" if row.verdict == "improved" else row.verdict] += 1
    return verdicts


def settle(verdicts: Counter[str], slowdown: float, limit: float, seed: int = 0) -> Counter[str]:
    """Return the number of each verdict if those that are inconclusive are measured in turns."""
    turns, _ = gate_simulation.simulate(slowdown, limit, verdicts["inconclusive"], gate_simulation.Noise(), seed)
    return Counter({"pass": verdicts["pass"], "regressed": verdicts["regressed"]}) + turns


def main() -> None:
    """Print the share of each verdict for several true slowdowns, with its 95 % interval."""
    parser = argparse.ArgumentParser(prog=f"python -m tools.{Path(__file__).stem}", description=__doc__)
    parser.add_argument("--trials", type=int, default=2000)
    parser.add_argument("--limit", type=float, default=0.10, help="allowed slowdown (default 0.10)")
    parser.add_argument("--between-runs", type=float, default=Noise.between_runs)
    parser.add_argument("--between-processes", type=float, default=Noise.between_processes)
    parser.add_argument("--settle", action="store_true", help="measure in turns what the runs leave undecided")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    noise = Noise(between_runs=options.between_runs, between_processes=options.between_processes)
    print(f"{options.trials} items each, {ITEMS} in a run of {PROCESSES} processes, limit {options.limit:.0%}; {noise}")
    for slowdown in SLOWDOWNS:
        verdicts = simulate(slowdown, options.limit, options.trials, noise, options.seed)
        if options.settle:
            verdicts = settle(verdicts, slowdown, options.limit, options.seed)
        shares = []
        for verdict in VERDICTS:
            share = share_interval(verdicts[verdict], verdicts.total())
            shares.append(f"{verdict} {share.value:.2%} [{share.low:.2%}, {share.high:.2%}]")
        print(f"true slowdown {slowdown:4.0%}: " + ", ".join(shares))


if __name__ == "__main__":
    main()
