"""The gate's audit of itself: how often it errs on this machine, and the limit that it can honestly enforce.

The paired gate runs the code as it stands against itself: unchanged, and with extra work burnt inside the forward pass
of one arm, so that its calls take 5, 10 and 20 % longer. Verdicts are counted. As a few gates cannot show rates of a
few per cent, the noise between blocks is measured from all of them as well, and the gate simulated with it.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scipy.special import chdtri

from segcore.core.errors import ArmError
from segcore.judgement.statistics import share_interval
from segcore.paired.arms import Arm
from segcore.paired.sequential import MAX_BLOCKS
from segcore.paired.session import PairedItem, PairedResult, Settings, run_paired
from segcore.paired.simulation import Noise, simulate

LEVELS = (0.0, 0.05, 0.10, 0.20)
"""Slowdowns that are injected."""
LIMITS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.10, 0.15, 0.20, 0.30, 0.50)
"""Of which the smallest that can be enforced is looked for."""
TRIALS = 1000
_SHOWN = ("pass", "regressed", "inconclusive")
MAX_FALSE_ALARMS, MIN_PASSES, MIN_DETECTED = 0.005, 0.90, 0.95
"""A limit is honest if, without a change, at most so many gates are regressed and at least so many pass, and if a
slowdown of twice the limit is found at least so often."""


@dataclass(frozen=True)
class Level:
    """What became of the gates with one slowdown."""

    slowdown: float
    gates: int
    verdicts: dict[str, int]
    measured: float
    """Mean change that the blocks show, as a ratio minus one."""
    expected: dict[str, float]
    """Share of each verdict in simulated gates with the noise of this machine."""


@dataclass(frozen=True)
class Audit:
    """What the gate can do on this machine."""

    limit: float
    levels: tuple[Level, ...]
    block_sd: float
    """Standard deviation of the log ratio from one pair of processes to the next."""
    block_sd_bound: float
    """Its upper 95 % confidence bound."""
    blocks: int
    honest_limit: float | None
    """The smallest of `LIMITS` that is honest with noise at that bound; None if none is."""


def audit(
    args: Sequence[str],
    settings: Settings,
    gates: int,
    tell: Callable[[str], None],
    run: Callable[[Arm, Arm, Settings, Callable[[str], None]], PairedResult] = run_paired,
) -> Audit:
    """Run `gates` gates at each of `LEVELS` in this directory, and judge the gate by them.

    Args:
        args: pytest's, bench first.
        settings: limit and time of each gate.
        gates: per level, at least one.
        tell: gets progress.
        run: runs one gate.

    Raises:
        ArmError: the bench cannot be run, or gave too few blocks.
    """
    base = Arm("base", tuple(args), Path.cwd())
    found: dict[float, list[PairedItem]] = {level: [] for level in LEVELS}
    for number in range(gates):  # level by level within each round, so that a busy hour does not hit one of them alone
        for level in LEVELS:
            tell(f"round {number + 1} of {gates}, slowdown {level:.0%}")
            found[level] += run(base, replace(base, name="head", slowdown=level), settings, tell).items
    squares, df, blocks = _spread([item.log_ratios for items in found.values() for item in items])
    if df < 1:
        raise ArmError("the audit has fewer than two blocks of any item: raise --budget")
    sd, bound = math.sqrt(squares / df), math.sqrt(squares / float(chdtri(df, 0.95)))
    return Audit(
        limit=settings.limit,
        levels=tuple(_level(level, items, sd) for level, items in found.items()),
        block_sd=sd,
        block_sd_bound=bound,
        blocks=blocks,
        honest_limit=next((limit for limit in LIMITS if is_honest(limit, bound)), None),
    )


def is_honest(limit: float, block_sd: float) -> bool:
    """Say whether a gate with this limit keeps `MAX_FALSE_ALARMS`, `MIN_PASSES` and `MIN_DETECTED` at this noise."""
    same, _ = simulate(0.0, limit, TRIALS, _noise(block_sd))
    slower, _ = simulate(2 * limit, limit, TRIALS, _noise(block_sd))
    return (
        same["regressed"] <= MAX_FALSE_ALARMS * TRIALS
        and same["pass"] >= MIN_PASSES * TRIALS
        and slower["regressed"] >= MIN_DETECTED * TRIALS
    )


def describe(result: Audit) -> str:
    """Return the audit as a table with a sentence on what it means."""
    lines = [
        f"The gate on this machine, with a limit of {result.limit:.0%}: gates counted [95 % interval], and the share",
        "expected with the noise measured:",
        "  slowdown  measured" + "".join(f"  {verdict:<28}" for verdict in _SHOWN).rstrip(),
    ]
    for level in result.levels:
        cells = []
        for verdict in _SHOWN:
            share = share_interval(level.verdicts.get(verdict, 0), level.gates)
            counted = f"{level.verdicts.get(verdict, 0)} of {level.gates} [{share.low:.0%}, {share.high:.0%}]"
            cells.append(f"  {f'{counted} {level.expected[verdict]:.1%}':<28}")
        lines.append(f"  {level.slowdown:8.0%}  {level.measured:+8.1%}{''.join(cells)}".rstrip())
    lines.append(
        f"Noise from one pair of processes to the next: {result.block_sd:.1%} "
        f"(at most {result.block_sd_bound:.1%}) over {result.blocks} blocks."
    )
    if result.honest_limit is None:
        lines.append(
            f"No limit up to {LIMITS[-1]:.0%} can be enforced here: the machine is too noisy for {MAX_BLOCKS} blocks."
        )
    else:
        lines.append(
            f"It can honestly enforce a limit of {result.honest_limit:.0%}: without a change at least {MIN_PASSES:.0%} "
            f"pass and at most {MAX_FALSE_ALARMS:.1%} are false alarms, and {MIN_DETECTED:.0%} of slowdowns of twice "
            "the limit are found."
        )
    return "\n".join(lines) + "\n"


def _level(slowdown: float, items: Sequence[PairedItem], sd: float) -> Level:
    decisions: Counter[str] = Counter("pass" if i.state.decision == "improved" else i.state.decision for i in items)
    expected, _ = simulate(slowdown, items[0].limit, TRIALS, _noise(sd))
    return Level(
        slowdown=slowdown,
        gates=len(items),
        verdicts=dict(decisions),
        measured=math.expm1(statistics.fmean(ratio for item in items for ratio in item.log_ratios)),
        expected={verdict: expected[verdict] / TRIALS for verdict in _SHOWN},
    )


def _spread(gates: Sequence[Sequence[float]]) -> tuple[float, int, int]:
    """Return squared deviations from each gate's own mean, their degrees of freedom, and the number of blocks."""
    squares = sum((len(g) - 1) * statistics.variance(g) for g in gates if len(g) > 1)
    return squares, sum(len(g) - 1 for g in gates if g), sum(map(len, gates))


def _noise(block_sd: float) -> Noise:
    """All noise between blocks: what they show of alternations and outliers is in it already."""
    return Noise(between_pairs=block_sd, within_pair=0.0, outlier_share=0.0, wide_pair_share=0.0)
