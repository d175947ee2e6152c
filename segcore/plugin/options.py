"""Command line of the plugin: its own options, and what it mends on pytest-benchmark's.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

import pytest
from pytest_benchmark.utils import parse_save

from segcore.core.errors import UsageError, nearest_hint
from segcore.plugin.load_options import LoadOptions, add_load_options, read_load_options

SAVE = "--benchmark-save"
DEFAULT_STORAGE = "file://./.benchmarks"
"""pytest-benchmark's own default: any other value was chosen by the user."""
WEIGHTS = ("auto", "pretrained", "random")


@dataclass(frozen=True)
class Choices:
    """What the command line asks for; an empty tuple is "whatever there is"."""

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
    """To sweep over in throughput items; empty: as many as torch is set to, in all items."""
    calibration: tuple[str, ...] = ()
    """Photos, directories and patterns, as `segcore.inputs.images.find_photos` takes them."""
    weights: str = "auto"
    profile: Path | None = None
    """Directory for the traces of latency items; None where none are wanted."""
    offline: bool = False
    load: LoadOptions = field(default_factory=LoadOptions)


def add_options(parser: pytest.Parser) -> None:
    """Register the ``segcore`` group."""
    group = parser.getgroup("segcore", "segcore (what `pytest bench/` runs; each may be given several times)")
    group.addoption("--cases", action="append", default=[], metavar="DIR", help="Case directory or file [cases]")
    for name, what in {
        "case": "Only this case",
        "tag": "Only cases with this tag",
        "model": "This model [embedded and fcn_resnet101, as the cases name them]",
        "device": "cpu, cuda, cuda:1, mps or auto [every device available]",
        "runtime": "How the model is executed [torch]",
        "precision": "Of the arithmetic [fp32]",
    }.items():
        group.addoption(f"--segcore-{name}", action="append", default=[], metavar="NAME", help=what)
    group.addoption("--segcore-size", action="append", default=[], type=_count, metavar="PIXELS", help="Shorter side")
    group.addoption("--segcore-batch", action="append", default=[], type=_count, metavar="N", help="Photos at a time")
    group.addoption(
        "--segcore-threads",
        action="append",
        default=[],
        type=_count,
        metavar="N",
        help="Intra-op threads of throughput items: one item per batch and number of threads [as torch is set]",
    )
    group.addoption(
        "--segcore-calibration",
        action="append",
        default=[],
        metavar="PHOTOS",
        help="What int8 is calibrated on: photo, directory or pattern [photos of scikit-image]",
    )
    group.addoption(
        "--segcore-weights",
        metavar="KIND",
        default="auto",
        help="pretrained, random (speed only), a checkpoint's path, or auto: pretrained where they are here or can be "
        "fetched, else random, marked as such [auto]",
    )
    group.addoption(
        "--segcore-baseline",
        metavar="RUN",
        help="Judge the run against this one (path, name, latest, or a directory of runs); exit as `segcore gate` does",
    )
    group.addoption(
        "--segcore-profile",
        metavar="DIR",
        help="Profile each latency item once it has been measured; write a trace for Perfetto to DIR",
    )
    add_load_options(group)
    group.addoption("--offline", action="store_true", help="Fetch nothing; use what is cached")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise pytest.UsageError(f"{text!r} is not a number: wanted a whole number, at least 1")
    return int(text)


def read_choices(config: pytest.Config) -> Choices:
    """Return the options as given; names are checked later, against what there is."""

    def given(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(config.getoption(name)))

    directory = config.invocation_params.dir
    directories = [directory / name for name in given("cases")]
    default = config.rootpath / "cases"
    weights = config.getoption("segcore_weights")
    if weights not in WEIGHTS and not Path(weights).is_file():
        hint = nearest_hint(weights, WEIGHTS)
        raise UsageError(f"--segcore-weights {weights}: neither {', '.join(WEIGHTS)} nor an existing file{hint}")
    return Choices(
        case_dirs=tuple(directories) or (default,),
        cases=given("segcore_case"),
        tags=given("segcore_tag"),
        models=given("segcore_model"),
        devices=given("segcore_device"),
        sizes=tuple(dict.fromkeys(config.getoption("segcore_size"))),
        runtimes=given("segcore_runtime") or ("torch",),
        precisions=given("segcore_precision") or ("fp32",),
        threads=tuple(dict.fromkeys(config.getoption("segcore_threads"))),
        batches=tuple(dict.fromkeys(config.getoption("segcore_batch"))),
        calibration=given("segcore_calibration"),
        weights=weights,
        profile=directory / profiles if (profiles := config.getoption("segcore_profile")) else None,
        offline=config.getoption("offline"),
        load=read_load_options(config.option),
    )


def check_names(option: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError for the first name that is not known, with the nearest that is."""
    known = list(dict.fromkeys(known))
    for name in wanted:
        if name not in known:
            hint = nearest_hint(name, known)
            raise UsageError(f"{option} {name}: there is no such name{hint}; there are: {', '.join(known) or 'none'}")


def let_save_go_without_name(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Make the value of ``--benchmark-save`` optional; `mend_arguments` fills it in before the final parse."""
    if not pluginmanager.hasplugin("benchmark"):  # ours may come first; by its name pytest will not load it again
        pluginmanager.load_setuptools_entrypoints("pytest11", name="benchmark")
    _change_save(parser, nargs="?", type=str)


def _change_save(parser: pytest.Parser, **attributes: object) -> None:
    for option in parser.getgroup("benchmark").options:
        if SAVE in option.names():
            option.attrs().update(attributes)


def mend_arguments(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Name the ``--benchmark-save`` that have no name, and let pytest look at its arguments again."""
    _change_save(parser, type=parse_save)
    if SAVE in args:
        from segcore.measurement.machine import run_name  # loads pydantic, which few sessions need

        args[:] = name_saves(args, run_name(early_config.invocation_params.dir))
        # Where conftest files are looked for depends on the directories, one of which may have been taken for a name.
        early_config.known_args_namespace = parser.parse_known_args(args, namespace=copy.copy(early_config.option))


def name_saves(args: list[str], name: str) -> list[str]:
    """Return pytest's arguments with a name after every ``--benchmark-save`` that has none.

    What follows is not taken as a name if it is an option, exists as a path, or looks like one: the first users type
    ``pytest --benchmark-save bench/``. ``--benchmark-save=bench`` always means the name.
    """
    named = []
    for arg, following in zip_longest(args, args[1:]):
        bare = arg == SAVE and (following is None or following.startswith("-") or _is_path(following))
        named.append(f"{SAVE}={name}" if bare else arg)
    return named


def _is_path(text: str) -> bool:
    return os.sep in text or "/" in text or "::" in text or Path(text).exists()
