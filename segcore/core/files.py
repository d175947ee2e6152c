"""Files that are either whole or not there: written beside their target, synced and renamed."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path


def atomic_write(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the whole new one, never a part.

    Missing parent directories are made. The file gets the permissions that the umask gives, like any other.

    Raises:
        OSError: the directory cannot be written to, or the disk is full; an existing ``path`` is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not tempfile.mkstemp: its files are readable by their owner alone, which a result meant for CI must not be.
    temporary = path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.tmp")
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
    # Windows cannot open directories, some network file systems cannot sync them; the rename stands all the same.
    with contextlib.suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
