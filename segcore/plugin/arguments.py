"""Arguments rewritten before pytest parses them: aliases of options, and ``--benchmark-save`` without a name.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

from collections.abc import Generator
from itertools import zip_longest

import pytest
from pytest_benchmark.utils import SecondsDecimal, parse_save, parse_seconds

from segcore.plugin.crash import open_closed_streams

ALIASES = {"--cases": "--segcore-cases", "--offline": "--segcore-offline"}
"""Our option by its alias. Aliases are not declared to pytest, so that another plugin or conftest can declare them."""
SAVE = "--benchmark-save"
NAMELESS = False
"""Value of ``--benchmark-save`` without a name; not a string, because argparse would parse that as a name."""


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
        if "benchmark_min_rounds" in default:
            default["benchmark_min_rounds"] = DefaultRounds(default["benchmark_min_rounds"])
            default["benchmark_max_time"] = DefaultSeconds(parse_seconds(default["benchmark_max_time"]))
        args[:], typed = separate_paths(args), list(args)
        if args != typed:  # initial conftest files are looked for in the paths
            early_config.known_args_namespace.file_or_dir = self._parser.parse_known_args(args).file_or_dir
        yield
        # By now, conftest files have declared their options.
        if ALIASES.keys() & {arg.partition("=")[0] for arg in args}:
            args[:] = replace_aliases(args, self._parser.parse_known_and_unknown_args(args)[1])

    def _change_save(self, **attributes: object) -> None:
        for option in self._parser.getgroup("benchmark").options:
            if SAVE in option.names():
                option.attrs().update(attributes)


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
