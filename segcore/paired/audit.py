"""Self-audit of the paired gate: its error rates on this machine, and the smallest limit that it can enforce.

The gate compares the present code with itself: unchanged, and with one arm slowed by 5, 10 and 20 %. A few gates cannot
show rates of a few per cent, so gates with the measured noise between blocks are simulated too.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import chdtri

from segcore.core.errors import ArmError
from segcore.judgement.gate.verdict import decide
from segcore.judgement.statistics import Floats, Interval, share_interval
from segcore.paired.arms import Arm
from segcore.paired.sequential import LOOKS, MAX_BLOCKS, bounds
from segcore.paired.session import PairedItem, PairedOptions, RunArms, run_paired

LEVELS = (0.0, 0.05, 0.10, 0.20)
"""Injected slowdowns."""
LIMITS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.10, 0.15, 0.20, 0.30, 0.50)
"""Candidates for the smallest enforceable limit."""
TRIALS = 1000
"""Simulated gates for each rate."""
MAX_FALSE_ALARMS, MIN_PASSES, MIN_DETECTED = 0.005, 0.90, 0.95
"""A limit is enforceable if, without a change, at most this share of gates is regressed and at least this share passes,
and at least this share of slowdowns of twice the limit is found."""
SLOW_WORKER = Path(__file__).with_name("slow_worker.py")
_VERDICTS = ("pass", "regressed", "inconclusive")


@dataclass(frozen=True)
class Level:
    """The gates with one slowdown."""

    slowdown: float
    gates: int
    verdicts: dict[str, int]
    measured: float
    """Mean change of the blocks, as a ratio minus one."""
    expected: dict[str, float]
    """Share of each verdict in simulated gates with the measured noise."""


@dataclass(frozen=True)
class Audit:
    """What the gate can do on this machine."""

    limit: float
    levels: tuple[Level, ...]
    block_sd: float
    """Standard deviation of the log ratio between pairs of processes."""
    block_sd_bound: float
    """Its upper 95 % confidence bound."""
    blocks: int
    honest_limit: float | None
    """The smallest of `LIMITS` that is enforceable with noise at that bound; None if none is."""


def audit(
    args: Sequence[str],
    options: PairedOptions,
    gates: int,
    report: Callable[[str], None],
    run: RunArms = run_paired,
) -> Audit:
    """Run a number of gates at each of `LEVELS` in this directory, and derive what the gate can do.

    Raises:
        ArmError: the bench cannot be run, or gave too few blocks.
    """
    base = Arm("base", tuple(args), Path.cwd())
    found: dict[float, list[PairedItem]] = {level: [] for level in LEVELS}
    for number in range(gates):  # one of each level per round, so that a phase of load does not hit a single level
        for level in LEVELS:
            report(f"round {number + 1} of {gates}, slowdown {level:.0%}")
            program = (str(SLOW_WORKER), str(level)) if level else base.program
            found[level] += run(base, replace(base, name="head", program=program), options, report).items
    return _audit(found, options.limit)


def _audit(found: dict[float, list[PairedItem]], limit: float) -> Audit:
    ratios = [item.log_ratios for items in found.values() for item in items]
    df = sum(len(gate) - 1 for gate in ratios)
    if df < 1:
        raise ArmError("the audit has fewer than two blocks of any item: raise --budget")
    squares = sum((len(gate) - 1) * statistics.variance(gate) for gate in ratios if len(gate) > 1)
    sd, bound = math.sqrt(squares / df), math.sqrt(squares / float(chdtri(df, 0.95)))
    return Audit(
        limit=limit,
        levels=tuple(_level(level, items, sd) for level, items in found.items()),
        block_sd=sd,
        block_sd_bound=bound,
        blocks=sum(map(len, ratios)),
        honest_limit=next((limit for limit in LIMITS if is_honest(limit, bound)), None),
    )


def _level(slowdown: float, items: Sequence[PairedItem], sd: float) -> Level:
    decisions = Counter(item.look.decision for item in items)
    decisions["pass"] += decisions.pop("improved", 0)
    expected = _simulate(slowdown, items[0].limit, sd)
    return Level(
        slowdown=slowdown,
        gates=len(items),
        verdicts={verdict: count for verdict, count in decisions.items() if count},
        measured=math.expm1(statistics.fmean(ratio for item in items for ratio in item.log_ratios)),
        expected={verdict: expected[verdict] / TRIALS for verdict in _VERDICTS},
    )


def is_honest(limit: float, block_sd: float) -> bool:
    """Return whether a gate with this limit keeps its promised rates at this noise."""
    same, slower = _simulate(0.0, limit, block_sd), _simulate(2 * limit, limit, block_sd)
    return (
        same["regressed"] <= MAX_FALSE_ALARMS * TRIALS
        and same["pass"] >= MIN_PASSES * TRIALS
        and slower["regressed"] >= MIN_DETECTED * TRIALS
    )


def _simulate(slowdown: float, limit: float, block_sd: float) -> Counter[str]:
    noise = np.random.default_rng(0).normal(0.0, block_sd, (TRIALS, MAX_BLOCKS))
    return simulate_gates(math.log1p(slowdown) + noise, limit)[0]


def simulate_gates(blocks: Floats, limit: float) -> tuple[Counter[str], float]:
    """Decide a gate per row of log ratios; return the number of each decision, and the mean number of blocks.

    `improved` is counted as `pass`.
    """
    decisions: Counter[str] = Counter()
    used = 0
    for n in LOOKS:
        found = zip(*(each.tolist() for each in bounds(blocks[:, :n])), strict=True)
        now = [decide(Interval(*each), math.log1p(limit), improved_below=0.0) for each in found]
        decided = [decision != "inconclusive" or n == MAX_BLOCKS for decision in now]
        decisions.update("pass" if d == "improved" else d for d, done in zip(now, decided, strict=True) if done)
        used += n * sum(decided)
        blocks = blocks[~np.array(decided, dtype=bool)]
    return decisions, used / max(1, decisions.total())


def describe(result: Audit) -> str:
    """Return the audit as a table and its conclusion."""
    lines = [
        f"The gate on this machine with a limit of {result.limit:.0%}. Number of gates [95 % interval], and the share",
        "expected with the measured noise:",
        "  slowdown  measured" + "".join(f"  {verdict:<28}" for verdict in _VERDICTS).rstrip(),
    ]
    for level in result.levels:
        cells = []
        for verdict in _VERDICTS:
            count = level.verdicts.get(verdict, 0)
            share = share_interval(count, level.gates)
            cell = f"{count} of {level.gates} [{share.low:.0%}, {share.high:.0%}] {level.expected[verdict]:.1%}"
            cells.append(f"  {cell:<28}")
        lines.append(f"  {level.slowdown:8.0%}  {level.measured:+8.1%}{''.join(cells)}".rstrip())
    lines.append(
        f"Noise between pairs of processes: {result.block_sd:.1%} "
        f"(at most {result.block_sd_bound:.1%}) over {result.blocks} blocks."
    )
    if result.honest_limit is None:
        lines.append(f"No limit up to {LIMITS[-1]:.0%} can be enforced: too much noise for {MAX_BLOCKS} blocks.")
    else:
        lines.append(
            f"It can enforce a limit of {result.honest_limit:.0%}: without a change at least {MIN_PASSES:.0%} pass "
            f"and at most {MAX_FALSE_ALARMS:.1%} are regressed; {MIN_DETECTED:.0%} of slowdowns of twice the limit "
            "are found."
        )
    return "\n".join(lines) + "\n"
