"""Ignore warnings in one thread: `warnings.catch_warnings` changes the filters of all of them."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, cast

_quiet = ContextVar("_quiet", default=False)
_lock = threading.Lock()
_users = 0


class _OnlyIfQuiet:
    """Takes the place of the pattern of a filter: matches any module, but only in a quiet thread."""

    def match(self, module: str) -> bool:
        return _quiet.get()


_FILTER: Any = ("ignore", None, Warning, _OnlyIfQuiet(), 0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Ignore all warnings of this thread in the body."""
    _count(1)
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)
        _count(-1)


def _count(change: int) -> None:
    """Keep the filter among those of the process while anybody needs it."""
    global _users
    with _lock:
        _users += change
        filters = cast("list[Any]", warnings.filters)
        if _users and _FILTER not in filters[:1]:  # others may have put theirs in front, or restored a copy
            filters.insert(0, _FILTER)
        elif not _users:
            filters[:] = [each for each in filters if each is not _FILTER]
