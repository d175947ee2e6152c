"""The options of a bench run: `segcore.plugin.options` declares them to pytest, and ``[tool.segcore]`` may set them.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

Scenario = Literal["offline", "single-stream", "multi-stream", "server"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
PROCESSES = 4 if os.name == "posix" else 1
"""How many processes measure each speed item; further ones need signals that stop a process."""
WAIT_S = 120.0
"""How long a run waits for other processes."""


@dataclass(frozen=True)
class BenchOption:
    """One option of the plugin that takes a value, ``--segcore-NAME``."""

    name: str
    metavar: str
    kind: Callable[[str], object]
    help: str
    repeatable: bool = False
    dest: str = ""
    """Attribute of pytest's options."""

    @property
    def flag(self) -> str:
        """Return the option as it is typed."""
        return f"--segcore-{self.name}"


def text(value: str) -> str:
    """Return a text that is not empty."""
    if not value:
        raise argparse.ArgumentTypeError("wanted a value, found an empty one")
    return value


def path(value: str) -> Path:
    """Return a path."""
    return Path(text(value))


def positive(value: str) -> float:
    """Return a positive number."""
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{value!r}: wanted a positive number")
    return number


def amount(value: str) -> float:
    """Return a positive number, or zero."""
    return 0.0 if value == "0" else positive(value)


def natural(value: str, least: int = 0) -> int:
    """Return a whole number, not negative."""
    if not (value.isascii() and value.isdecimal() and int(value) >= least):
        raise argparse.ArgumentTypeError(f"{value!r}: wanted a whole number, at least {least}")
    return int(value)


def count(value: str) -> int:
    """Return a whole number, at least 1."""
    return natural(value, 1)


def _one(name: str, metavar: str, kind: Callable[[str], object], help_text: str, default: object = None) -> Any:
    return field(default=default, metadata={"option": BenchOption(name, metavar, kind, help_text)})


def _many(name: str, metavar: str, kind: Callable[[str], object], help_text: str, default: object = ()) -> Any:
    return field(default=default, metadata={"option": BenchOption(name, metavar, kind, f"* {help_text}", True)})


@dataclass(frozen=True)
class Choices:
    """What the options select; an empty tuple does not restrict anything. Pytest knows field F as ``segcore_F``.

    A help text gives the default in square brackets, and begins with * if the option can be repeated.
    """

    case_dirs: tuple[Path, ...] = _many(
        "cases", "DIR", path, "Case files, or a directory of them [cases]. Alias: --cases"
    )
    cases: tuple[str, ...] = _many("case", "NAME", text, "Only this case")
    tags: tuple[str, ...] = _many("tag", "NAME", text, "Only cases with this tag")
    models: tuple[str, ...] = _many(
        "model", "NAME", text, "Model, by name or path, on every case [the models that each case lists]"
    )
    devices: tuple[str, ...] = _many("device", "NAME", text, "cpu, cuda, cuda:1, mps or auto [every available device]")
    runtimes: tuple[str, ...] = _many(
        "runtime", "NAME", text, "Runtime that executes the model [torch, or that of the model's file]"
    )
    precisions: tuple[str, ...] = _many("precision", "NAME", text, "Arithmetic precision [fp32]", ("fp32",))
    sizes: tuple[int, ...] = _many(
        "size", "PIXELS", count, "Shorter side of the model's input [the sizes that each case lists]"
    )
    batches: tuple[int, ...] = _many("batch", "N", count, "Batch size of throughput items")
    threads: tuple[int, ...] = _many("threads", "N", count, "Intra-op threads of throughput items [torch's setting]")
    calibration: tuple[str, ...] = _many(
        "calibration", "PHOTOS", text, "Photos that calibrate int8: photo, directory or pattern"
    )
    scenarios: tuple[Scenario, ...] = _many(
        "scenario", "NAME", text, f"Run the load items, in this scenario: {', '.join(SCENARIOS)}"
    )
    model_dir: Path = _one(  # noqa: RUF009  # a field
        "models", "DIR", path, "Directory of model files [models]", Path("models")
    )
    weights: str = _one(
        "weights", "KIND", text, "pretrained, random, a checkpoint, or auto: pretrained, else random [auto]", "auto"
    )
    baseline: str | None = _one(
        "baseline",
        "RUN",
        str,
        "Judge the run against this one: path, name, latest, or a directory of runs. "
        "With ? at the end, the run becomes the baseline if there is none yet",
    )
    processes: int = _one("processes", "N", count, f"Processes that measure each speed item [{PROCESSES}]", 1)
    wait: float = _one(
        "wait",
        "S",
        amount,
        f"Seconds to wait in all while other processes use the processor, measuring again included [{WAIT_S:g}]",
        0.0,
    )
    profile: Path | None = _one(  # noqa: RUF009  # a field
        "profile", "DIR", path, "Profile each latency item after measuring it; write its trace to DIR"
    )
    rate: float | None = _one("rate", "N", positive, "Scenario server: queries per second")
    max_p99_ms: float | None = _one(
        "max-p99-ms", "MS", positive, "Scenario server: limit on p99; without a rate, search the highest"
    )
    streams: int | None = _one("streams", "N", count, "Scenario multi-stream: photos per query [8]")
    queries: int | None = _one(
        "queries", "N", count, "Length of a load run in queries [what its percentile needs, for at least 10 s]"
    )
    duration: float | None = _one("duration", "S", positive, "Length of a load run in seconds")
    seed: int = _one("seed", "N", natural, "Scenario server: seed of the arrivals [0]", 0)
    settle_budget: float | None = _one(
        "settle-budget", "S", positive, "Time to settle what stays undecided, in seconds [600]"
    )
    offline: bool = False


BENCH_OPTIONS: tuple[BenchOption, ...] = tuple(
    replace(each.metadata["option"], dest=f"segcore_{each.name}") for each in fields(Choices) if each.metadata
)
