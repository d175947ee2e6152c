"""The paired gate: blocks of fresh process pairs, until every item is decided or the time is over."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import NoReturn

from segcore.core.errors import ArmError
from segcore.judgement.gate.verdict import GateResult, Row
from segcore.judgement.statistics import Interval
from segcore.paired.arms import Arm
from segcore.paired.process import Worker, WorkerClient
from segcore.paired.sequential import MAX_BLOCKS, Look, blocks_needed, is_look, look, smallest_visible

WARMUP_CALLS = 3
TURN_S = 0.1
"""A turn of one arm lasts about this long, so that a short call is not drowned in the switching."""
BLOCK_S = 6.0
"""What the alternations of one item may take in one block; slow calls alternate less often, down to the fewest."""
MIN_ALTERNATIONS, MAX_ALTERNATIONS = 6, 24
BUDGET_S = 300.0
"""Time for each item, unless told otherwise."""


@dataclass(frozen=True)
class Settings:
    """What the user decides."""

    limit: float = 0.05
    """Largest allowed slowdown of items whose case does not say, 0.05 for 5 %."""
    budget_s: float | None = None
    """Of the whole gate; None is `BUDGET_S` for each item."""


@dataclass(frozen=True)
class PairedItem:
    """One item, decided or out of time. Names differ between the arms where their options do."""

    base_name: str
    head_name: str
    limit: float
    state: Look
    log_ratios: tuple[float, ...]
    """log(head / base) of each block, in order."""
    base_s: float
    """Median seconds of a call of the base arm."""
    head_s: float


@dataclass(frozen=True)
class PairedResult:
    """What the paired gate found."""

    items: tuple[PairedItem, ...]
    blocks: int
    seconds: float


StartWorker = Callable[[Arm, "tuple[str, ...] | None"], AbstractContextManager[WorkerClient]]


@dataclass
class _Progress:
    """An item on its way."""

    base_name: str
    head_name: str
    limit: float
    log_ratios: list[float] = field(default_factory=list)
    base_s: list[float] = field(default_factory=list)
    head_s: list[float] = field(default_factory=list)
    state: Look | None = None

    @property
    def decided(self) -> bool:
        return self.state is not None and self.state.decision != "inconclusive"


@dataclass(frozen=True)
class Block:
    """What one pair of processes showed of one item."""

    log_ratio: float
    base_s: float
    head_s: float


def run_paired(
    base: Arm,
    head: Arm,
    settings: Settings,
    tell: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    start_worker: StartWorker = Worker,
) -> PairedResult:
    """Measure two arms in turns until every item is decided, `MAX_BLOCKS` are in, or the time is over.

    Args:
        base: what was.
        head: what is to be judged.
        settings: limits and time.
        tell: gets a line of progress after every block.
        clock: seconds, monotonic.
        start_worker: opens a process of an arm for the items named, or for all.

    Raises:
        ArmError: an arm could not run its bench, or they do not have the same items.
    """
    start = clock()
    items: list[_Progress] = []
    blocks = 0
    while blocks < MAX_BLOCKS:
        undecided = [item for item in items if not item.decided]
        if blocks and not undecided:
            break
        spent = clock() - start
        budget = settings.budget_s or BUDGET_S * len(items)
        if blocks >= 2 and spent + spent / blocks > budget:
            break
        undecided_names = (
            (tuple(i.base_name for i in undecided), tuple(i.head_name for i in undecided)) if blocks else (None, None)
        )
        with start_worker(base, undecided_names[0]) as left, start_worker(head, undecided_names[1]) as right:
            found = _run_block(left, right, head_first=blocks % 2 == 1, same_names=base.args == head.args)
        _merge(items, undecided, found, settings)
        blocks += 1
        for item in items:
            if not item.decided and is_look(len(item.log_ratios)):
                item.state = look(item.log_ratios, item.limit)
        tell(_told(items, blocks, clock() - start))
    return PairedResult(tuple(_finished(item) for item in items), blocks, clock() - start)


def _finished(item: _Progress) -> PairedItem:
    state = item.state
    if state is None or (not item.decided and state.blocks < len(item.log_ratios)):
        state = look(item.log_ratios, item.limit)
    return PairedItem(
        base_name=item.base_name,
        head_name=item.head_name,
        limit=item.limit,
        state=state,
        log_ratios=tuple(item.log_ratios),
        base_s=statistics.median(item.base_s),
        head_s=statistics.median(item.head_s),
    )


@dataclass(frozen=True)
class _Found:
    """What one pair of processes showed of one item."""

    base_name: str
    head_name: str
    limit: float | None
    block: Block


def _run_block(left: WorkerClient, right: WorkerClient, *, head_first: bool, same_names: bool) -> list[_Found]:
    """Measure every item that a process of each arm serves.

    Items come in the bench's order in both arms, so the n-th of one is the n-th of the other; their names must agree
    unless the arms have different options.
    """
    found: list[_Found] = []
    while True:
        base, head = left.item(), right.item()
        if base is None and head is None:
            return found
        if base is None or head is None or (same_names and base.name != head.name):
            _refuse_pair(base.name if base else None, head.name if head else None)
        block = alternate(left, right, head_first=head_first)
        found.append(_Found(base.name, head.name, head.limit, block))
        left.next()
        right.next()


def _merge(items: list[_Progress], undecided: list[_Progress], found: list[_Found], settings: Settings) -> None:
    """Add a block to the items it was to measure; the first one finds out which items there are."""
    if not items:
        undecided = [_Progress(f.base_name, f.head_name, settings.limit if f.limit is None else f.limit) for f in found]
        items.extend(undecided)
    wanted = [(item.base_name, item.head_name) for item in undecided]
    got = [(f.base_name, f.head_name) for f in found]
    if got != wanted:
        raise ArmError(f"the bench is not repeatable: wanted {wanted} again, got {got}")
    for item, one in zip(undecided, found, strict=True):
        item.log_ratios.append(one.block.log_ratio)
        item.base_s.append(one.block.base_s)
        item.head_s.append(one.block.head_s)


def _refuse_pair(left: str | None, right: str | None) -> NoReturn:
    raise ArmError(
        f"the arms do not run the same items: base has {left or 'no more'} where head has {right or 'no more'}; "
        "choose items that both have (-k, --segcore-model, --segcore-size)"
    )


def alternate(base: WorkerClient, head: WorkerClient, *, head_first: bool) -> Block:
    """Let two live workers take turns on the item that both have loaded, in ABBA order.

    Each alternation gives the log ratio of the mean times of its two turns; their median is the block's, so that a
    burst of load during some of them does not move it.
    """
    warm = [min(worker.run(WARMUP_CALLS)) / 1e9 for worker in (base, head)]
    call_s = statistics.fmean(warm)
    calls = min(200, max(1, round(TURN_S / call_s)))
    alternations = min(MAX_ALTERNATIONS, max(MIN_ALTERNATIONS, int(BLOCK_S / (2 * calls * call_s))))
    base_s: list[float] = []
    head_s: list[float] = []
    for n in range(alternations):
        turns = [(base, base_s), (head, head_s)]
        for worker, seconds in reversed(turns) if head_first ^ (n % 2 == 1) else turns:
            seconds.append(statistics.fmean(worker.run(calls)) / 1e9)
    ratios = [math.log(h / b) for b, h in zip(base_s, head_s, strict=True)]
    return Block(statistics.median(ratios), statistics.median(base_s), statistics.median(head_s))


def as_gate(result: PairedResult, baseline: str, current: str) -> GateResult:
    """Return the rows that the gate of run files would have for these verdicts."""
    note = (
        f"{result.blocks} blocks of fresh process pairs in {result.seconds:.0f} s; the interval is valid at every look"
    )
    return GateResult(baseline, current, tuple(_row(item) for item in result.items), (note,))


def _row(item: PairedItem) -> Row:
    state, blocks = item.state, item.state.blocks
    reason = f"{blocks} blocks"
    if state.decision == "inconclusive":
        reason = (
            f"{blocks} blocks could have told a change of {smallest_visible(state):.1%}; about "
            f"{blocks_needed(state, item.limit)} more would decide, if the mean stays (--budget)"
        )
    interval = state.interval
    low, value, high = (math.expm1(min(x, 700.0)) for x in (interval.low, interval.value, interval.high))
    same = item.base_name == item.head_name
    return Row(
        item=item.head_name if same else f"{item.base_name} -> {item.head_name}",
        aspect="median",
        verdict=state.decision,
        reason=reason,
        unit="ms",
        old=1e3 * item.base_s,
        new=1e3 * item.head_s,
        change=Interval(low, value, high),
        limit=f"{item.limit:+.1%}",
    )


def _told(items: list[_Progress], blocks: int, seconds: float) -> str:
    """One line of progress."""
    decided = sum(item.decided for item in items)
    means = ", ".join(f"{math.expm1(statistics.fmean(i.log_ratios)):+.1%}" for i in items if not i.decided)
    rest = f"; undecided so far at {means}" if means else ""
    return f"block {blocks} of at most {MAX_BLOCKS}, {seconds:.0f} s: {decided} of {len(items)} items decided{rest}"
