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
    """Things made for keys that recur; of both, the least recently used beyond a limit are forgotten.

    Args:
        limit: how many are kept, and in how many different keys one has to recur.
        make: makes one; None if that is impossible, and nothing more is made then.
        uses: at which use of a key it is called.
    """

    def __init__(self, limit: int, make: Callable[[_Key], _Made | None], uses: int = USES) -> None:
        self._limit, self._make, self._uses = limit, make, uses
        self._lock = threading.Lock()
        self._made: OrderedDict[_Key, _Made] = OrderedDict()
        self._seen: OrderedDict[_Key, int] = OrderedDict()
        self.settled = True
        """Whether the next use of the last key gets what this one got."""

    def get(self, key: _Key) -> _Made | None:
        """Return what was made for a key, now or before; None if it has not recurred yet; safe under threads."""
        with self._lock:
            return self._get(key)

    def _get(self, key: _Key) -> _Made | None:
        if key in self._made:
            self._made.move_to_end(key)
        elif self._limit:
            seen = self._seen.pop(key, 0) + 1
            if seen < self._uses:
                _keep(self._seen, key, seen, self._limit)
            else:
                made = self._make(key)
                if made is None:
                    self._limit = 0
                else:
                    _keep(self._made, key, made, self._limit)
        self.settled = key in self._made or not self._limit
        return self._made.get(key)


def _keep(entries: OrderedDict[_Key, _Made], key: _Key, value: _Made, limit: int) -> None:
    entries[key] = value
    while len(entries) > limit:
        entries.popitem(last=False)
