"""Other processes that use the processor beside a measurement: wait until they are done, or measure again.

What one busy neighbour does to a network on two threads cannot be averaged out: its calls take five to fifty times as
long in some processes and not in others. So each block of rounds begins when the machine is quiet, and is repeated if
it did not stay so, within a budget of waiting for the whole run.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import psutil

from segcore.core.records import MAX_OTHER_LOAD

_T = TypeVar("_T")

LOOK_S = 0.1
"""Time over which the load of others is measured before a block."""
FRESH_S = 1.0
"""For so long after an undisturbed block the machine counts as quiet: the next block begins without a look."""


@dataclass(frozen=True)
class Usage:
    """Processor time at one moment."""

    at_s: float
    busy_s: float | None
    """Processor seconds used by all processes since the machine started; None if a sandbox withholds them."""
    own_s: float
    """Processor seconds used by this process and its terminated children."""
    processors: int


def processor_s() -> float:
    """Return the processor seconds of this process and of those that it started and that have ended: programs."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def read_usage() -> Usage:
    """Read the processor time of the machine and of this process."""
    at_s, own_s = time.monotonic(), processor_s()
    try:
        cpu = psutil.cpu_times()
        # user time includes guest time
        idle = sum(getattr(cpu, name, 0.0) for name in ("idle", "iowait", "guest", "guest_nice"))
        busy_s = float(sum(cpu) - idle)
    except (OSError, AttributeError):
        busy_s = None
    return Usage(at_s, busy_s, own_s, psutil.cpu_count() or 1)


def other_load(before: Usage, after: Usage, more_own_s: float = 0.0) -> float | None:
    """Return the share (0 to 1) of the machine's processor time that other processes used between two states.

    `more_own_s` are processor seconds of a process of ours that has not ended.
    """
    if before.busy_s is None or after.busy_s is None:
        return None
    others = (after.busy_s - before.busy_s) - (after.own_s - before.own_s) - more_own_s
    return min(1.0, max(0.0, others) / max(1e-9, (after.at_s - before.at_s) * after.processors))


@dataclass(frozen=True)
class Measured(Generic[_T]):
    """A block of rounds, and how others disturbed it."""

    result: _T
    load: float | None
    """Share of the machine's processor time that others used meanwhile; None if unknown."""
    seconds: float


class Neighbours:
    """Waits for a quiet machine: `budget_s` seconds in a run, with what it takes to measure blocks again."""

    def __init__(
        self,
        budget_s: float,
        probe: Callable[[], Usage] = read_usage,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._budget_s, self._probe, self._sleep = budget_s, probe, sleep
        self.tell: Callable[[float], None] = lambda _: None
        """Called with the load of others while it is waited for."""
        self.waited_s = 0.0
        """Waiting, and measuring what was then measured again."""
        self._quiet_until_s = -math.inf

    def wait(self) -> Usage:
        """Return the state in which a block begins: quiet, unless the budget is used up."""
        before = self._probe()
        if before.at_s <= self._quiet_until_s:
            return before
        while self.waited_s < self._budget_s:
            self._sleep(LOOK_S)
            after = self._probe()
            load = other_load(before, after)
            if not is_disturbed(load):
                return after
            self.waited_s += after.at_s - before.at_s
            self.tell(load or 0.0)
            before = after
        return before

    def measure(self, block: Callable[[], tuple[_T, float]]) -> Measured[_T]:
        """Return a block that was measured on a quiet machine, or else the least disturbed of those tried.

        `block` measures, and returns its result with the processor seconds that other processes of ours have used.
        """
        return self.repeat(self.since(self.wait(), *block()), block)

    def repeat(self, first: Measured[_T], block: Callable[[], tuple[_T, float]]) -> Measured[_T]:
        """Measure a block again while it is disturbed, as long as the budget allows; return the least disturbed one."""
        best = first
        while is_disturbed(best.load) and self._allows(best.seconds):
            before = self.wait()
            if not self._allows(best.seconds):
                break
            again = self.since(before, *block())
            self.waited_s += again.seconds
            if (again.load or 0.0) < (best.load or 0.0):
                best = again
        return best

    def _allows(self, seconds: float) -> bool:
        return seconds <= self._budget_s - self.waited_s

    def since(self, before: Usage, result: _T, own_s: float = 0.0) -> Measured[_T]:
        """Return a block that has just ended and began in a state; `own_s` as `more_own_s` in `other_load`."""
        after = self._probe()
        load = other_load(before, after, own_s)
        self._quiet_until_s = -math.inf if load is None or is_disturbed(load) else after.at_s + FRESH_S
        return Measured(result, load, after.at_s - before.at_s)


def is_disturbed(load: float | None) -> bool:
    """Return whether others used so much that a block is to be measured again."""
    return load is not None and load > MAX_OTHER_LOAD
