"""The plugin's own command-line options.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from segcore.core.errors import UsageError, nearest_hint
from segcore.plugin.load_options import SCENARIOS, LoadOptions, check_load_options

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _D = TypeVar("_D", bound=DataclassInstance)

PROCESSES = 4 if os.name == "posix" else 1
"""How many processes measure each speed item; further ones need signals that stop a process."""
WAIT_S = 120.0
"""How long a run waits for other processes."""
WEIGHTS = ("auto", "pretrained", "random")


@dataclass(frozen=True)
class Choices:
    """What the command line selects; an empty tuple does not restrict anything."""

    case_dirs: tuple[Path, ...] = ()
    cases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    model_dir: Path = Path("models")
    """Directory of model files."""
    devices: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    runtimes: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ("fp32",)
    batches: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    """Intra-op thread counts to sweep over in throughput items; empty: torch's setting, in all items."""
    calibration: tuple[str, ...] = ()
    """Photos, directories and patterns, as `segcore.inputs.images.find_photos` takes them."""
    weights: str = "auto"
    processes: int = 1
    """That measure each speed item, with the main one."""
    wait: float = 0.0
    """Seconds for waiting until other processes use little of the processor, and for measuring again."""
    profile: Path | None = None
    """Directory for the traces of latency items; None writes none."""
    offline: bool = False
    load: LoadOptions = field(default_factory=LoadOptions)


def add_options(parser: pytest.Parser) -> None:
    """Declare the ``segcore`` group of options. The value of field F of `Choices` or `LoadOptions` is ``segcore_F``."""
    group = parser.getgroup("segcore", "segcore: what `pytest bench/` runs (options marked * can be repeated)")

    def add(name: str, metavar: str, kind: Callable[[str], object], text: str, **attributes: Any) -> None:
        group.addoption(f"--segcore-{name}", metavar=metavar, type=kind, help=text, **attributes)

    for name, dest, metavar, kind, text in (
        ("cases", "case_dirs", "DIR", _path, "Case files, or a directory of them [cases]. Alias: --cases"),
        ("case", "cases", "NAME", _text, "Only this case"),
        ("tag", "tags", "NAME", _text, "Only cases with this tag"),
        (
            "model",
            "models",
            "NAME",
            _text,
            "Model, by name or path, on every case [the models that each case lists]",
        ),
        ("device", "devices", "NAME", _text, "cpu, cuda, cuda:1, mps or auto [every available device]"),
        ("runtime", "runtimes", "NAME", _text, "Runtime that executes the model [torch, or that of the model's file]"),
        ("precision", "precisions", "NAME", _text, "Arithmetic precision [fp32]"),
        ("size", "sizes", "PIXELS", _count, "Shorter side of the model's input [the sizes that each case lists]"),
        ("batch", "batches", "N", _count, "Batch size of throughput items"),
        ("threads", "threads", "N", _count, "Intra-op threads of throughput items [torch's setting]"),
        ("calibration", "calibration", "PHOTOS", _text, "Photos that calibrate int8: photo, directory or pattern"),
        ("scenario", "scenarios", "NAME", _text, f"Run the load items, in this scenario: {', '.join(SCENARIOS)}"),
    ):
        add(name, metavar, kind, f"* {text}", dest=f"segcore_{dest}", action="append", default=[])
    add("models", "DIR", _path, "Directory of model files [models]", dest="segcore_model_dir")
    add(
        "weights",
        "KIND",
        _text,
        "pretrained, random, a checkpoint, or auto: pretrained, else random [auto]",
        default="auto",
    )
    add(
        "baseline",
        "RUN",
        str,
        "Judge the run against this one: path, name, latest, or a directory of runs. "
        "With ? at the end, the run becomes the baseline if there is none yet",
    )
    add("processes", "N", _count, f"Processes that measure each speed item [{PROCESSES}]", default=PROCESSES)
    add(
        "wait",
        "S",
        _amount,
        f"Seconds to wait in all while other processes use the processor, measuring again included [{WAIT_S:g}]",
        default=WAIT_S,
    )
    add("profile", "DIR", _path, "Profile each latency item after measuring it; write its trace to DIR")
    add("rate", "N", _positive, "Scenario server: queries per second")
    add("max-p99-ms", "MS", _positive, "Scenario server: limit on p99; without a rate, search the highest")
    add("streams", "N", _count, "Scenario multi-stream: photos per query [8]")
    add("queries", "N", _count, "Length of a load run in queries [what its percentile needs, for at least 10 s]")
    add("duration", "S", _positive, "Length of a load run in seconds")
    add("seed", "N", _natural, "Scenario server: seed of the arrivals [0]", default=0)
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
    add("settle-budget", "S", _positive, "Time for that, in seconds [600]")
    group.addoption("--segcore-offline", action="store_true", help="Do not use the network. Alias: --offline")


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("wanted a value, found an empty one")
    return text


def _path(text: str) -> Path:
    return Path(_text(text))


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a positive number")
    return value


def _amount(text: str) -> float:
    return 0.0 if text == "0" else _positive(text)


def _natural(text: str, least: int = 0) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r}: wanted a whole number, at least {least}")
    return int(text)


def _count(text: str) -> int:
    return _natural(text, 1)


def read_choices(config: pytest.Config) -> Choices:
    """Return the options; names of cases, models and so on are checked once those are known.

    Raises:
        UsageError: the weights are neither a known kind nor a file, or options of the load scenarios contradict.
    """
    choices, directory = _read(Choices, config.option), config.invocation_params.dir
    if choices.weights not in WEIGHTS and not Path(choices.weights).is_file():
        hint = nearest_hint(choices.weights, WEIGHTS)
        raise UsageError(
            f"--segcore-weights {choices.weights}: neither {', '.join(WEIGHTS)} nor an existing file{hint}"
        )
    if choices.processes > 1 and os.name != "posix":
        raise UsageError("--segcore-processes: more than one needs a POSIX system, whose signals stop a process")
    load = _read(LoadOptions, config.option)
    check_names("--segcore-scenario", load.scenarios, SCENARIOS)
    check_load_options(load)
    return replace(
        choices,
        model_dir=directory / choices.model_dir if config.option.segcore_model_dir else config.rootpath / "models",
        case_dirs=tuple(directory / path for path in choices.case_dirs) or (config.rootpath / "cases",),
        profile=directory / choices.profile if choices.profile else None,
        load=load,
    )


def _read(kind: type[_D], option: Any) -> _D:
    """Return a dataclass with the options that were given; the others keep their defaults."""
    values = {field.name: getattr(option, f"segcore_{field.name}", None) for field in fields(kind)}
    return kind(**{name: tuple(dict.fromkeys(v)) if isinstance(v, list) else v for name, v in values.items() if v})


def check_names(option: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError for the first name that is not known, with the nearest one that is."""
    known = list(dict.fromkeys(known))
    for name in wanted:
        if name not in known:
            hint = nearest_hint(name, known)
            raise UsageError(f"{option} {name}: there is no such name{hint}; there are: {', '.join(known) or 'none'}")
