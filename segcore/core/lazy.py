"""Sequences whose items are made when they are read, and not kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


class Lazy(Sequence[T]):
    """The results of ``make(0)`` to ``make(count - 1)``."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        """Return one item, or a list of those in a slice; IndexError if there is no such item."""
        found = range(self._count)[index]
        return [self._make(each) for each in found] if isinstance(found, range) else self._make(found)
