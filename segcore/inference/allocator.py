"""Settings of glibc's allocator, so that it keeps the large blocks of one call for the next.

They hold for the whole process. Only processes of segcore's own change them: the command line, a bench session, a
worker, training. The library never does.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's mallopt(3), from its malloc.h."""
_KEEP: Final = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 1 << 30}
_DEFAULT: Final = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}
"""Where glibc's dynamic thresholds end up after blocks of tens of megabytes (mallopt(3), M_MMAP_THRESHOLD)."""
_USER_VARIABLES = (
    "MALLOC_TRIM_THRESHOLD_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_MMAP_MAX_",
    "GLIBC_TUNABLES",
    "LD_PRELOAD",
)
"""Environment variables by which a user configures the allocator."""


def keep_freed_memory() -> None:
    """Make glibc serve every block from its heap, and keep up to 1 GiB that is free at the heap's end.

    By default it maps large blocks separately and returns them, and the free end of its heap, to the system: every call
    of a network pays for the kernel's zeroing of pages (11,000 of them in `embedded` at 320), at a cost per page that
    differs between processes. The peak of a process may grow by a quarter. Does nothing with another C library, or if
    the user's environment configures the allocator.
    """
    _set(_KEEP)


@contextmanager
def default_settings() -> Iterator[None]:
    """Undo `keep_freed_memory` in the body, to time code as it runs without segcore."""
    _set(_DEFAULT)
    give_back_freed_memory()
    try:
        yield
    finally:
        _set(_KEEP)


def give_back_freed_memory() -> None:
    """Return free memory to the system, so that it does not count as memory of the next item."""
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _set(parameters: dict[int, int]) -> None:
    mallopt = _glibc("mallopt")
    if mallopt is not None and not any(name in os.environ for name in _USER_VARIABLES):
        for parameter, value in parameters.items():
            mallopt(parameter, value)


def _glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None  # musl has neither
