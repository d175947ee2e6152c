"""Write output files: atomically, or in place for devices and pipes."""

from __future__ import annotations

import contextlib
import os
import secrets
import sys
from pathlib import Path

from segcore.core.errors import OutputError

_STANDARD_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
"""File descriptors by name: opened again by name, a redirected stream would be overwritten from its start."""


def write_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, creating missing parent directories.

    A regular file is replaced atomically: a reader sees the old contents or all of the new ones, and a symbolic link
    keeps pointing at it. Anything else that exists (``/dev/null``, ``/dev/stdout``, a FIFO) is written to in place.

    Raises:
        OutputError: the file cannot be written; an existing regular file keeps its contents.
    """
    try:
        if is_replaced(path):
            _replace(path.resolve(), data)
        else:
            target = _STANDARD_STREAMS.get(str(path), path)
            with open(target, "ab", closefd=target is path) as stream:
                stream.write(data)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}; choose another path") from error


def is_replaced(path: Path) -> bool:
    """Return whether `write_file` creates or replaces ``path``, rather than writing to what exists there."""
    return str(path) not in _STANDARD_STREAMS and (path.is_file() or not path.exists())


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # tempfile.mkstemp would create a file that only its owner can read; this one gets the umask's permissions.
    # File systems limit a name to 255 bytes, not characters; a character cut in two is dropped.
    shortened = os.fsencode(path.name)[:200].decode(sys.getfilesystemencoding(), errors="ignore")
    temporary = path.with_name(f".{shortened}.{secrets.token_hex(6)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(data)
        move_into_place(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def move_into_place(temporary: Path, path: Path) -> None:
    """Sync ``temporary`` to disk and rename it to ``path`` (same directory), replacing what was there.

    The order matters after a power cut: contents first, then the name, then the directory that holds the name.

    Raises:
        OSError: the file cannot be synced or renamed.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    # Windows cannot open directories and some network file systems cannot sync them; the rename is done by then.
    with contextlib.suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
