"""The options of a bench run: `segcore.plugin.options` declares them to pytest, and ``[tool.segcore]`` may set them.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SCENARIOS = ("offline", "single-stream", "multi-stream", "server")
PROCESSES = 4 if os.name == "posix" else 1
"""How many processes measure each speed item; further ones need signals that stop a process."""
WAIT_S = 120.0
"""How long a run waits for other processes."""


@dataclass(frozen=True)
class BenchOption:
    """One option of the plugin that takes a value, ``--segcore-NAME``."""

    name: str
    field: str
    """Of `segcore.plugin.options.Choices` or `LoadOptions`; pytest knows the value as ``segcore_FIELD``."""
    metavar: str
    kind: Callable[[str], object]
    """Converts the value; raises ArgumentTypeError."""
    help: str
    repeatable: bool = False

    @property
    def flag(self) -> str:
        """Return the option as it is typed."""
        return f"--segcore-{self.name}"

    @property
    def dest(self) -> str:
        """Return the attribute of pytest's options."""
        return f"segcore_{self.field}"


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


def _one(name: str, metavar: str, kind: Callable[[str], object], help_text: str, field: str = "") -> BenchOption:
    return BenchOption(name, field or name.replace("-", "_"), metavar, kind, help_text)


def _many(name: str, field: str, metavar: str, kind: Callable[[str], object], help_text: str) -> BenchOption:
    return BenchOption(name, field, metavar, kind, f"* {help_text}", repeatable=True)


BENCH_OPTIONS = (
    _many("cases", "case_dirs", "DIR", path, "Case files, or a directory of them [cases]. Alias: --cases"),
    _many("case", "cases", "NAME", text, "Only this case"),
    _many("tag", "tags", "NAME", text, "Only cases with this tag"),
    _many("model", "models", "NAME", text, "Model, by name or path, on every case [the models that each case lists]"),
    _many("device", "devices", "NAME", text, "cpu, cuda, cuda:1, mps or auto [every available device]"),
    _many("runtime", "runtimes", "NAME", text, "Runtime that executes the model [torch, or that of the model's file]"),
    _many("precision", "precisions", "NAME", text, "Arithmetic precision [fp32]"),
    _many("size", "sizes", "PIXELS", count, "Shorter side of the model's input [the sizes that each case lists]"),
    _many("batch", "batches", "N", count, "Batch size of throughput items"),
    _many("threads", "threads", "N", count, "Intra-op threads of throughput items [torch's setting]"),
    _many("calibration", "calibration", "PHOTOS", text, "Photos that calibrate int8: photo, directory or pattern"),
    _many("scenario", "scenarios", "NAME", text, f"Run the load items, in this scenario: {', '.join(SCENARIOS)}"),
    _one("models", "DIR", path, "Directory of model files [models]", "model_dir"),
    _one("weights", "KIND", text, "pretrained, random, a checkpoint, or auto: pretrained, else random [auto]"),
    _one(
        "baseline",
        "RUN",
        str,
        "Judge the run against this one: path, name, latest, or a directory of runs. "
        "With ? at the end, the run becomes the baseline if there is none yet",
    ),
    _one("processes", "N", count, f"Processes that measure each speed item [{PROCESSES}]"),
    _one(
        "wait",
        "S",
        amount,
        f"Seconds to wait in all while other processes use the processor, measuring again included [{WAIT_S:g}]",
    ),
    _one("profile", "DIR", path, "Profile each latency item after measuring it; write its trace to DIR"),
    _one("rate", "N", positive, "Scenario server: queries per second"),
    _one("max-p99-ms", "MS", positive, "Scenario server: limit on p99; without a rate, search the highest"),
    _one("streams", "N", count, "Scenario multi-stream: photos per query [8]"),
    _one("queries", "N", count, "Length of a load run in queries [what its percentile needs, for at least 10 s]"),
    _one("duration", "S", positive, "Length of a load run in seconds"),
    _one("seed", "N", natural, "Scenario server: seed of the arrivals [0]"),
    _one("settle-budget", "S", positive, "Time to settle what stays undecided, in seconds [600]"),
)
"""A help text gives the default in square brackets, and begins with * if the option can be repeated."""
