"""What is worth making only for shapes that recur, such as a model compiled for one of them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_Key = TypeVar("_Key", bound=Hashable)
_Made = TypeVar("_Made")

USES = 3
"""At which use of a key something is made for it. VOC's 3,697 photos have 355 shapes at 320: at the third use 11 models
are compiled, which run 2,581 of them; at the second 61, which run 2,651."""


class Recurring(Generic[_Key, _Made]):
    """What ``make(key)`` returns for keys that recur, kept for the `limit` keys that were used last.

    It is called when a key is used for the third time, or as `uses` says; as many other keys are counted. If it returns
    None, because it cannot make one, it is not called again.
    """

    def __init__(self, limit: int, make: Callable[..., _Made | None], uses: int = USES) -> None:
        self._limit, self._make, self._uses = limit, make, uses
        self._lock = threading.Lock()
        self._made: OrderedDict[_Key, _Made] = OrderedDict()
        self._seen: OrderedDict[_Key, int] = OrderedDict()
        self.settled = True
        """Whether the next use of the last key gets what this one got."""

    def get(self, key: _Key, *more: object) -> _Made | None:
        """Return what was made for a key, now, by ``make(key, *more)``, or before; None if it has not recurred yet."""
        with self._lock:
            if key in self._made:
                self._made.move_to_end(key)
            elif self._limit:
                seen = self._seen.pop(key, 0) + 1
                if seen < self._uses:
                    _keep(self._seen, key, seen, self._limit)
                elif (made := self._make(key, *more)) is not None:
                    _keep(self._made, key, made, self._limit)
                else:
                    self._limit = 0
            self.settled = key in self._made or not self._limit
            return self._made.get(key)


def _keep(entries: OrderedDict[_Key, _Made], key: _Key, value: _Made, limit: int) -> None:
    entries[key] = value
    while len(entries) > limit:
        entries.popitem(last=False)
