"""Where a run is and how long it will take, without upsetting pytest's own output."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import pytest


def clock_text(seconds: float) -> str:
    """Return minutes and seconds as ``2:05``."""
    whole = round(seconds)
    return f"{whole // 60}:{whole % 60:02}"


@dataclass
class Forecast:
    """Time left by an estimate per item, put right by how long the items so far have really taken.

    Args:
        estimates: seconds per item, in the order of the run.
    """

    estimates: Mapping[str, float]
    clock: Callable[[], float] = time.monotonic
    _done_estimated: float = 0.0
    _done_actual: float = 0.0
    _started: tuple[str, float] | None = None
    _left: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        self._left = dict(self.estimates)

    def start(self, item: str) -> None:
        """Note that an item begins."""
        self._started = (item, self.clock())

    def finish(self) -> float:
        """Note that the item begun has ended; return the seconds it took."""
        assert self._started is not None
        item, began = self._started
        took = self.clock() - began
        self._done_estimated += self._left.pop(item, 0.0)
        self._done_actual += took
        return took

    @property
    def seconds_left(self) -> float:
        """Estimate of what the items that have not ended take."""
        # One item's worth of trust in the estimate, so that the first quick item does not promise the moon.
        prior = max(self.estimates.values(), default=1.0)
        factor = (self._done_actual + prior) / (self._done_estimated + prior)
        return sum(self._left.values()) * factor


class LiveLine:
    """Progress of the items: one line rewritten in place on a terminal, elsewhere one line per finished item.

    With ``-v`` and ``-q`` pytest's own progress stays and this prints nothing, as without a terminal reporter.
    """

    def __init__(self, reporter: pytest.TerminalReporter | None, forecast: Forecast) -> None:
        self._reporter = reporter if reporter and reporter.verbosity == 0 else None
        self._forecast = forecast
        self._total = len(forecast.estimates)
        self._number = 0
        self._in_place = bool(self._reporter and self._reporter.isatty)
        if self._reporter:
            self._reporter.showfspath = False  # our line would interrupt a file name and its letters

    @property
    def active(self) -> bool:
        """Whether this prints anything."""
        return self._reporter is not None

    def start(self, node: str, name: str) -> None:
        """Show the item that begins.

        Args:
            node: its key in the forecast.
            name: printed.
        """
        self._number += 1
        self._forecast.start(node)
        if self._reporter and self._in_place:
            text = f"[{self._number}/{self._total}] {name} (about {clock_text(self._forecast.seconds_left)} left)"
            self._reporter.rewrite(text[: self._reporter._tw.fullwidth - 1], erase=True)

    def finish(self, name: str, outcome: str) -> None:
        """Show how the item ended; skips have been listed before the first item."""
        took = self._forecast.finish()
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
