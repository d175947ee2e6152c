"""Defaults of commands from ``pyproject.toml``: see `segcore.core.configuration`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

import click

from segcore.core.configuration import KEYS, Setting, find_configuration

LIMITS = frozenset({"max_slowdown", "max_miou_drop", "max_iou_drop", "process_noise"})
"""Parameters that decide a verdict: a file of the change that is judged could loosen them. Limits of cases are compared
with the baseline's."""


def settable(command: click.Command) -> dict[str, click.Parameter]:
    """Return the parameters of a command that the file can set, by key.

    These are the options that take a value, so that the command line can replace what the file says, and arguments
    that are named like a key of ``[tool.segcore]``; `LIMITS` are not.
    """
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

    Args:
        name: of the command.
        command: itself.
        load: returns a command by name; called for those that the file has a table for.
        commands: the names of all.

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
    values = setting.located(isinstance(parameter.type, click.Path))
    several = isinstance(parameter, click.Option) and parameter.multiple
    if not several and not shared and len(values) > 1:
        raise setting.error(f"wanted one value, found {len(values)}")
    try:
        for value in values:
            parameter.type.convert(value, parameter, None)
    except click.BadParameter as error:
        raise setting.error(error.message) from None
    return values if several else values[0]
