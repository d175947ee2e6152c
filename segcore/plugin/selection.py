"""What the command line leaves out of a run: for the gate, an item that was not asked for is not missing.

Only the command line and PYTEST_ADDOPTS count. What a configuration file or conftest file leaves out is part of the
change that is judged.
"""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from _pytest.mark import KeywordMatcher, MarkMatcher  # pytest says what is deselected, and not by which option
from _pytest.mark.expression import Expression

from segcore.core.bench_options import BENCH_OPTIONS
from segcore.core.records import SELECTABLE
from segcore.inference.devices import detect_device
from segcore.inputs.model_files import is_path, spec_of_path
from segcore.plugin.arguments import separate_paths, typed_arguments

if TYPE_CHECKING:
    from _pytest.mark.expression import ExpressionMatcher  # since pytest 8.3


def command_line(config: pytest.Config) -> Namespace:
    """Return the options given on the command line and in PYTEST_ADDOPTS, others at their defaults."""
    return config._parser.parse_known_args(separate_paths(typed_arguments(config)))


def selected_values(options: Namespace) -> dict[str, tuple[str, ...]]:
    """Return the values that ``--segcore-case`` and its like select, by name; what selects nothing is omitted."""
    given = {option.name: getattr(options, option.dest) for option in BENCH_OPTIONS if option.name in SELECTABLE}
    given["model"] = [spec_of_path(Path(name)).name if is_path(name) else name for name in given["model"]]
    given["device"] = [detect_device(name) for name in given["device"]]
    return {name: tuple(map(str, values)) for name, values in given.items() if values}


def selected_paths(config: pytest.Config, options: Namespace) -> tuple[str, ...]:
    """Return the beginnings of node ids that the arguments name; none if one of them is everything, or no path."""
    found = []
    for argument in map(str, options.file_or_dir):
        name, _, test = argument.partition("::")
        path = Path(os.path.abspath(config.invocation_params.dir / name))  # noqa: PTH100  # links are not followed
        if not path.exists() or path == config.rootpath or not path.is_relative_to(config.rootpath):
            return ()
        found.append("::".join(filter(None, (path.relative_to(config.rootpath).as_posix(), test))))
    return tuple(found)


def leaves_out(options: Namespace, item: pytest.Item) -> bool:
    """Return whether the command line deselects a test: by name, keyword or marker, or as passed before."""
    if any(getattr(options, name, False) for name in ("lf", "stepwise", "stepwise_skip")):  # of pytest's cache
        return True
    if item.nodeid.startswith(tuple(options.deselect or ())):
        return True
    by_keyword = not _matches(options.keyword, KeywordMatcher.from_item(item))
    return by_keyword or not _matches(options.markexpr, MarkMatcher.from_markers(item.iter_markers()))


def _matches(expression: str, matcher: ExpressionMatcher) -> bool:
    return not expression.strip() or Expression.compile(expression.strip()).evaluate(matcher)
