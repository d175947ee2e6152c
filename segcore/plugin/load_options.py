"""Command line options of the load scenarios."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from segcore.core.errors import UsageError

if TYPE_CHECKING:
    from segcore.core.records import Scenario
    from segcore.measurement.load.schedule import LoadPlan

SCENARIOS = ("offline", "single-stream", "multi-stream", "server")
DEFAULT_BATCH = 8
MAX_QUERIES = 10_000_000
"""Limit of the server scenario, whose arrivals are all drawn before the run starts."""


@dataclass(frozen=True)
class LoadOptions:
    """Scenarios to run and their parameters; None for the default."""

    scenarios: tuple[Scenario, ...] = ()
    rate: float | None = None
    max_p99_ms: float | None = None
    streams: int | None = None
    queries: int | None = None
    duration: float | None = None
    seed: int = 0

    def batches(self, scenario: Scenario, offline: tuple[int, ...]) -> tuple[int, ...]:
        """Return how many photos make a query; `offline` is the choice for the offline scenario, if any."""
        if scenario == "offline":
            return offline or (DEFAULT_BATCH,)
        return (self.streams or DEFAULT_BATCH,) if scenario == "multi-stream" else (1,)

    def plan(self, scenario: Scenario, batch: int) -> LoadPlan:
        """Return the plan of one item."""
        from segcore.measurement.load.schedule import plan_load  # loads scipy

        server = scenario == "server"
        return plan_load(
            scenario,
            batch,
            queries=self.queries,
            seconds=self.duration,
            rate=self.rate if server else None,
            seed=self.seed,
            limit_s=self.max_p99_ms / 1e3 if server and self.max_p99_ms else None,
        )


def add_load_options(group: pytest.OptionGroup) -> None:
    """Register the options of `LoadOptions`."""
    group.addoption(
        "--segcore-scenario",
        action="append",
        default=[],
        choices=SCENARIOS,
        help="Run the load items, in this scenario of MLPerf Inference [none]",
    )
    group.addoption("--segcore-rate", type=at_least(float), metavar="N", help="server: queries per second")
    group.addoption(
        "--segcore-max-p99-ms",
        type=at_least(float),
        metavar="MS",
        help="server: limit on the 99th percentile; without --segcore-rate, search the highest rate that keeps it",
    )
    group.addoption("--segcore-streams", type=at_least(int, 1), metavar="N", help="multi-stream: photos per query [8]")
    group.addoption(
        "--segcore-queries",
        type=at_least(int, 1),
        metavar="N",
        help="Length of a load run in queries [as many as its percentile needs, for at least 10 s]",
    )
    group.addoption("--segcore-duration", type=at_least(float), metavar="S", help="Length of a load run in seconds")
    group.addoption("--segcore-seed", type=at_least(int, 0), default=0, metavar="N", help="server: of the arrivals [0]")


def at_least(kind: type[int] | type[float], least: int | None = None) -> Callable[[str], float]:
    """Return a parser of finite numbers that are at least `least`, or positive if it is None."""

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and (value > 0 if least is None else value >= least)):
            wanted = "a positive number" if least is None else f"a whole number, at least {least}"
            raise argparse.ArgumentTypeError(f"{text!r}: wanted {wanted}")
        return value

    return parse


def read_load_options(option: Any) -> LoadOptions:
    """Return the options as given.

    Args:
        option: `pytest.Config.option`.

    Raises:
        UsageError: an option has no effect in the scenarios, contradicts another, or one is missing.
    """
    found = LoadOptions(
        scenarios=tuple(dict.fromkeys(option.segcore_scenario)),
        rate=option.segcore_rate,
        max_p99_ms=option.segcore_max_p99_ms,
        streams=option.segcore_streams,
        queries=option.segcore_queries,
        duration=option.segcore_duration,
        seed=option.segcore_seed,
    )
    scenarios = {"rate": "server", "max_p99_ms": "server", "streams": "multi-stream"}
    for name, scenario in scenarios.items():
        if getattr(found, name) is not None and scenario not in found.scenarios:
            flag = f"--segcore-{name.replace('_', '-')}"
            raise UsageError(f"{flag} applies only to --segcore-scenario {scenario}; add that or omit {flag}")
    if found.queries is not None and found.duration is not None:
        raise UsageError("--segcore-queries and --segcore-duration both set the length of a run; choose one")
    if "server" in found.scenarios:
        _check_server(found)
    return found


def _check_server(options: LoadOptions) -> None:
    from segcore.measurement.load.early_stopping import queries_needed  # loads scipy
    from segcore.measurement.load.schedule import PERCENTILES

    if options.rate is None and options.max_p99_ms is None:
        raise UsageError(
            "--segcore-scenario server needs --segcore-rate (queries per second), --segcore-max-p99-ms (to search the "
            "rate), or both"
        )
    least = queries_needed(0, PERCENTILES["server"])
    if options.rate is None and options.queries is not None and options.queries < least:
        raise UsageError(
            f"--segcore-queries {options.queries} cannot prove that a p99 keeps a limit: wanted at least {least}"
        )
    queries = options.plan("server", 1).queries
    if queries > MAX_QUERIES:
        raise UsageError(
            f"a run of {queries:,} queries: wanted at most {MAX_QUERIES:,}; lower --segcore-rate or the length"
        )
