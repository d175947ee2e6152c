"""The plugin's own command-line options.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from segcore.core.bench_options import BENCH_OPTIONS, PROCESSES, SCENARIOS, WAIT_S
from segcore.core.errors import UsageError, nearest_hint
from segcore.plugin.load_options import LoadOptions, check_load_options

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _D = TypeVar("_D", bound=DataclassInstance)

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
    """Return the options; names of cases, models and so on are checked once those are known.

    Raises:
        UsageError: the weights are neither a known kind nor a file, or options of the load scenarios contradict.
    """
    choices, directory = _read(Choices(processes=PROCESSES, wait=WAIT_S), config.option), config.invocation_params.dir
    if choices.weights not in WEIGHTS and not Path(choices.weights).is_file():
        hint = nearest_hint(choices.weights, WEIGHTS)
        raise UsageError(
            f"--segcore-weights {choices.weights}: neither {', '.join(WEIGHTS)} nor an existing file{hint}"
        )
    if choices.processes > 1 and os.name != "posix":
        raise UsageError("--segcore-processes: more than one needs a POSIX system, whose signals stop a process")
    load = _read(LoadOptions(), config.option)
    check_names("--segcore-scenario", load.scenarios, SCENARIOS)
    check_load_options(load)
    return replace(
        choices,
        model_dir=directory / choices.model_dir if config.option.segcore_model_dir else config.rootpath / "models",
        case_dirs=tuple(directory / path for path in choices.case_dirs) or (config.rootpath / "cases",),
        profile=directory / choices.profile if choices.profile else None,
        load=load,
    )


def _read(defaults: _D, option: Any) -> _D:
    """Return a dataclass with the options that were given instead of its defaults."""
    values = {field.name: getattr(option, f"segcore_{field.name}", None) for field in fields(defaults)}
    given = {name: v for name, v in values.items() if v is not None and v is not False and v != []}  # 0 is a value
    return replace(
        defaults, **{name: tuple(dict.fromkeys(v)) if isinstance(v, list) else v for name, v in given.items()}
    )


def check_names(option: str, wanted: Iterable[str], known: Iterable[str]) -> None:
    """Raise UsageError for the first name that is not known, with the nearest one that is."""
    known = list(dict.fromkeys(known))
    for name in wanted:
        if name not in known:
            hint = nearest_hint(name, known)
            raise UsageError(f"{option} {name}: there is no such name{hint}; there are: {', '.join(known) or 'none'}")
