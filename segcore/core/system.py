"""Name and memory of the machine, and what to do when the system refuses something."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from segcore.core.errors import EnvironmentFaultError, SegcoreError
from segcore.core.text import first_line

MAX_MACHINE: Final = 63
"""Characters of a machine's name: as many as a label of a host name may have (RFC 1035)."""
_MEMORY: Final = "choose a smaller size, close other programs, or raise the memory limit (ulimit -v, the container's)"
_GPU_MEMORY: Final = "choose a smaller size or batch, or close what else uses the GPU (nvidia-smi)"
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
    (RuntimeError, r"(CUDA|HIP|MPS).*out of memory|CU(BLAS|DNN)_STATUS_ALLOC_FAILED", _GPU_MEMORY),
    (RuntimeError, r"allocate memory|out of memory|not enough memory|bad.alloc|alloc_fail", _MEMORY),
    (ImportError, r"failed to map segment|allocate memory", _MEMORY),
    (ImportError, "Too many open files", _FILES),
    (RuntimeError, "can't start new thread|Resource temporarily unavailable", _PROCESSES),
    (ValueError, "^\nInvalid log settings: ", "unset TORCH_LOGS, or set it to what TORCH_LOGS=help lists"),
    (RuntimeError, "initialize cpuinfo", "torch needs /proc: mount it"),
    (RuntimeError, "Unable to open /dev/urandom", "torch needs /dev/urandom: mount /dev"),
    (OSError, "No usable temporary directory", "set TMPDIR to a directory that can be written"),
    # os.getcwd() names no file.
    (FileNotFoundError, r"^\[Errno 2\] No such file or directory$", "the working directory is gone: cd to another"),
)
"""Kind of exception, pattern in its message, and what to do: libraries raise these without a class of their own."""


def machine_name() -> str:
    """Return ``SEGCORE_MACHINE``, or the host name without the domain, with hyphens for what no file name may have."""
    name = os.environ.get("SEGCORE_MACHINE") or platform.node().partition(".")[0]
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.")[:MAX_MACHINE] or "machine"


def available_memory(root: Path = Path("/")) -> int:
    """Return the bytes that this process can still use, within the limits of control groups and ``ulimit -v``."""
    import psutil  # not with this module, which pytest loads in every repository

    left = [sys.maxsize]
    with contextlib.suppress(OSError):
        left.append(psutil.virtual_memory().available)
        used = psutil.Process().memory_info()
        for directory in control_groups("memory", root):
            for name in ("memory.max", "memory.limit_in_bytes"):  # versions 2 and 1
                with contextlib.suppress(OSError, ValueError):  # no such file; "max"
                    left.append(int((directory / name).read_text(encoding="ascii")) - used.rss)
        with contextlib.suppress(ImportError):  # Windows
            import resource

            if (limit := resource.getrlimit(resource.RLIMIT_AS)[0]) != resource.RLIM_INFINITY:
                left.append(limit - used.vms)
    return max(0, min(left))


def control_groups(controller: str, root: Path = Path("/")) -> Iterator[Path]:
    """Yield this process's control groups for ``cpu`` or ``memory``, innermost first (admin-guide/cgroup-v2)."""
    for mount, group in _hierarchies(controller, root):
        for directory in (mount / group, *(mount / group).parents):
            yield directory
            if directory == mount:
                break


def _hierarchies(controller: str, root: Path) -> list[tuple[Path, str]]:
    """Return mount point and group of each hierarchy with a controller."""
    mount = root / "sys/fs/cgroup"
    try:
        text = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [(mount, ""), (mount / controller, "")]
    found = []
    for line in text.splitlines():
        _, controllers, group = [*line.split(":", 2), "", ""][:3]
        # In a container the path may be the host's, and only the root of the mount can be read.
        group = group.lstrip("/").replace("../", "")
        if not controllers:
            found.append((mount, group))
        elif controller in controllers.split(","):
            found += [(mount / name, group) for name in (controller, controllers)]
    return found


def out_of_memory(error: Exception) -> bool:
    """Return whether an exception says that memory could not be allocated."""
    return _remedy(error) in (_MEMORY, _GPU_MEMORY)


def explain(error: Exception) -> str | None:
    """Return one line that says what the system refused and what to set; None for any other exception."""
    remedy = _remedy(error)
    what = first_line(error).partition(", must be")[0] or (
        "out of memory" if remedy == _MEMORY else type(error).__name__
    )
    return remedy and f"{what}; {remedy}"


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn an exception in the body that `explain` knows into an `EnvironmentFaultError`."""
    try:
        yield
    except SegcoreError:
        raise
    except Exception as error:
        line = explain(error)
        if line is None:
            raise
        raise EnvironmentFaultError(line) from error


def _remedy(error: Exception) -> str | None:
    if isinstance(error, OSError) and error.errno in _BY_ERRNO:
        return _BY_ERRNO[error.errno]
    found = (what for kind, text, what in _REMEDIES if isinstance(error, kind) and re.search(text, str(error), re.I))
    return next(found, None)
