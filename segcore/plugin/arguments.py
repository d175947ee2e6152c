"""Arguments rewritten before pytest parses them: aliases, ``--benchmark-save`` without a name, settings of a file.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

import os
import re
import shlex
from argparse import Namespace
from collections.abc import Generator, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path

import pytest
from pytest_benchmark.utils import parse_save

from segcore.core.bench_options import BENCH_OPTIONS, path
from segcore.core.configuration import find_configuration
from segcore.core.errors import SegcoreError
from segcore.plugin.crash import open_closed_streams
from segcore.report.escape import plain_text

ALIASES = {"--cases": "--segcore-cases", "--offline": "--segcore-offline"}
"""Our option by its alias. Aliases are not declared to pytest, so that another plugin or conftest can declare them."""
SAVE = "--benchmark-save"
NAMELESS = False
"""Value of ``--benchmark-save`` without a name; not a string, because argparse would parse that as a name."""
CONFIGURED = pytest.StashKey[frozenset[str]]()
"""The options that ``pyproject.toml`` sets and the command line does not."""
_FIXTURES = re.compile(rb"\b(accuracy|latency|throughput|load)_item\b")


class DefaultRounds(int):
    """The default of ``--benchmark-min-rounds``: a value of the user is a plain int."""


class ArgumentHooks:
    """Replace aliases by the options that they stand for, and make the name of ``--benchmark-save`` optional.

    The option is changed only where pytest-benchmark would refuse it: it has no name, and a bench of ours is to run.
    """

    def __init__(self, parser: pytest.Parser, config: pytest.Config) -> None:
        self._parser, self._config = parser, config
        self._nameless = False

    def pytest_plugin_registered(self, plugin: object) -> None:
        """Accept ``--benchmark-save`` without a name once pytest-benchmark has declared it."""
        if getattr(plugin, "__name__", "") == "pytest_benchmark.plugin":
            args = [*self._config.getini("addopts"), *typed_arguments(self._config)]
            self._nameless = is_nameless(args) and has_bench(args, self._config.invocation_params.dir)
            self._change_save(nargs="?", const=NAMELESS, type=str)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config, args: list[str]) -> Generator[None]:
        """Rewrite the arguments between pytest's first look at them and the final one."""
        if any(arg.startswith("--segcore-baseline") for arg in args):
            open_closed_streams()  # before pytest captures them, and later restores what it found
        default = vars(early_config.option)  # arguments are parsed into it later
        loops = getattr(early_config.known_args_namespace, "looponfail", False)  # hands plain values to its process
        if "benchmark_min_rounds" in default and not loops:
            default["benchmark_min_rounds"] = DefaultRounds(default["benchmark_min_rounds"])
        self._change_save(type=parse_save)
        if self._nameless:
            args[:] = separate_paths(args)  # initial conftest files are looked for in the paths
            early_config.known_args_namespace.file_or_dir = self._parser.parse_known_args(args).file_or_dir
        yield
        # By now, conftest files have declared their options.
        if ALIASES.keys() & {arg.partition("=")[0] for arg in args}:
            args[:] = replace_aliases(args, self._parser.parse_known_and_unknown_args(args)[1])
        configured = configured_arguments(early_config, self._parser.parse_known_args(args))
        early_config.stash[CONFIGURED] = frozenset(arg.partition("=")[0] for arg in configured)
        args[:0] = configured

    def _change_save(self, **attributes: object) -> None:
        for option in self._parser.getgroup("benchmark").options if self._nameless else ():
            if SAVE in option.names():
                option.attrs().update(attributes)


def typed_arguments(config: pytest.Config) -> list[str]:
    """Return the arguments of the command line and PYTEST_ADDOPTS."""
    return [*shlex.split(os.environ.get("PYTEST_ADDOPTS", "")), *map(str, config.invocation_params.args)]


def has_bench(args: Sequence[str], directory: Path) -> bool:
    """Return whether a Python file in the paths among the arguments, or else in `directory`, names our fixtures."""
    named = [directory / arg.partition("::")[0] for arg in args if not arg.startswith("-")]
    places = [place for place in named if os.path.exists(place)] or [directory]  # noqa: PTH110  # names may be too long
    for file in (file for place in places for file in ([place] if place.is_file() else place.rglob("*.py"))):
        with suppress(OSError):
            if "site-packages" not in file.parts and _FIXTURES.search(file.read_bytes()):
                return True
    return False


def configured_arguments(config: pytest.Config, given: Namespace) -> list[str]:
    """Return the options that ``pyproject.toml`` sets and the command line (`given`) does not, as arguments.

    Raises:
        pytest.UsageError: the file cannot be read, a key is unknown, or a value is invalid.
    """
    try:
        configuration = find_configuration(config.rootpath, config.invocation_params.dir)
        settings = {setting.key: setting for setting in configuration.shared()} if configuration else {}
        return [
            f"{option.flag}={value}"
            for option in BENCH_OPTIONS
            if option.name in settings and getattr(given, option.dest) in (None, [])
            for value in settings[option.name].checked(
                option.kind, is_path=option.kind is path, several=option.repeatable
            )
        ]
    except SegcoreError as error:
        raise pytest.UsageError(plain_text(str(error))) from error


def is_nameless(args: Sequence[str]) -> bool:
    """Return whether pytest's arguments have a ``--benchmark-save`` without a name."""
    following = (following for arg, following in zip_longest(args, args[1:]) if arg == SAVE)
    return any(text is None or text.startswith("-") or _is_path(text) for text in following)


def separate_paths(args: list[str]) -> list[str]:
    """Return pytest's arguments with a ``--benchmark-save`` in front of a path moved to the end, where it has no value.

    A path is what pytest-benchmark refuses as a name, such as ``bench/``. What it accepts is a name, even if a file or
    directory of that name exists.
    """
    kept = [arg for arg, following in zip_longest(args, args[1:]) if arg != SAVE or not _is_path(following)]
    return kept + [SAVE] * (len(args) > len(kept))


def _is_path(text: str | None) -> bool:
    return text is not None and not text.startswith("-") and bool(set(r"\/:*?<>|").intersection(text))


def replace_aliases(args: list[str], undeclared: list[str]) -> list[str]:
    """Return pytest's arguments with our options in place of those aliases that nobody has declared."""
    free = ALIASES.keys() & {arg.partition("=")[0] for arg in undeclared}
    names = [arg.partition("=")[0] for arg in args]
    return [ALIASES[name] + arg[len(name) :] if name in free else arg for name, arg in zip(names, args, strict=True)]
