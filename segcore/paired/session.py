"""A run of the paired gate: blocks of fresh process pairs until every item is decided or the time is over."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

from segcore.core.errors import ArmError, NoCodeError
from segcore.judgement.gate.verdict import GateResult, Row
from segcore.judgement.statistics import Interval
from segcore.paired.arms import Arm, with_own_bench
from segcore.paired.process import WorkerClient, WorkerItem, start_worker
from segcore.paired.sequential import LOOKS, MAX_BLOCKS, Look, blocks_needed, look, smallest_visible

WARMUP_CALLS = 3
TURN_S = 0.1
"""Approximate duration of one arm's turn, long compared to switching between the arms."""
BLOCK_S = 6.0
"""Time for the alternations of one item in one block; slow calls alternate less often."""
MIN_ALTERNATIONS, MAX_ALTERNATIONS = 6, 24
BUDGET_S = 300.0
"""Default time for each item."""
NO_LOOK = Look("inconclusive", Interval(-math.inf, 0.0, math.inf), blocks=0)


@dataclass(frozen=True)
class PairedOptions:
    """Limit and duration of a paired gate."""

    limit: float = 0.05
    """Largest allowed slowdown of items whose case has no limit, 0.05 for 5 %."""
    budget_s: float | None = None
    """Time for the whole gate; None is `BUDGET_S` for each item."""
    items: tuple[PairedItem, ...] = ()
    """The items to measure, with their limits; none are those that the bench selects."""
    base_limits: Mapping[str, float] = field(default_factory=dict)
    """Limits of the base's own cases, by name of the item, which the head cannot loosen."""


@dataclass(frozen=True)
class Block:
    """Result of one item in one pair of processes."""

    log_ratio: float
    """log(head / base)."""
    base_s: float
    """Median seconds of a call."""
    head_s: float


@dataclass(frozen=True)
class PairedItem:
    """One benchmark item. Its names differ between the arms if their options do."""

    base_name: str
    head_name: str
    limit: float
    blocks: tuple[Block, ...] = ()
    look: Look = NO_LOOK
    """The latest."""

    @property
    def log_ratios(self) -> tuple[float, ...]:
        """log(head / base) of each block, in order."""
        return tuple(block.log_ratio for block in self.blocks)

    @property
    def decided(self) -> bool:
        """Whether no more blocks are needed."""
        return self.look.decision != "inconclusive"


@dataclass(frozen=True)
class PairedResult:
    """The items, each with a look at all its blocks."""

    items: tuple[PairedItem, ...]
    blocks: int
    seconds: float


StartWorker = Callable[[Arm, "tuple[str, ...] | None"], AbstractContextManager[WorkerClient]]
RunArms = Callable[[Arm, Arm, PairedOptions, Callable[[str], None]], PairedResult]
"""Measures base and head as `run_paired` does, and is given lines of progress."""


def run_paired(
    base: Arm,
    head: Arm,
    options: PairedOptions,
    report: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    start: StartWorker = start_worker,
) -> PairedResult:
    """Measure two arms in alternation until every item is decided, `MAX_BLOCKS` are measured, or the time is over.

    Raises:
        ArmError: an arm could not run its bench, or the arms do not have the same items.
    """
    began = clock()
    items = options.items
    blocks = 0
    while blocks == 0 or _needs_block(items, blocks, clock() - began, options):
        undecided = [item for item in items if not item.decided]
        base_names, head_names = tuple(i.base_name for i in undecided), tuple(i.head_name for i in undecided)
        with start(base, base_names or None) as left, start(head, head_names or None) as right:
            pairs = _measure_items(left, right, same_names=base.args == head.args, head_first=blocks % 2 == 1)
        items = _with_block(_in_order_of(pairs, items) if blocks == 0 else items, pairs, options)
        blocks += 1
        report(_progress(items, blocks, clock() - began))
    return PairedResult(tuple(_with_last_look(item) for item in items), blocks, clock() - began)


def run_revisions(
    base: Arm,
    head: Arm,
    options: PairedOptions,
    report: Callable[[str], None] = lambda _: None,
    run: RunArms = run_paired,
) -> PairedResult:
    """Measure two worktrees with the bench of the head; if that imports no code from them, each with its own bench.

    A repository that only benches an installed package has no code of its own.

    Raises:
        ArmError: as `run_paired`.
    """
    try:
        return run(base, head, options, report)
    except NoCodeError:
        report("the bench imports no code of the repository: each arm runs the bench of its own revision")
        return run(with_own_bench(base, head), with_own_bench(head, head), options, report)


def _needs_block(items: Sequence[PairedItem], blocks: int, seconds: float, options: PairedOptions) -> bool:
    if blocks == MAX_BLOCKS or all(item.decided for item in items):
        return False
    budget = options.budget_s or BUDGET_S * len(items)
    return blocks < 2 or seconds + seconds / blocks <= budget  # an interval needs two


_Pair = tuple[WorkerItem, WorkerItem, Block]


def _measure_items(base: WorkerClient, head: WorkerClient, *, same_names: bool, head_first: bool) -> list[_Pair]:
    """Measure every item of a pair of workers; the n-th of one belongs to the n-th of the other."""
    pairs: list[_Pair] = []
    while True:
        left, right = base.item(), head.item()
        if left is None and right is None:
            return pairs
        if left is None or right is None or (same_names and left.name != right.name):
            names = [item.name if item else "no more" for item in (left, right)]
            raise ArmError(
                f"the arms do not run the same items: base has {names[0]} where head has {names[1]}; "
                "choose items that both have (-k, --segcore-model, --segcore-size)"
            )
        pairs.append((left, right, alternate(base, head, head_first=head_first)))
        base.next_item()
        head.next_item()


def alternate(base: WorkerClient, head: WorkerClient, *, head_first: bool) -> Block:
    """Let two workers take turns in ABBA order on the item that both have ready.

    Each alternation gives the log ratio of the mean times of its two turns; the block's value is their median.
    """
    call_s = statistics.fmean(min(worker.measure(WARMUP_CALLS)) / 1e9 for worker in (base, head))
    calls = min(200, max(1, round(TURN_S / call_s)))
    alternations = min(MAX_ALTERNATIONS, max(MIN_ALTERNATIONS, int(BLOCK_S / (2 * calls * call_s))))
    base_s, head_s = list[float](), list[float]()
    for n in range(alternations):
        turns = [(base, base_s), (head, head_s)]
        for worker, seconds in reversed(turns) if head_first ^ (n % 2 == 1) else turns:
            seconds.append(statistics.fmean(worker.measure(calls)) / 1e9)
    ratios = [math.log(h / b) for b, h in zip(base_s, head_s, strict=True)]
    return Block(statistics.median(ratios), statistics.median(base_s), statistics.median(head_s))


def _with_block(items: Sequence[PairedItem], pairs: Sequence[_Pair], options: PairedOptions) -> tuple[PairedItem, ...]:
    """Add a block to the undecided items, and look at those that have enough; the first block defines the items."""
    items = items or [PairedItem(base.name, head.name, _limit(base.name, head, options)) for base, head, _ in pairs]
    wanted = [(item.base_name, item.head_name) for item in items if not item.decided]
    found = [(base.name, head.name) for base, head, _ in pairs]
    if found != wanted:
        raise ArmError(f"the bench is not repeatable: wanted {wanted} again, found {found}")
    blocks = iter([block for *_, block in pairs])
    return tuple(item if item.decided else _looked(item, next(blocks)) for item in items)


def _limit(base_name: str, head: WorkerItem, options: PairedOptions) -> float:
    limit = options.limit if head.max_slowdown is None else head.max_slowdown
    return min(limit, options.base_limits.get(base_name, limit))


def own_limits(base: Arm, head: Arm, limit: float, start: StartWorker = start_worker) -> dict[str, float]:
    """Return the limits of the base's own bench and cases by item, `limit` where none is set; nothing is measured.

    Raises:
        ArmError: the base cannot run its bench.
    """
    found = {}
    with start(with_own_bench(base, head), None) as worker:
        while item := worker.item():
            found[item.name] = limit if item.max_slowdown is None else item.max_slowdown
            worker.next_item()
    return found


def _in_order_of(pairs: Sequence[_Pair], items: Sequence[PairedItem]) -> Sequence[PairedItem]:
    """Return items in the order in which the bench has them."""
    order = {head.name: n for n, (_, head, _) in enumerate(pairs)}
    return sorted(items, key=lambda item: order.get(item.head_name, len(order)))


def _looked(item: PairedItem, block: Block) -> PairedItem:
    item = replace(item, blocks=(*item.blocks, block))
    return replace(item, look=look(item.log_ratios, item.limit)) if len(item.blocks) in LOOKS else item


def _with_last_look(item: PairedItem) -> PairedItem:
    done = item.decided or item.look.blocks == len(item.blocks)
    return item if done else replace(item, look=look(item.log_ratios, item.limit))


def _progress(items: Sequence[PairedItem], blocks: int, seconds: float) -> str:
    undecided = [f"{math.expm1(statistics.fmean(item.log_ratios)):+.1%}" for item in items if not item.decided]
    rest = f"; undecided so far at {', '.join(undecided)}" if undecided else ""
    decided = len(items) - len(undecided)
    return f"block {blocks} of at most {MAX_BLOCKS}, {seconds:.0f} s: {decided} of {len(items)} items decided{rest}"


def budget_needed(result: PairedResult) -> float | None:
    """Estimate the seconds that would decide every item; None if nothing is open, or no number of blocks is enough."""
    open_items = [item for item in result.items if not item.decided]
    if not open_items or result.blocks >= MAX_BLOCKS:
        return None
    wanted = [item.look.blocks + blocks_needed(item.look, item.limit) for item in open_items]
    blocks = next((n for n in LOOKS if n >= max(wanted)), MAX_BLOCKS)
    return math.ceil(1.2 * blocks * result.seconds / result.blocks / 60) * 60.0


def as_gate(result: PairedResult, baseline: str, current: str) -> GateResult:
    """Return the result as rows like those of the gate on run files."""
    note = (
        f"{result.blocks} blocks of fresh process pairs in {result.seconds:.0f} s; the interval is valid at every look"
    )
    return GateResult(baseline, current, tuple(_row(item) for item in result.items), (note,))


def _row(item: PairedItem) -> Row:
    state = item.look
    bounds = (state.interval.low, state.interval.value, state.interval.high)
    change = Interval(*(math.expm1(bound) if bound < 700 else math.inf for bound in bounds))
    reason = f"{state.blocks} blocks"
    if state.decision == "inconclusive" and state.blocks < LOOKS[0]:
        reason = f"too early: {state.blocks} of at least {LOOKS[0]} blocks; raise --budget"
        change = Interval(-math.inf, change.value, math.inf)
    elif state.decision == "inconclusive":
        reason = (
            f"{reason} can show a change of {smallest_visible(state):.1%}; about "
            f"{blocks_needed(state, item.limit)} more would decide if the mean stays the same (--budget)"
        )
    return Row(
        item=item.head_name if item.base_name == item.head_name else f"{item.base_name} -> {item.head_name}",
        aspect="median",
        verdict=state.decision,
        reason=reason,
        unit="ms",
        old=1e3 * statistics.median(block.base_s for block in item.blocks),
        new=1e3 * statistics.median(block.head_s for block in item.blocks),
        change=change,
        limit=f"{item.limit:+.1%}",
    )
