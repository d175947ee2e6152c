"""The C library's allocator, told to keep the large blocks of one call for the next."""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's mallopt(3), from its malloc.h."""
_KEEP: Final = {_MMAP_MAX: 0, _TRIM_THRESHOLD: 1 << 30}
_SETTLED: Final = {_MMAP_MAX: 65536, _MMAP_THRESHOLD: 32 << 20, _TRIM_THRESHOLD: 64 << 20}
"""Where glibc's own thresholds settle when blocks of tens of megabytes come and go (mallopt(3), M_MMAP_THRESHOLD)."""
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Variables by which a user has decided on the allocator."""


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc serve every block from its heap, and keep up to 1 GiB that is free at the heap's end.

    As it comes, it maps large blocks apart, and gives them and the free end of its heap back, so that every call
    of a network pays for the kernel's zeroing of pages (11,000 of them in `embedded` at 320); and what a page costs
    differs from one process to the next. The most that a process holds may grow by a quarter. Only glibc
    is meant, and who has set its variables decides.
    """
    _set(_KEEP)


@contextmanager
def as_it_comes() -> Iterator[None]:
    """Undo `keep_freed_memory` while the body lasts: what runs there is a process that segcore has no part in."""
    _set(_SETTLED)
    try:
        yield
    finally:
        _set(_KEEP)


def give_back_freed_memory() -> None:
    """Return what is free now to the system, so that it does not count as memory of what comes next."""
    malloc_trim = _glibc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _set(parameters: dict[int, int]) -> None:
    mallopt = _glibc("mallopt")
    if mallopt is not None and not any(name in os.environ for name in _OWN):
        for parameter, value in parameters.items():
            mallopt(parameter, value)


def _glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None  # musl has neither
