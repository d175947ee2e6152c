"""The plugin's own command-line options.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from segcore.core.bench_options import BENCH_OPTIONS, PROCESSES, SCENARIOS, WAIT_S, Choices, Scenario
from segcore.core.errors import UsageError, nearest_hint

if TYPE_CHECKING:
    from segcore.measurement.load.schedule import LoadPlan

WEIGHTS = ("auto", "pretrained", "random")
MAX_QUERIES = 10_000_000
"""Limit of the server scenario, whose arrivals are all drawn before the run starts."""


def load_plan(choices: Choices, scenario: Scenario, batch: int) -> LoadPlan:
    """Return the plan of one load item."""
    from segcore.measurement.load.schedule import plan_load  # loads scipy

    server = scenario == "server"
    return plan_load(
        scenario,
        batch,
        queries=choices.queries,
        seconds=choices.duration,
        rate=choices.rate if server else None,
        seed=choices.seed,
        limit_s=choices.max_p99_ms / 1e3 if server and choices.max_p99_ms else None,
    )


def add_options(parser: pytest.Parser) -> None:
    """Declare the ``segcore`` group of options."""
    group = parser.getgroup("segcore", "segcore: what `pytest bench/` runs (options marked * can be repeated)")
    for option in BENCH_OPTIONS:
        kept: dict[str, Any] = {"action": "append", "default": []} if option.repeatable else {}
        group.addoption(
            option.flag, metavar=option.metavar, type=option.kind, help=option.help, dest=option.dest, **kept
        )
    group.addoption(
        "--segcore-accept-changed-limits",
        action="store_true",
        help="Judge by the limits, checks and cases of this run, also if looser than the baseline's",
    )
    group.addoption(
        "--segcore-settle",
        action="store_true",
        help="With a baseline: measure what stays undecided in turns, at the commits of both runs",
    )
    group.addoption("--segcore-offline", action="store_true", help="Do not use the network. Alias: --offline")


def read_choices(config: pytest.Config) -> Choices:
    """Return the options, or raise UsageError; names of cases, models and so on are checked once those are known."""
    values = {field.name: getattr(config.option, f"segcore_{field.name}", None) for field in fields(Choices)}
    given = {name: v for name, v in values.items() if v is not None and v is not False and v != []}  # 0 is a value
    unique: dict[str, Any] = {name: tuple(dict.fromkeys(v)) if isinstance(v, list) else v for name, v in given.items()}
    choices, directory = Choices(**({"processes": PROCESSES, "wait": WAIT_S} | unique)), config.invocation_params.dir
    if choices.weights not in WEIGHTS and not Path(choices.weights).is_file():
        hint = nearest_hint(choices.weights, WEIGHTS)
        raise UsageError(
            f"--segcore-weights {choices.weights}: neither {', '.join(WEIGHTS)} nor an existing file{hint}"
        )
    if choices.processes > 1 and os.name != "posix":
        raise UsageError("--segcore-processes: more than one needs a POSIX system, whose signals stop a process")
    _check_load_options(choices)
    return replace(
        choices,
        model_dir=directory / choices.model_dir if config.option.segcore_model_dir else config.rootpath / "models",
        case_dirs=tuple(directory / path for path in choices.case_dirs) or (config.rootpath / "cases",),
        profile=directory / choices.profile if choices.profile else None,
    )


def _check_load_options(choices: Choices) -> None:
    """Raise UsageError if an option has no effect in the scenarios, contradicts another, or one is missing."""
    check_names("--segcore-scenario", choices.scenarios, SCENARIOS)
    for name, scenario in (("rate", "server"), ("max_p99_ms", "server"), ("streams", "multi-stream")):
        if getattr(choices, name) is not None and scenario not in choices.scenarios:
            flag = f"--segcore-{name.replace('_', '-')}"
            raise UsageError(f"{flag} applies only to --segcore-scenario {scenario}; add that or omit {flag}")
    if choices.queries is not None and choices.duration is not None:
        raise UsageError("--segcore-queries and --segcore-duration both set the length of a run; choose one")
    if "server" in choices.scenarios:
        _check_server(choices)


def _check_server(choices: Choices) -> None:
    from segcore.measurement.load.early_stopping import queries_needed  # loads scipy
    from segcore.measurement.load.schedule import PERCENTILES

    if choices.rate is None and choices.max_p99_ms is None:
        raise UsageError(
            "--segcore-scenario server needs --segcore-rate (queries per second), --segcore-max-p99-ms (to search the "
            "rate), or both"
        )
    least = queries_needed(0, PERCENTILES["server"])
    if choices.rate is None and choices.queries is not None and choices.queries < least:
        raise UsageError(
            f"--segcore-queries {choices.queries} cannot prove that a p99 keeps a limit: wanted at least {least}"
        )
    queries = load_plan(choices, "server", 1).queries
    if queries > MAX_QUERIES:
        raise UsageError(
            f"a run of {queries:,} queries: wanted at most {MAX_QUERIES:,}; lower --segcore-rate or the length"
        )


def check_names(option: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError for the first name that is not known, with the nearest one that is."""
    known = list(dict.fromkeys(known))
    for name in wanted:
        if name not in known:
            hint = nearest_hint(name, known)
            raise UsageError(f"{option} {name}: there is no such name{hint}; there are: {', '.join(known) or 'none'}")
