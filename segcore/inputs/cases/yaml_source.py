"""Reading a case file as YAML of the plain kind, with every problem and the place of every value.

Anchors, aliases and tags are refused: a case file is data to be read by people. Numbers are decimal ones (YAML 1.1
reads 0320 as 208 and 5:20 as 320), and dates are text. Booleans stay those of YAML 1.1, yes/no/on/off among them, so
that an unquoted `no` is noticed wherever text is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionStartEvent, ScalarEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MAX_FILE_BYTES = 64 * 1024
MAX_DEPTH = 16
_TAG = "tag:yaml.org,2002:"
Place = tuple[int, int]
"""Line and column, both from 1."""
Loc = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a case file."""

    file: Path
    line: int
    column: int
    what: str
    """What is wrong, what was wanted and what was found."""
    hint: str = ""
    """What to write instead, where that can be guessed."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.what}" + (f"; {self.hint}" if self.hint else "")


@dataclass(frozen=True)
class Located:
    """A value of a YAML file with the places of all that is in it."""

    value: Any
    place: Place
    raw: str | None = None
    """A scalar as it is written."""
    keys: dict[str, Place] = field(default_factory=dict)
    children: dict[str | int, Located] = field(default_factory=dict)

    def down(self, loc: Loc) -> tuple[Located, Loc]:
        """Return what is at `loc`, or the last on the way that is there, and the rest of the way."""
        if not loc:
            return self, loc
        if loc[0] in self.children:
            return self.children[loc[0]].down(loc[1:])
        # An index into what was written as a single item leads to that item.
        return self.down(loc[1:]) if isinstance(loc[0], int) else (self, loc)


def read_yaml(file: Path) -> tuple[Located | None, list[Problem]]:
    """Return the one document of a file, and its problems; None where nothing can be made of it."""
    try:
        text = _read_text(file)
    except _UnreadableError as error:
        return None, [Problem(file, error.line, 1, str(error), error.hint)]
    problems: list[Problem] = []
    located = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        problems += [Problem(file, *place, what, hint) for place, what, hint in loader.refused]
        if node is not None:
            located = _locate(node, file, problems)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        problems.append(
            Problem(file, line, column, f"has a character that YAML does not allow: U+{error.character:04X}")
        )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        words = ", ".join(filter(None, (error.context, error.problem)))
        problems.append(Problem(file, *place, f"is not YAML: {words}", error.note or ""))
    return located, problems


class _UnreadableError(Exception):
    def __init__(self, words: str, hint: str = "", line: int = 1) -> None:
        super().__init__(words)
        self.hint, self.line = hint, line


def _read_text(file: Path) -> str:
    try:
        if not file.is_file():
            raise _UnreadableError(
                "is not a regular file: wanted a file of cases" if file.exists() else "there is no such file"
            )
        if file.stat().st_size > MAX_FILE_BYTES:
            raise _UnreadableError(
                f"has {file.stat().st_size} bytes: wanted at most {MAX_FILE_BYTES}", "split it into several files"
            )
        data = file.read_bytes()
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror or error}") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(
            f"is not UTF-8: found byte 0x{data[error.start]:02x}", "save it as UTF-8", line
        ) from None


class _Loader(yaml.SafeLoader):
    """Composes nodes and keeps a list of what it refused; constructs nothing."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # declared by the parent, whose rules these replace

    def __init__(self, text: str) -> None:
        self.refused: list[tuple[Place, str, str]] = []
        self._depth = 0
        super().__init__(text)

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # so in the stubs
        if isinstance(event, AliasEvent):
            self.get_event()  # type: ignore[no-untyped-call]
            self._refuse(event, f"has an alias, *{event.anchor}", "write the value out, or put it into defaults.yaml")
            start: Any = event.start_mark
            return ScalarNode(f"{_TAG}null", "", start, start)
        if isinstance(event, ScalarEvent | CollectionStartEvent):
            if event.anchor is not None:
                self._refuse(event, f"has an anchor, &{event.anchor}", "leave it away: there are no aliases here")
                event.anchor = None
            if event.tag is not None:
                self._refuse(
                    event, f"has a tag, {event.tag.replace(_TAG, '!!')}", "leave it away: case files are plain data"
                )
                event.tag = None
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_DEPTH} deep", problem_mark=event.start_mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _refuse(self, event: Any, what: str, hint: str) -> None:
        self.refused.append(((event.start_mark.line + 1, event.start_mark.column + 1), what, hint))


for _name, _pattern, _first in (
    ("bool", r"(?i:yes|no|true|false|on|off)", "yYnNtTfFoO"),
    ("int", r"[-+]?(0|[1-9][0-9]{0,17})", "-+0123456789"),
    ("float", r"[-+]?(([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)", "-+0123456789."),
    ("float", r"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))", "-+."),
    ("null", r"(~|null|Null|NULL|)", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"{_TAG}{_name}", re.compile(f"^{_pattern}$"), list(_first))


def _scalar(node: ScalarNode) -> object:
    kind = node.tag.removeprefix(_TAG)
    if kind == "bool":
        return node.value.lower() in {"yes", "true", "on"}
    if kind == "int":
        return int(node.value)
    if kind == "float":
        return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return None if kind == "null" else node.value


def _locate(node: Node, file: Path, problems: list[Problem]) -> Located:
    place = (node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, ScalarNode):
        return Located(_scalar(node), place, raw=node.value)
    if isinstance(node, SequenceNode):
        items = [_locate(child, file, problems) for child in node.value]
        return Located([item.value for item in items], place, children=dict(enumerate(items)))
    keys: dict[str, Place] = {}
    children: dict[str | int, Located] = {}
    for name, key_place, child in _pairs(node, file, problems):
        located = _locate(child, file, problems)
        if name in keys:
            words = f"key {name!r} is there twice: first in line {keys[name][0]}"
            problems.append(Problem(file, *key_place, words, "leave one of them away"))
            continue
        keys[name], children[name] = key_place, located
    return Located({name: child.value for name, child in children.items()}, place, keys=keys, children=children)


def _pairs(node: Node, file: Path, problems: list[Problem]) -> Iterator[tuple[str, Place, Node]]:
    """Yield the keys of a mapping as they are written, quotes apart, with what they lead to."""
    assert isinstance(node, MappingNode)
    for key, child in node.value:
        place = (key.start_mark.line + 1, key.start_mark.column + 1)
        if isinstance(key, ScalarNode):
            yield key.value, place, child
        else:
            problems.append(Problem(file, *place, "has a list or mapping for a key: wanted a word"))
