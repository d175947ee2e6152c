"""Arguments rewritten before pytest parses them: aliases, ``--benchmark-save`` without a name, settings of a file.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Generator
from itertools import zip_longest

import pytest
from pytest_benchmark.utils import SecondsDecimal, parse_save, parse_seconds

from segcore.core.bench_options import BENCH_OPTIONS, BenchOption, path
from segcore.core.configuration import Setting, find_configuration
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


class DefaultRounds(int):
    """The default of ``--benchmark-min-rounds``: a value of the user is a plain int."""


class DefaultSeconds(SecondsDecimal):
    """The default of ``--benchmark-max-time``."""


class ArgumentHooks:
    """Make the name of ``--benchmark-save`` optional and replace aliases by the options that they stand for.

    Args:
        parser: of pytest's command line.
    """

    def __init__(self, parser: pytest.Parser) -> None:
        self._parser = parser

    def pytest_plugin_registered(self, plugin: object) -> None:
        """Accept ``--benchmark-save`` without a name once pytest-benchmark has declared it."""
        if getattr(plugin, "__name__", "") == "pytest_benchmark.plugin":
            self._change_save(nargs="?", const=NAMELESS, type=str)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config, args: list[str]) -> Generator[None]:
        """Rewrite the arguments between pytest's first look at them and the final one."""
        if any(arg.startswith("--segcore-baseline") for arg in args):
            open_closed_streams()  # before pytest captures them, and later restores what it found
        self._change_save(type=parse_save)
        default = vars(early_config.option)  # arguments are parsed into it later
        loops = getattr(early_config.known_args_namespace, "looponfail", False)  # hands plain values to its process
        if "benchmark_min_rounds" in default and not loops:
            default["benchmark_min_rounds"] = DefaultRounds(default["benchmark_min_rounds"])
            default["benchmark_max_time"] = DefaultSeconds(parse_seconds(default["benchmark_max_time"]))
        args[:], typed = separate_paths(args), list(args)
        if args != typed:  # initial conftest files are looked for in the paths
            early_config.known_args_namespace.file_or_dir = self._parser.parse_known_args(args).file_or_dir
        yield
        # By now, conftest files have declared their options.
        if ALIASES.keys() & {arg.partition("=")[0] for arg in args}:
            args[:] = replace_aliases(args, self._parser.parse_known_and_unknown_args(args)[1])
        configured = configured_arguments(early_config, self._parser.parse_known_args(args))
        early_config.stash[CONFIGURED] = frozenset(arg.partition("=")[0] for arg in configured)
        args[:0] = configured

    def _change_save(self, **attributes: object) -> None:
        for option in self._parser.getgroup("benchmark").options:
            if SAVE in option.names():
                option.attrs().update(attributes)


def configured_arguments(config: pytest.Config, given: Namespace) -> list[str]:
    """Return the options that ``pyproject.toml`` sets and the command line does not, as arguments.

    Args:
        config: pytest's; the file is looked for from its root directory upwards.
        given: the command line.

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
            for value in _values(option, settings[option.name])
        ]
    except SegcoreError as error:
        raise pytest.UsageError(plain_text(str(error))) from error


def _values(option: BenchOption, setting: Setting) -> tuple[str, ...]:
    """Return the values of an option in the file, each of which its type accepts."""
    values = setting.located(option.kind is path)
    if len(values) > 1 and not option.repeatable:
        raise setting.error(f"wanted one value, found {len(values)}")
    try:
        for value in values:
            option.kind(value)
    except ArgumentTypeError as error:
        raise setting.error(str(error)) from None
    return values


def separate_paths(args: list[str]) -> list[str]:
    """Return pytest's arguments with a ``--benchmark-save`` in front of a path moved to the end, where it has no value.

    A path is what pytest-benchmark refuses as a name, such as ``bench/``. What it accepts is a name, even if a file or
    directory of that name exists.
    """
    kept = [arg for arg, following in zip_longest(args, args[1:]) if arg != SAVE or _may_be_name(following)]
    return kept + [SAVE] * (len(args) > len(kept))


def _may_be_name(text: str | None) -> bool:
    return text is None or text.startswith("-") or not set(r"\/:*?<>|").intersection(text)


def replace_aliases(args: list[str], undeclared: list[str]) -> list[str]:
    """Return pytest's arguments with each alias that nobody has declared replaced by our option.

    Args:
        args: pytest's arguments.
        undeclared: those options among them, with their ``=VALUE``, that no plugin or conftest file has declared.
    """
    free = ALIASES.keys() & {arg.partition("=")[0] for arg in undeclared}
    names = [arg.partition("=")[0] for arg in args]
    return [ALIASES[name] + arg[len(name) :] if name in free else arg for name, arg in zip(names, args, strict=True)]
