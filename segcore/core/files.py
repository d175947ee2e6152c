"""Find and read input files, write output files: atomically, or in place for devices and pipes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import stat
import sys
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from segcore.core.errors import OutputError

_NO_TEMPORARY = {errno.EACCES, errno.EPERM, errno.EROFS, errno.EBUSY}
"""Errors of a directory that takes no other file, while an existing one can be written: a file that is mounted."""


def find_file(path: Path) -> Path:
    """Return ``path`` or, if missing, the only file beside it that differs in Unicode form or case of its ending."""
    if os.path.exists(path):  # noqa: PTH110  # Path.exists raises on names that are too long
        return path
    try:
        beside = _by_spelling(path.parent, path.parent.stat().st_mtime_ns)
    except (OSError, ValueError):
        return path
    alike = beside.get(_spelling(path.name), ())
    return path.with_name(alike[0]) if len(alike) == 1 else path


@lru_cache(maxsize=4)
def _by_spelling(directory: Path, modified_ns: int) -> dict[str, list[str]]:
    """Return the names in a directory by `_spelling`; a change of the directory makes another entry of the cache."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(directory):  # noqa: PTH208  # names only, of a directory that may hold 100,000
        names.setdefault(_spelling(name), []).append(name)
    return names


def _spelling(name: str) -> str:
    stem, dot, ending = unicodedata.normalize("NFC", name).rpartition(".")
    return stem + dot + ending.lower()


def is_hidden(path: Path) -> bool:
    """Return whether a path, relative to the directory that is listed, is hidden or in a hidden directory."""
    return any(part.startswith(".") for part in path.parts)


def read_file(path: str | Path, most: int) -> bytes:
    """Return the bytes of a regular file; OSError for a FIFO or device, or if it has more than `most` bytes."""
    # Without O_NONBLOCK (which Windows lacks), opening a FIFO waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is not a regular file")
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"has {status.st_size:,} bytes, wanted at most {most:,}")
        return file.read(most)


def write_file(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, creating missing parent directories.

    A regular file is replaced atomically: a reader sees the old contents or all of the new ones, and a symbolic link
    keeps pointing at it. Anything else that exists (``/dev/null``, ``/dev/stdout``, a FIFO) is written to in place.

    Raises:
        OutputError: the file cannot be written; an existing regular file keeps its contents.
    """
    try:
        if is_replaced(path):
            with contextlib.suppress(FileNotFoundError):
                path.stat()  # fails on a loop of links, which resolve() only does before Python 3.13
            _replace(path.resolve(), data)
        else:
            with _open_in_place(path) as stream:
                stream.write(data)
    except OSError as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path}: cannot be written: {reason}; choose another path") from error


def is_replaced(path: Path) -> bool:
    """Return whether `write_file` creates or replaces ``path``, rather than writing to what exists there."""
    return (path.is_file() or not path.exists()) and _standard_stream(path) is None


@contextlib.contextmanager
def _open_in_place(path: Path) -> Iterator[BinaryIO]:
    """Open what exists at ``path`` to write to its end: a device, a FIFO, or one of the process's standard streams."""
    descriptor = _standard_stream(path)
    with open(path if descriptor is None else descriptor, "ab", closefd=descriptor is None) as stream:
        yield stream


def _standard_stream(path: Path) -> int | None:
    """Return the file descriptor of the standard stream that ``path`` names: ``/dev/stdout``, ``/dev/fd/1``, a link.

    Opened again by name, a stream that is redirected to a file would be overwritten from its start.
    """
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        with contextlib.suppress(OSError):
            if stream is not None and os.path.samestat(path.stat(), os.fstat(descriptor)):  # None: it was closed
                stream.flush()
                return descriptor
    return None


def shortened(name: str, most: int = 200) -> str:
    """Return the first bytes of a file name, of which file systems allow 255; a character cut in two is dropped."""
    return os.fsencode(name)[:most].decode(sys.getfilesystemencoding(), errors="ignore")


def _replace(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # tempfile.mkstemp would create a file that only its owner can read; this one gets the umask's permissions.
    temporary = path.with_name(f".{shortened(path.name)}.{secrets.token_hex(6)}.tmp")
    try:
        _write_temporary(temporary, data)
        _rename(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if not (isinstance(error, OSError) and error.errno in _NO_TEMPORARY and path.is_file()):
            raise
        path.write_bytes(data)


def _write_temporary(temporary: Path, data: bytes) -> None:
    """Write and sync a new file; on Linux it gets its name last, so that a killed process leaves nothing."""
    with contextlib.suppress(AttributeError, OSError):  # of other systems, and of file systems that cannot do it
        descriptor = os.open(temporary.parent, os.O_TMPFILE | os.O_WRONLY, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
            # `src_dir_fd` is ignored, but makes Python follow the link (linkat(2) with AT_SYMLINK_FOLLOW).
            os.link(f"/proc/self/fd/{descriptor}", temporary, src_dir_fd=descriptor, follow_symlinks=True)
        return
    with temporary.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def move_into_place(temporary: Path, path: Path) -> None:
    """Sync ``temporary`` to disk, and rename it to ``path`` in the same directory, replacing what was there."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    _rename(temporary, path)


def _rename(temporary: Path, path: Path) -> None:
    temporary.replace(path)
    # Windows cannot open directories and some network file systems cannot sync them; the rename is done by then.
    with contextlib.suppress(OSError):
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
