"""The plugin's own command-line options.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from segcore.core.errors import UsageError, nearest_hint
from segcore.plugin.load_options import LoadOptions, add_load_options, at_least, read_load_options

_T = TypeVar("_T")

WEIGHTS = ("auto", "pretrained", "random")


@dataclass(frozen=True)
class Choices:
    """What the command line selects; an empty tuple does not restrict anything."""

    case_dirs: tuple[Path, ...]
    cases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    sizes: tuple[int, ...] = ()
    runtimes: tuple[str, ...] = ("torch",)
    precisions: tuple[str, ...] = ("fp32",)
    batches: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    """Intra-op thread counts to sweep over in throughput items; empty: torch's setting, in all items."""
    calibration: tuple[str, ...] = ()
    """Photos, directories and patterns, as `segcore.inputs.images.find_photos` takes them."""
    weights: str = "auto"
    profile: Path | None = None
    """Directory for the traces of latency items; None writes none."""
    offline: bool = False
    load: LoadOptions = field(default_factory=LoadOptions)


def add_options(parser: pytest.Parser) -> None:
    """Declare the ``segcore`` group of options."""
    group = parser.getgroup("segcore", "segcore: what `pytest bench/` runs (options marked * can be repeated)")

    count = at_least(int, 1)

    def add(name: str, metavar: str, text: str, kind: Callable[[str], object] = _text, **attributes: Any) -> None:
        group.addoption(f"--segcore-{name}", metavar=metavar, type=kind, help=text, **attributes)

    def add_repeatable(name: str, metavar: str, text: str, kind: Callable[[str], object] = _text) -> None:
        add(name, metavar, f"* {text}", kind, action="append", default=[])

    add_repeatable("cases", "DIR", "Case files, or a directory of them [cases]. Alias: --cases")
    add_repeatable("case", "NAME", "Only this case")
    add_repeatable("tag", "NAME", "Only cases with this tag")
    add_repeatable("model", "NAME", "This model, on every case [the models that each case lists]")
    add_repeatable("device", "NAME", "cpu, cuda, cuda:1, mps or auto [every available device]")
    add_repeatable("runtime", "NAME", "Runtime that executes the model [torch]")
    add_repeatable("precision", "NAME", "Arithmetic precision [fp32]")
    add_repeatable(
        "size", "PIXELS", "Shorter side of the model's input [the sizes that each case lists]", at_least(int, 1)
    )
    add_repeatable("batch", "N", "Batch size of throughput items", count)
    add_repeatable("threads", "N", "Intra-op threads of throughput items [torch's setting]", count)
    add_repeatable("calibration", "PHOTOS", "Calibration photos of int8: photo, directory or pattern [scikit-image's]")
    add(
        "weights",
        "KIND",
        "pretrained, random (speed only), the path of a checkpoint, or auto: pretrained if cached or downloadable, "
        "otherwise random and marked as such [auto]",
        default="auto",
    )
    add("baseline", "RUN", "Judge the run against this one: path, name, latest, or a directory of runs")
    add("profile", "DIR", "Profile each latency item after measuring it; write its trace to DIR")
    add_load_options(group)
    group.addoption("--segcore-offline", action="store_true", help="Do not use the network. Alias: --offline")


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("wanted a value, found an empty one")
    return text


def read_choices(config: pytest.Config) -> Choices:
    """Return the options; names of cases, models and so on are checked once those are known.

    Raises:
        UsageError: the weights are neither a known kind nor a file.
    """
    option = config.option
    directory = config.invocation_params.dir
    if option.segcore_weights not in WEIGHTS and not Path(option.segcore_weights).is_file():
        hint = nearest_hint(option.segcore_weights, WEIGHTS)
        raise UsageError(
            f"--segcore-weights {option.segcore_weights}: neither {', '.join(WEIGHTS)} nor an existing file{hint}"
        )
    return Choices(
        case_dirs=tuple(directory / name for name in _unique(option.segcore_cases)) or (config.rootpath / "cases",),
        cases=_unique(option.segcore_case),
        tags=_unique(option.segcore_tag),
        models=_unique(option.segcore_model),
        devices=_unique(option.segcore_device),
        sizes=_unique(option.segcore_size),
        runtimes=_unique(option.segcore_runtime) or ("torch",),
        precisions=_unique(option.segcore_precision) or ("fp32",),
        batches=_unique(option.segcore_batch),
        threads=_unique(option.segcore_threads),
        calibration=_unique(option.segcore_calibration),
        weights=option.segcore_weights,
        profile=directory / option.segcore_profile if option.segcore_profile else None,
        offline=option.segcore_offline,
        load=read_load_options(option),
    )


def _unique(values: Iterable[_T]) -> tuple[_T, ...]:
    return tuple(dict.fromkeys(values))


def check_names(option: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError for the first name that is not known, with the nearest one that is."""
    known = list(dict.fromkeys(known))
    for name in wanted:
        if name not in known:
            hint = nearest_hint(name, known)
            raise UsageError(f"{option} {name}: there is no such name{hint}; there are: {', '.join(known) or 'none'}")
