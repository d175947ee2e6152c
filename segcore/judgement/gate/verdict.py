"""Verdicts, and the rows that carry them.

===============  ======================================================================================  ====
verdict          meaning                                                                                 exit
===============  ======================================================================================  ====
pass, improved   the interval of the change lies inside the allowed limit / is better than before        0
regressed        the interval lies beyond the limit, or accuracy fell below its limit                    1
missing          the baseline has it and the current run does not, or it is a NaN, or it ended in error  1
inconclusive     the interval straddles the limit: not enough evidence                                   3
incomparable     another machine, device, thread count, precision, photo or metric convention            3
===============  ======================================================================================  ====
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from segcore.judgement.statistics import Interval

Verdict = Literal["regressed", "missing", "inconclusive", "incomparable", "improved", "pass"]
Unit = Literal["ms", "images/s", "share", "MB", "J", "s", ""]

EXIT_CODES: dict[Verdict, int] = {
    "regressed": 1,
    "missing": 1,
    "inconclusive": 3,
    "incomparable": 3,
    "improved": 0,
    "pass": 0,
}
VERDICTS = tuple(EXIT_CODES)
"""Worst first."""


@dataclass(frozen=True)
class Row:
    """The verdict on one aspect of one item."""

    item: str
    """`BenchmarkRecord.key`."""
    aspect: str
    """``median``, ``p95``, ``mIoU``, ``IoU cat``, ``changed pixels``, ``peak memory``; ``item`` for all of it."""
    verdict: Verdict
    reason: str
    unit: Unit = ""
    old: float | None = None
    new: float | None = None
    change: Interval | None = None
    """A difference if the unit is a share, else relative (0.03 is 3 % slower or more)."""
    limit: str = ""
    rounds: int | None = None
    """Of the current run, that would bound an undecided quantile."""


@dataclass(frozen=True)
class GateResult:
    """The rows of one gate, in the order of the baseline's items, with notes on the runs."""

    baseline: str
    current: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()
    """That would decide what is undecided, to be copied."""

    @property
    def counts(self) -> dict[Verdict, int]:
        """Number of rows by verdict, worst first, without zeros."""
        counts = Counter(row.verdict for row in self.rows)
        return {verdict: counts[verdict] for verdict in VERDICTS if counts[verdict]}

    @property
    def exit_code(self) -> int:
        """1 if anything regressed or is missing, else 3 if anything, or everything, could not be judged, else 0."""
        codes = {EXIT_CODES[row.verdict] for row in self.rows}
        return 1 if 1 in codes else 3 if 3 in codes or not codes else 0


def worst(rows: Iterable[Row]) -> Row:
    """Return the row with the worst verdict."""
    return min(rows, key=lambda row: VERDICTS.index(row.verdict))


def decide(found: Interval, limit: float, improved_below: float = -math.inf) -> Verdict:
    """Compare an interval with the largest allowed value; lower is better."""
    if found.low > limit:
        return "regressed"
    if found.high <= limit:
        return "improved" if found.high < improved_below else "pass"
    return "inconclusive"
