"""Defaults of commands from ``pyproject.toml``: see `segcore.core.configuration`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import click

from segcore.core.configuration import KEYS, Setting, find_configuration

LIMITS = frozenset({"max_slowdown", "max_miou_drop", "max_iou_drop", "max_drift", "process_noise"})
"""Parameters that decide a verdict: a file of the change that is judged could loosen them. Limits of cases are compared
with the baseline's."""


def settable(command: click.Command) -> dict[str, click.Parameter]:
    """Return what the file can set, by key: options with a value except `LIMITS`, and arguments named like a key."""
    found = {}
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            key = str(parameter.name) if parameter.name in KEYS and not parameter.required else ""
        else:
            key = max((name for name in parameter.opts if name.startswith("--")), key=len, default="").lstrip("-")
        if (
            key
            and parameter.name not in LIMITS
            and not getattr(parameter, "is_flag", False)
            and not getattr(parameter, "is_eager", False)
        ):
            found[key] = parameter
    return found


def configured(
    name: str, command: click.Command, load: Callable[[str], click.Command | None], commands: Collection[str]
) -> dict[str, str | tuple[str, ...]]:
    """Return the defaults of a command that ``pyproject.toml`` sets, by the name of the parameter.

    Commands that the file has tables for are loaded, to check the keys in them.

    Raises:
        UsageError: the file cannot be read, a table or key is unknown, or a value is invalid.
    """
    configuration = find_configuration(Path.cwd())
    if configuration is None:
        return {}
    configuration.check_tables(set(commands) - KEYS)
    parameters = settable(command)
    found = {}
    for setting in configuration.shared():
        if setting.key in parameters:
            found[parameters[setting.key]] = _value(setting, parameters[setting.key], shared=True)
    for table in configuration.tables:
        others = settable(load(table) or command)
        for setting in configuration.of_command(table, others):
            value = _value(setting, others[setting.key], shared=False)
            if table == name:
                found[others[setting.key]] = value
    return {str(parameter.name): value for parameter, value in found.items()}


def _value(setting: Setting, parameter: click.Parameter, shared: bool) -> str | tuple[str, ...]:
    """Return the value of a parameter. If it takes one, and a list is set for all commands, that is the first."""
    several = isinstance(parameter, click.Option) and parameter.multiple
    values = setting.checked(
        lambda value: parameter.type.convert(value, parameter, None),
        is_path=isinstance(parameter.type, click.Path),
        several=several or shared,
    )
    return values if several else values[0]
