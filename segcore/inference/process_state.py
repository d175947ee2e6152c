"""What changes state of the whole process runs alone; forward passes run beside each other.

While torch traces a network, to export, compile or count it, it replaces `torch.nn.Module.__call__` for all threads;
seeded weights come from the one random generator; and standard error is one file. Another thread that runs a network
meanwhile would be traced as well, or fail.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator

import torch

_changed = threading.Condition()
_running = 0
"""Threads that are in `shared`."""
_waiting = 0
"""Threads that wait to be alone: no further thread begins before them."""
_is_taken = False
"""Whether a thread is in `alone`."""
_own = threading.local()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Run the body while no other thread is in a body of `alone` or `shared`; in one of these, just run it."""
    global _waiting, _is_taken
    if _is_inside():  # a network that opens another one as it runs would wait for itself
        yield
        return
    with _changed:
        _waiting += 1
        try:
            _changed.wait_for(lambda: not _is_taken and not _running)
            _is_taken = True
        finally:
            _waiting -= 1
            _changed.notify_all()  # if Ctrl-C ended the wait
    with _inside():
        try:
            yield
        finally:
            with _changed:
                _is_taken = False
                _changed.notify_all()


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Run the body while no other thread is in a body of `alone`; threads that wait to be alone go first."""
    global _running
    if _is_inside():
        yield
        return
    with _changed:
        _changed.wait_for(lambda: not _is_taken and not _waiting)
        _running += 1
    with _inside():
        try:
            yield
        finally:
            with _changed:
                _running -= 1
                _changed.notify_all()


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run the body, alone, with torch's random generator of the CPU at a seed, and set it back afterwards."""
    with alone(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _is_inside() -> bool:
    return getattr(_own, "is_inside", False)


def _forget_other_threads() -> None:
    """Let a forked process, in which the forking thread alone goes on, not wait for the others."""
    global _changed, _running, _waiting, _is_taken
    if not _is_inside():
        _changed, _running, _waiting, _is_taken = threading.Condition(), 0, 0, False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)


@contextlib.contextmanager
def _inside() -> Iterator[None]:
    _own.is_inside = True
    try:
        yield
    finally:
        _own.is_inside = False
