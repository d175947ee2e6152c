"""Defaults of options in ``pyproject.toml``: ``[tool.segcore]`` and, for one command, ``[tool.segcore.COMMAND]``.

Nothing heavy is imported here: pytest loads this in every repository that has segcore installed.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segcore.core.bench_options import BENCH_OPTIONS
from segcore.core.errors import UsageError, nearest_hint

FILE = "pyproject.toml"
KEYS = frozenset(option.name for option in BENCH_OPTIONS)
"""Of ``[tool.segcore]`` itself: the options of a bench run. Commands with an option of the same name take them too."""


@dataclass(frozen=True)
class Setting:
    """One value of the file, or several, as text."""

    key: str
    values: tuple[str, ...]
    where: str
    """File and line, for errors."""
    base: Path | None
    """What paths are relative to; None if that is where the command runs."""

    def error(self, problem: str) -> UsageError:
        """Return an error that names the line of this value."""
        return UsageError(f"{self.key}: {problem}", where=self.where)

    def located(self, is_path: bool) -> tuple[str, ...]:
        """Return the values, those that are paths (or exist as such) relative to where the command runs."""
        return tuple(self._located(value, is_path) for value in self.values)

    def checked(self, convert: Callable[[str], object], *, is_path: bool, several: bool) -> tuple[str, ...]:
        """Return the `located` values; raise UsageError if `convert` refuses one, or for many unless `several`."""
        values = self.located(is_path)
        if len(values) > 1 and not several:
            raise self.error(f"wanted one value, found {len(values)}")
        try:
            for value in values:
                convert(value)
        except Exception as error:  # argparse's or click's
            raise self.error(str(error)) from None
        return values

    def _located(self, value: str, is_path: bool) -> str:
        if self.base is None or not value or Path(value).is_absolute():
            return value
        there = is_path or (self.base / value).exists() or ("*" in value and any(self.base.glob(value)))
        return str(self.base / value) if there else value


@dataclass(frozen=True)
class Configuration:
    """The segcore tables of one ``pyproject.toml``."""

    file: Path
    text: str
    table: dict[str, Any]
    directory: Path
    """Where the command runs."""

    @property
    def tables(self) -> dict[str, dict[str, Any]]:
        """The tables of commands, by command; `cases` and `models`, which are keys, have none."""
        return {name: value for name, value in self.table.items() if isinstance(value, dict) and name not in KEYS}

    def shared(self) -> tuple[Setting, ...]:
        """Return what ``[tool.segcore]`` itself sets; UsageError for a key that is unknown or has a wrong type."""
        values = {name: value for name, value in self.table.items() if name in KEYS or not isinstance(value, dict)}
        return tuple(self._settings("", values, KEYS))

    def of_command(self, command: str, keys: Iterable[str]) -> tuple[Setting, ...]:
        """Return what the table of a command with the options `keys` sets; raise like `shared`."""
        return tuple(self._settings(command, self.tables.get(command, {}), keys))

    def check_tables(self, commands: Iterable[str]) -> None:
        """Raise UsageError for a table that is of no command."""
        for name in self.tables:
            if name not in commands:
                hint = nearest_hint(name, commands)
                raise UsageError(f"[tool.segcore.{name}]: there is no such command{hint}", where=self._where(name, ""))

    def _settings(self, command: str, values: dict[str, Any], keys: Iterable[str]) -> Iterator[Setting]:
        for key, value in values.items():
            where = self._where(command, key)
            if key not in keys:
                hint = nearest_hint(key, keys)
                known = ", ".join(sorted(keys)) or "none"
                raise UsageError(f"unknown key {key!r}{hint}; there are: {known}", where=where)
            items = value if isinstance(value, list) else [value]
            if not items or any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in items):
                raise UsageError(f"{key}: wanted a text, a number or a list of them, found {value!r}", where=where)
            base = self.file.parent if self.file.parent != self.directory else None
            yield Setting(key, tuple(map(str, items)), where, base)

    def _where(self, command: str, key: str) -> str:
        """Return the file with the line of a key, or of the table if the key is written in another way."""
        header = re.escape(f"tool.segcore.{command}" if command else "tool.segcore")
        table = re.search(rf"^[ \t]*\[[ \t]*{header}[ \t]*\]", self.text, re.MULTILINE)
        if table is None:
            return str(self.file)
        found = re.compile(rf"^[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*=", re.MULTILINE).search(self.text, table.end())
        at = found.start() if key and found else table.start()
        return f"{self.file}:{self.text.count(chr(10), 0, at) + 1}"


def find_configuration(directory: Path, runs_in: Path | None = None) -> Configuration | None:
    """Return the nearest ``pyproject.toml`` that has a segcore table, None if there is none.

    It is looked for up to the top of the git repository; outside one, only in the directory itself, since what lies
    above need not be the user's own. `runs_in` is where the command runs, if that is another directory.
    """
    directory = directory.absolute()
    places = [directory, *directory.parents]
    top = next((i for i, place in enumerate(places) if (place / ".git").exists()), 0)
    for place in places[: top + 1]:
        file = place / FILE
        if file.is_file() and (found := _read(file, (runs_in or directory).absolute())):
            return found
    return None


def _read(file: Path, directory: Path) -> Configuration | None:
    try:
        data = file.read_bytes()
        if b"segcore" not in data:  # errors in files without our table are not ours to report
            return None
        text = data.decode()
        tool = tomllib.loads(text).get("tool", {})
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror or error}", where=str(file)) from None
    except ValueError as error:
        raise UsageError(f"is not TOML in UTF-8: {error}", where=str(file)) from None
    if not isinstance(tool, dict) or "segcore" not in tool:
        return None
    if not isinstance(tool["segcore"], dict):
        raise UsageError(f"tool.segcore: wanted a table, found {tool['segcore']!r}", where=str(file))
    return Configuration(file, text, tool["segcore"], directory)
