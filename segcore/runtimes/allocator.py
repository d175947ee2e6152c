"""The C library's allocator, told to keep the large blocks of one call for the next."""

from __future__ import annotations

import ctypes
import functools
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt(3), from its malloc.h."""
_AT_LEAST = 1 << 30
_OWN = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Variables by which a user has decided on the allocator."""


@functools.cache
def keep_freed_memory() -> None:
    """Let glibc serve blocks below 1 GiB from its heap, and keep on the heap up to 1 GiB that is free.

    As it comes, it maps each activation of a network afresh and gives it back when it is freed, so that every call pays
    for the kernel's zeroing of each page; and what a page costs differs from one process to the next. The most
    that a process holds at any time stays about the same. Only glibc is meant, and who has set its variables decides.
    """
    if sys.platform == "linux" and not any(name in os.environ for name in _OWN):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_MMAP_THRESHOLD, _AT_LEAST)
            mallopt(_TRIM_THRESHOLD, _AT_LEAST)
