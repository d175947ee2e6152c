"""Progress of the items and the time left, beside pytest's own output."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest


def clock_text(seconds: float) -> str:
    """Return minutes and seconds as ``2:05``."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


class Forecast:
    """Time left: the estimates (seconds by item) of the remaining items, scaled by how long the others really took."""

    def __init__(self, estimates: Mapping[str, float]) -> None:
        self._left = dict(estimates)
        # Start as if one item had taken as long as estimated, so that a quick first item has limited weight.
        self._estimated = self._actual = max(estimates.values(), default=1.0)

    def finish(self, item: str, seconds: float) -> None:
        """Take note of how long an item took."""
        self._estimated += self._left.pop(item, 0.0)
        self._actual += seconds

    @property
    def seconds_left(self) -> float:
        """Estimated seconds of the items that have not finished."""
        return sum(self._left.values()) * self._actual / self._estimated


class LiveLine:
    """One line rewritten in place on a terminal; elsewhere one line per finished item, except for skipped ones.

    With ``-v`` and ``-q`` pytest's own progress stays and this prints nothing, as without a terminal reporter.
    """

    def __init__(self, reporter: pytest.TerminalReporter | None, estimates: Mapping[str, float]) -> None:
        self._reporter = reporter if reporter and reporter.verbosity == 0 else None
        self._forecast = Forecast(estimates)
        self._total = len(estimates)
        self._number = 0
        self._started = 0.0
        self._in_place = bool(self._reporter and self._reporter.isatty)
        if self._reporter:
            self._reporter.showfspath = False  # our line would interrupt a file name and its letters

    @property
    def active(self) -> bool:
        """Whether this prints anything."""
        return self._reporter is not None

    def start(self, name: str) -> None:
        """Show the item that begins."""
        self._number += 1
        self._started = time.monotonic()
        if self._reporter and not self._in_place and self._reporter._tw.width_of_current_line:
            self._reporter.write("\n")  # after pytest's own percentage
        self.describe(name)

    def describe(self, name: str) -> None:
        """Show what is going on within the step that has begun."""
        if self._reporter and self._in_place:
            text = f"[{self._number}/{self._total}] {name} (about {clock_text(self._forecast.seconds_left)} left)"
            self._reporter.rewrite(text[: self._reporter._tw.fullwidth - 1], erase=True)

    def finish(self, node: str, name: str, outcome: str) -> None:
        """Show how an item (its node, the key of its estimate) ended; skips have been listed before the first item."""
        took = time.monotonic() - self._started
        self._forecast.finish(node, took)
        if not self._reporter or outcome == "skipped" or (self._in_place and outcome == "passed"):
            return
        left = clock_text(self._forecast.seconds_left)
        line = f"[{self._number}/{self._total}] {name} {outcome} in {took:.1f} s (about {left} left)"
        if self._in_place:
            self._reporter.rewrite("", erase=True)
            self._reporter.rewrite(line, red=True)
            self._reporter.write("\n")
        else:
            self._reporter.write_line(line)

    def close(self) -> None:
        """Clear the line."""
        if self._reporter and self._in_place:
            self._reporter.rewrite("", erase=True)
            self._reporter.write("\r")
