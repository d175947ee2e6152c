"""Temporary directories and worktrees that are removed even if their process is interrupted or killed.

The process that creates a directory locks it (flock(2)); the next gate removes what is not locked. Unlike process IDs,
locks are never reused, and work between containers.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from segcore.core.errors import UsageError
from segcore.core.git import git

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX = "segcore-gate-"


@contextmanager
def deferred_interrupts() -> Iterator[None]:
    """Deliver Ctrl-C and SIGTERM after the body, so that whatever it creates is registered for removal."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    pending: list[int] = []
    previous: dict[int, Any] = {
        kind: signal.signal(kind, lambda number, _: pending.append(number)) for kind in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for kind, handler in previous.items():
            signal.signal(kind, handler)
        for number in pending[:1]:
            signal.raise_signal(number)


@contextmanager
def temporary_directory() -> Iterator[Path]:
    """Create a temporary directory and remove it at the end; first remove those that killed processes left."""
    if not fcntl:
        raise UsageError("measuring in turns needs a POSIX system: here, directories cannot be locked (no fcntl)")
    remove_leftovers()
    with ExitStack() as cleanup:
        with deferred_interrupts():
            directory, lock = _create()
            cleanup.callback(os.close, lock)
            cleanup.callback(deferred_interrupts()(shutil.rmtree), directory, ignore_errors=True)
        yield directory


def _create() -> tuple[Path, int]:
    """Return a new directory and the file descriptor that locks it."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-")).resolve()
        with suppress(FileNotFoundError):  # another process took it for a leftover before it was locked
            lock = os.open(directory, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            directory.stat()
            return directory, lock


def remove_leftovers() -> None:
    """Remove the directories of processes that were killed, and the git worktrees in them."""
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # in use, removed by now, or another user's
            lock = os.open(directory, os.O_RDONLY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                repositories = [_git_directory(link.parent) for link in directory.glob("*/.git")]
                shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)
            for repository in filter(None, repositories):
                forget_worktrees(repository)


@deferred_interrupts()
def forget_worktrees(repository: Path) -> None:
    """Unregister the worktrees of gates whose directories no longer exist.

    ``git worktree prune`` would keep those whose creation was interrupted: git has locked them.
    """
    with suppress(UsageError):  # the repository may be gone
        for line in git(repository, "worktree", "list", "--porcelain").splitlines():
            kind, _, name = os.fsdecode(line).partition(" ")
            if kind == "worktree" and Path(name).parent.name.startswith(PREFIX) and not Path(name).exists():
                git(repository, "worktree", "remove", "--force", "--force", name)


def _git_directory(worktree: Path) -> Path | None:
    with suppress(UsageError):
        return Path(os.fsdecode(git(worktree, "rev-parse", "--path-format=absolute", "--git-common-dir")))
    return None
