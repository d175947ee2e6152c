"""Read YAML 1.2 as plain data, with the position of every key and value, and report every problem at once.

ruamel.yaml parses; its events carry the positions. Anchors, aliases and tags are refused: the files are for people to
read. An unquoted scalar is null, a boolean (true or false), a decimal number or else text, so that ``no``, ``0320``,
``5:20`` and dates are text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, events
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.reader import ReaderError

from segcore.core.files import is_hidden
from segcore.core.text import decoded

SUFFIXES = (".yaml", ".yml")
MAX_FILE_BYTES = 64 * 1024
MAX_DEPTH = 16
Position = tuple[int, int]
"""Line and column, both from 1."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a file."""

    file: Path
    line: int
    column: int
    what: str
    hint: str = ""
    """What to write instead, if that can be guessed."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.what}" + (f"; {self.hint}" if self.hint else "")

    @property
    def place(self) -> tuple[str, int, int]:
        """What problems are sorted by."""
        return self.file.as_posix(), self.line, self.column


def all_problems(where: str, problems: Sequence[Problem]) -> str:
    """Return a message with a line for each problem."""
    count = f"{len(problems)} problem{'s' * (len(problems) > 1)}"
    return "\n  ".join([f"{count} in {where}", *map(str, problems)])


@dataclass(frozen=True)
class Located:
    """A value of a YAML file with its position and those of everything in it."""

    value: Any
    position: Position
    raw: str | None = None
    """Text of a scalar without its quotes; None for a mapping or list."""
    keys: dict[str, Position] = field(default_factory=dict)
    children: dict[str | int, Located] = field(default_factory=dict)


def yaml_files(directory: Path) -> list[Path]:
    """Return the YAML files in a directory and below it that are not hidden, sorted."""
    found = (file for file in directory.rglob("*") if file.suffix.lower() in SUFFIXES and not file.is_dir())
    return sorted((file for file in found if not is_hidden(file.relative_to(directory))), key=Path.as_posix)


def read_yaml(file: Path, wanted: str, problems: list[Problem]) -> Located | None:
    """Return the document in a file and add what is wrong with its syntax to `problems`; None if there is none.

    Args:
        file: of at most `MAX_FILE_BYTES`, in UTF-8, UTF-16 or UTF-32.
        wanted: what should be in the file, for the problem that it is empty.
        problems: is added to.
    """
    builder, before = _Builder(file, problems), len(problems)
    try:
        data = builder.read()
        text = decoded(data)
        root = builder.document(text)
        if root is not None and root.value is not None:
            return root
        if len(problems) == before:
            builder.report((1, 1), f"is empty: wanted {wanted}")
    except OSError as error:
        builder.report((1, 1), f"cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        position = data.count(b"\n", 0, error.start) + 1, 1
        what = f"is not {error.encoding.upper()}: found byte 0x{data[error.start]:02x}"
        builder.report(position, what, "save it as UTF-8")
    except ReaderError as error:
        start = text[: error.position]
        position = start.count("\n") + 1, error.position - start.rfind("\n")
        builder.report(position, f"has a character that YAML does not allow: U+{error.character:04X}")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = (mark.line + 1, mark.column + 1) if mark else builder.position
        builder.report(position, f"is not YAML: {', '.join(filter(None, (error.context, error.problem)))}")
    except (ValueError, AssertionError) as error:  # what ruamel.yaml raises on a bad \U escape or %YAML directive
        builder.report(builder.position, f"is not YAML: {error}")
    return None


class _Builder:
    """Build values with their positions from the parser's events, and report what is refused."""

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        self.position = (1, 1)
        """Of the last node that was parsed."""
        self._file, self._problems = file, problems
        self._events: Iterator[Any] = iter(())

    def report(self, position: Position, what: str, hint: str = "") -> None:
        self._problems.append(Problem(self._file, *position, what, hint))

    def read(self) -> bytes:
        """Return the bytes of the file; none if it is refused."""
        if not self._file.is_file():
            there = self._file.exists()
            self.report((1, 1), "is not a regular file: wanted a YAML file" if there else "there is no such file")
        elif (size := self._file.stat().st_size) > MAX_FILE_BYTES:
            what = f"has {size} bytes: wanted at most {MAX_FILE_BYTES}"
            self.report((1, 1), what, "split it into several files")
        else:
            return self._file.read_bytes()
        return b""

    def document(self, text: str) -> Located | None:
        self._events = YAML(typ="safe", pure=True).parse(text)
        root = None
        for event in self._events:
            if isinstance(event, events.DocumentStartEvent) and root is not None:
                raise MarkedYAMLError(problem="expected a single document", problem_mark=event.start_mark)
            if isinstance(event, events.NodeEvent):
                root = self._node(event, depth=1)
        return root

    def _node(self, event: Any, depth: int) -> Located:
        position = self.position = event.start_mark.line + 1, event.start_mark.column + 1
        if depth > MAX_DEPTH:
            raise MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=event.start_mark)
        if isinstance(event, events.AliasEvent):
            self.report(position, f"has an alias, *{event.anchor}", "repeat the value, or move it to defaults.yaml")
            return Located(None, position, raw="")
        if event.anchor is not None:
            self.report(position, f"has an anchor, &{event.anchor}", "omit it: aliases are not supported")
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.report(position, f"has a tag, {tag}", "omit it: only plain data is read")
        if isinstance(event, events.ScalarEvent):
            text, value = event.value, event.value
            if not event.style:
                value = next((convert(text) for pattern, convert in _PLAIN if re.fullmatch(pattern, text)), text)
            return Located(value, position, raw=text)
        if isinstance(event, events.SequenceStartEvent):
            items = [self._node(item, depth + 1) for item in self._until(events.SequenceEndEvent)]
            return Located([item.value for item in items], position, children=dict(enumerate(items)))
        return self._mapping(position, depth)

    def _mapping(self, position: Position, depth: int) -> Located:
        keys: dict[str, Position] = {}
        children: dict[str | int, Located] = {}
        for event in self._until(events.MappingEndEvent):
            key, child = self._node(event, depth + 1), self._node(next(self._events), depth + 1)
            if key.raw is None:
                self.report(key.position, "has a list or mapping as a key: wanted a word")
            elif key.raw in keys:
                what = f"key {key.raw!r} is repeated: first in line {keys[key.raw][0]}"
                self.report(key.position, what, "remove one of them")
            else:
                keys[key.raw], children[key.raw] = key.position, child
        return Located({name: child.value for name, child in children.items()}, position, keys=keys, children=children)

    def _until(self, end: type) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event


_PLAIN: tuple[tuple[str, Callable[[str], object]], ...] = (
    (r"~|null|Null|NULL|", lambda text: None),
    (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    (r"[-+]?(0|[1-9][0-9]{0,17})", int),
    (r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)", float),
    (r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", lambda text: float(text.replace(".", ""))),
)
"""Patterns of unquoted scalars: the core schema of YAML 1.2, without its octal and hexadecimal numbers."""
