"""Interrupts that come at a good moment."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Hold back Ctrl-C and SIGTERM, so that whatever comes into being is known to what will remove it."""
    if threading.current_thread() is not threading.main_thread():  # signals do not come here, nor may it say how
        yield
        return
    late: list[int] = []
    before: dict[int, Any] = {
        s: signal.signal(s, lambda number, _: late.append(number)) for s in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in late[:1]:
            signal.raise_signal(number)
