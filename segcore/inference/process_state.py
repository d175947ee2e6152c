"""What changes state of the whole process runs alone; forward passes run beside each other.

While torch traces a network, to export, compile or count it, it replaces `torch.nn.Module.__call__` for all threads;
seeded weights come from the one random generator; and standard error is one file. Another thread that runs a network
meanwhile would be traced as well, or fail.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager

import torch

_changed = threading.Condition()
_threads: Counter[str] = Counter()
"""Number of threads that are ``alone``, that run ``shared``, and that are ``waiting`` to be alone."""
_own = threading.local()


def alone() -> AbstractContextManager[None]:
    """Run the body while no other thread is in a body of `alone` or `shared`; in one of these, just run it."""
    return _hold("alone", ("alone", "shared"))


def shared() -> AbstractContextManager[None]:
    """Run the body while no other thread is in a body of `alone`; threads that wait to be alone go first."""
    return _hold("shared", ("alone", "waiting"))


@contextlib.contextmanager
def _hold(kind: str, others: tuple[str, ...]) -> Iterator[None]:
    if _is_inside():  # a network that opens another one as it runs would wait for itself
        yield
        return
    with _changed:
        _threads["waiting"] += kind == "alone"
        try:
            _changed.wait_for(lambda: not any(_threads[other] for other in others))
        finally:
            _threads["waiting"] -= kind == "alone"
            _changed.notify_all()  # if Ctrl-C ended the wait
        _threads[kind] += 1
    _own.is_inside = True
    try:
        yield
    finally:
        _own.is_inside = False
        with _changed:
            _threads[kind] -= 1
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
    global _changed
    if not _is_inside():
        _changed = threading.Condition()
        _threads.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_other_threads)
