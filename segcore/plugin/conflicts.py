"""Other plugins, options and fixtures with which nothing could be measured, or something else than was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

XDIST = "segcore measures one item at a time, but pytest-xdist is active: run `pytest -n 0` or `pytest -p no:xdist`"
LOOPING = "segcore measures a run once, but `pytest -f` (--looponfail) repeats it without end: drop the option"
SHADOWED = "segcore measures with the fixture `benchmark` of pytest-benchmark, but {} replaces it: {}"
AT_ONCE = "segcore measures one item at a time, in this process, but {} does otherwise: drop {}"
TRACED = "segcore times what it runs, but {} traces it: drop {}"

RUN_AT_ONCE = {"pytest_forked": ("forked",), "pytest_run_parallel": ("parallel_threads", "force_parallel_threads")}
"""Options and markers of plugins that run tests in other processes or threads, by the plugins' modules."""
TRACE = {"pytest_profiling": ("profile", "profile_svg"), "pytest_memray": ("memray", "limit_memory", "limit_leaks")}
"""Options and markers of plugins that trace tests, by the plugins' modules."""


def uses_fixture_of(module: str, name: str, definitions: Sequence[Any]) -> bool:
    """Return whether the fixture in effect is that of a module, perhaps overridden by one that requests it.

    `definitions` are those of the name, the one in effect last, as pytest keeps them.
    """
    for definition in reversed(definitions):
        if definition.func.__module__ == module:
            return True
        if name not in definition.argnames:  # it does not request the one that it overrides
            return False
    return False


def find_conflict(config: pytest.Config, items: Sequence[pytest.Item]) -> str:
    """Return why items of ours cannot be run as the command line, markers and other plugins want it; '' if they can."""
    if hasattr(config, "workerinput"):
        return XDIST
    if any(type(plugin).__name__ == "WorkerFailSession" for plugin in config.pluginmanager.get_plugins()):
        return LOOPING
    timed = [item for item in items if "benchmark" in getattr(item, "fixturenames", ())]
    return (
        _driven(AT_ONCE, RUN_AT_ONCE, config, items)
        or _driven(TRACED, TRACE, config, timed)
        or next(filter(None, map(_shadowed, timed)), "")
    )


def _driven(
    message: str, drivers: Mapping[str, tuple[str, ...]], config: pytest.Config, items: Sequence[pytest.Item]
) -> str:
    """Return a message if a plugin that is loaded drives one of the items, by an option or a marker."""
    loaded = {getattr(plugin, "__name__", "").partition(".")[0] for plugin in config.pluginmanager.get_plugins()}
    for module in loaded & drivers.keys() if items else ():
        for name in drivers[module]:
            if str(config.getoption(name, None)) not in ("None", "False", "1"):
                return message.format(module, f"`--{name.replace('_', '-')}`")
            if any(item.get_closest_marker(name) for item in items):
                return message.format(module, f"the marker `{name}`")
    return ""


def _shadowed(item: pytest.Item) -> str:
    definitions: Sequence[Any] = item._fixtureinfo.name2fixturedefs.get("benchmark", ())  # type: ignore[attr-defined]
    if not definitions or uses_fixture_of("pytest_benchmark.plugin", "benchmark", definitions):
        return ""
    found = definitions[-1].func.__module__
    return SHADOWED.format(found, "drop `--codspeed`" if found.startswith("pytest_codspeed") else "rename it")
