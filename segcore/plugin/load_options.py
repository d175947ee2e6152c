"""Command line options of the load scenarios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segcore.core.errors import UsageError

if TYPE_CHECKING:
    from segcore.core.records import Scenario
    from segcore.measurement.load.schedule import LoadPlan

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


def check_load_options(options: LoadOptions) -> None:
    """Raise UsageError if an option has no effect in the scenarios, contradicts another, or one is missing."""
    for name, scenario in (("rate", "server"), ("max_p99_ms", "server"), ("streams", "multi-stream")):
        if getattr(options, name) is not None and scenario not in options.scenarios:
            flag = f"--segcore-{name.replace('_', '-')}"
            raise UsageError(f"{flag} applies only to --segcore-scenario {scenario}; add that or omit {flag}")
    if options.queries is not None and options.duration is not None:
        raise UsageError("--segcore-queries and --segcore-duration both set the length of a run; choose one")
    if "server" in options.scenarios:
        _check_server(options)


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
