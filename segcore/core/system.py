"""What the system grants: memory that is left; failures that a setting of the user's can mend, and what to set."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
from pathlib import Path
from typing import Final

import psutil

_MEMORY: Final = "choose a smaller size, close other programs, or raise the memory limit (ulimit -v, the container's)"
_FILES: Final = "raise the limit of open files (ulimit -n)"
_PROCESSES: Final = "raise the limit of processes and threads (ulimit -u, the container's), or set OMP_NUM_THREADS=1"
_BY_ERRNO: Final = {
    errno.ENOMEM: _MEMORY,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EAGAIN: _PROCESSES,
}
_REMEDIES: Final[tuple[tuple[type[Exception], str, str], ...]] = (
    (MemoryError, "", _MEMORY),
    (RuntimeError, r"allocate memory|out of memory|not enough memory|bad.alloc|alloc_fail", _MEMORY),
    (ImportError, r"failed to map segment|allocate memory", _MEMORY),
    (ImportError, "Too many open files", _FILES),
    (RuntimeError, "can't start new thread|Resource temporarily unavailable", _PROCESSES),
    (RuntimeError, "initialize cpuinfo", "torch needs /proc: mount it"),
    (OSError, "No usable temporary directory", "set TMPDIR to a directory that can be written"),
    # os.getcwd() names no file.
    (FileNotFoundError, r"^\[Errno 2\] No such file or directory$", "the working directory is gone: cd to another"),
)
"""Kind of exception, pattern in its message, and what to do: libraries raise these without a class of their own."""


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still use: free on the machine, and within the limit of its container.

    Args:
        root: directory that contains ``sys``.
    """
    left = [sys.maxsize]
    with contextlib.suppress(OSError):
        left.append(psutil.virtual_memory().available)
        used = psutil.Process().memory_info().rss
        for name in ("memory.max", "memory/memory.limit_in_bytes"):  # control groups, versions 2 and 1
            with contextlib.suppress(OSError, ValueError):  # no such file; "max"
                left.append(int((root / "sys/fs/cgroup" / name).read_text(encoding="ascii")) - used)
    return max(0, min(left))


def out_of_memory(error: Exception) -> bool:
    """Return whether an exception says that memory could not be allocated."""
    return _remedy(error) is _MEMORY


def explain(error: Exception) -> str | None:
    """Return one line that says what the system refused and what to set; None for any other exception."""
    remedy = _remedy(error)
    what = str(error).partition("\n")[0] or ("out of memory" if remedy is _MEMORY else type(error).__name__)
    return remedy and f"{what}; {remedy}"


def _remedy(error: Exception) -> str | None:
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    found = (what for kind, text, what in _REMEDIES if isinstance(error, kind) and re.search(text, str(error), re.I))
    return next(found, None)
