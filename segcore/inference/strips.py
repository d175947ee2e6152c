"""Work on strips of an image, or on several images, by several threads at once, for numpy and Pillow, which use one."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segcore.inference.recurring import Recurring

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

PIXELS_PER_THREAD = 1 << 17
"""For fewer, waking a thread takes longer than it saves."""
MIN_RESIZED_PIXELS = 1 << 20
"""Of photos that several threads resize."""
STRIPS_PER_THREAD = 2

Size = tuple[int, int]
"""(w, h)."""


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="segcore-strips")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.cache_clear)  # a child has none of the threads


def in_strips(work: Callable[[int, int], object], length: int, pixels: int) -> None:
    """Call ``work(start, stop)`` for strips that cover 0 to `length`, in as many threads as torch has.

    `work` has to release the interpreter's lock, as numpy and Pillow do, and to write to its own strip alone. There are
    fewer threads if the image has few pixels.
    """
    threads = max(1, min(torch.get_num_threads(), pixels // PIXELS_PER_THREAD))
    count = min(STRIPS_PER_THREAD * threads, length) if threads > 1 else 1
    ends = [length * index // count for index in range(count + 1)]
    _in_threads(lambda strip: work(*strip), pairwise(ends), threads)


def of_each(work: Callable[[_Item], _Made], items: Sequence[_Item]) -> list[_Made]:
    """Return ``work(item)`` of each item, in as many threads as torch has; raise the exception of the first that fails.

    `work` has to release the interpreter's lock.
    """
    found: dict[int, _Made] = {}
    failed: dict[int, Exception] = {}

    def do(index: int) -> None:
        try:
            found[index] = work(items[index])
        except Exception as error:
            failed[index] = error

    _in_threads(do, range(len(items)), min(torch.get_num_threads(), len(items)))
    if failed:
        raise failed[min(failed)]
    return [found[index] for index in range(len(items))]


def _in_threads(work: Callable[[_Item], object], pieces: Iterable[_Item], threads: int) -> None:
    """Call ``work(piece)`` for each piece.

    The calling thread works as well, and waits for no piece that it can do itself: on a busy machine it does them all.
    """
    left = deque(pieces)

    def take() -> None:
        while left:
            try:
                piece = left.popleft()
            except IndexError:  # another thread took the last
                return
            work(piece)

    helpers = [_pool().submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        for helper in helpers:
            if not helper.cancel():
                helper.result()


def resized(image: Image.Image, size: Size, method: Image.Resampling) -> npt.NDArray[np.uint8]:
    """Return an image of 8-bit channels at (w, h) as an array, to the bit as ``image.resize(size, method)`` has it.

    Pillow resizes across and then down, or the other way round, both in one thread. For large photos of a size that
    recurs, several threads do each pass, in strips that do not depend on each other.
    """
    large = image.width * image.height >= MIN_RESIZED_PIXELS and torch.get_num_threads() > 1
    between = _between.get((image.size, size, method)) if large else None
    if between is None or between == size:
        return np.asarray(image.resize(size, method))
    return np.asarray(_one_pass(_one_pass(image, between, method), size, method))


def _one_pass(image: Image.Image, size: Size, method: Image.Resampling) -> Image.Image:
    """Return an image with one of its sides resized, in strips along the other."""
    found = Image.new(image.mode, size)
    across = size[1] == image.height

    def work(start: int, stop: int) -> None:
        if across:
            strip, target, corner = (0, start, image.width, stop), (size[0], stop - start), (0, start)
        else:
            strip, target, corner = (start, 0, stop, image.height), (stop - start, size[1]), (start, 0)
        found.paste(image.crop(strip).resize(target, method), corner)

    in_strips(work, image.height if across else image.width, image.width * image.height)
    return found


def _between_passes(geometry: tuple[Size, Size, Image.Resampling]) -> Size:
    """Return the size that Pillow resizes a photo to first, as seen on noise; the last size if that is not clear.

    Its versions choose by different rules.
    """
    (width, height), size, method = geometry
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))
    wanted = np.asarray(noise.resize(size, method))
    for between in ((size[0], height), (width, size[1])):
        if np.array_equal(np.asarray(noise.resize(between, method).resize(size, method)), wanted):
            return between
    return size


_between: Recurring[tuple[Size, Size, Image.Resampling], Size] = Recurring(8, _between_passes)
