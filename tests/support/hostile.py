"""Values that a run file from a stranger may hold, and every place where it may hold them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]

NUMBERS: tuple[object, ...] = (
    10**400,
    -(10**400),
    10**30,
    -1,
    0,
    5e-324,
    1e-300,
    1e300,
    1.5,
    float("nan"),
    float("inf"),
    -float("inf"),
)
TEXTS = (
    "",
    "::error::owned",
    "::stop-commands::token",
    "##[error]owned",
    "##vso[task.setvariable variable=a]b",
    "\x1b[2J\x1b]0;title\x07",
    "\u202egnp.exe",
    "a\r\n::error::b",
    '=HYPERLINK("http://x")',
    "[a](http://x) @all #1 GH-1 <script>alert(1)</script>",
    "\ud800",
    "x" * 100_000,
    "cpu:x",
    "../../../etc/passwd",
    "/etc/passwd",
    "a\0b",
    "9" * 400,
    "{{7*7}}",
)
OTHERS: tuple[object, ...] = (None, True, [], {}, [None], {"a": 1})
VALUES: tuple[object, ...] = (*NUMBERS, *TEXTS, *OTHERS)


def places(value: object, at: Path = ()) -> Iterator[Path]:
    """Yield the path of every value inside a JSON value; of a list, the first and the last item."""
    if at:
        yield at
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*at, key))
    elif isinstance(value, list):
        for index in dict.fromkeys((0, len(value) - 1)) if value else ():
            yield from places(value[index], (*at, index))


def changed(document: dict[str, Any], at: Path, value: object) -> dict[str, Any]:
    """Return a copy of a document with another value at one place."""
    found = copy.deepcopy(document)
    parent: Any = found
    for key in at[:-1]:
        parent = parent[key]
    parent[at[-1]] = value
    return found
