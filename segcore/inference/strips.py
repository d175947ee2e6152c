"""Work on the rows of an image by several threads at once, for code that torch does not run on its own."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

MIN_PIXELS = 1 << 18
"""Below this, waking other threads takes longer than they save."""
STRIPS_PER_THREAD = 2


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="segcore-strips")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of the threads


def in_strips(work: Callable[[int, int], object], length: int, pixels: int) -> None:
    """Call ``work(start, stop)`` for strips that cover 0 to `length`, in as many threads as torch has.

    The calling thread works as well, and waits for no strip that it can do itself: on a busy machine it does them all.

    Args:
        work: has to release the interpreter's lock, as numpy and Pillow do, and to write to its own strip alone.
        length: rows, or columns.
        pixels: of the whole image: if there are few, one call does all.
    """
    threads = torch.get_num_threads() if pixels >= MIN_PIXELS else 1
    count = min(STRIPS_PER_THREAD * threads, length) if threads > 1 else 1
    ends = [length * index // count for index in range(count + 1)]
    left = deque(zip(ends, ends[1:], strict=False))

    def take() -> None:
        while left:
            try:
                strip = left.popleft()
            except IndexError:  # another thread took the last
                return
            work(*strip)

    helpers = [_pool().submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()
