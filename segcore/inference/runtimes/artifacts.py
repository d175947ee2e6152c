"""Exported and quantised files, cached by content: the same network, versions and options are built once.

Beside each file is its SHA-256, which is checked whenever the file is used: one that is damaged is built again. Another
file beside it has the seconds that building took.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from segcore.core.errors import DeviceError
from segcore.core.files import move_into_place, read_file, sha256_file, write_file

_built_here: dict[Path, float] = {}
"""Seconds of what this process has built."""


@dataclass(frozen=True)
class Artifact:
    """A file built from a network."""

    path: Path
    build_s: float
    """Seconds that building took; 0.0 if the file was in the cache."""


def artifact(cache_dir: Path, content: Mapping[str, str], suffix: str, build: Callable[[Path], None]) -> Artifact:
    """Return the artifact of some content, building it if the cache has none that is whole; safe across processes.

    `content` is everything that determines the bytes: network, weights, versions, options. `build` writes the file to a
    path.

    Raises:
        DeviceError: the file cannot be written.
    """
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = cache_dir / "artifacts" / f"{digest[:24]}{suffix}"
    try:
        if _is_whole(path):
            return Artifact(path, 0.0)
        path.parent.mkdir(parents=True, exist_ok=True)
        (cache_dir / "locks").mkdir(exist_ok=True)
        with FileLock(cache_dir / "locks" / f"{path.name}.lock"):
            if _is_whole(path):  # another process has built it
                return Artifact(path, 0.0)
            if path.exists():
                sys.stderr.write(f"segcore: {path} is damaged or has no hash beside it: it is built again\n")
            start = time.perf_counter()
            temporary = path.with_name(f".{path.name}")  # may be there: a killed process leaves it
            try:
                build(temporary)
                digest = sha256_file(temporary)
                move_into_place(temporary, path)
                build_s = time.perf_counter() - start
                for beside, text in ((_seconds_path(path), f"{build_s:.3f}"), (_hash_path(path), digest)):
                    beside.unlink(missing_ok=True)  # may be a FIFO or a link
                    write_file(beside, text.encode())
            finally:
                temporary.unlink(missing_ok=True)
            _built_here[path] = build_s
            return Artifact(path, build_s)
    except OSError as error:
        raise DeviceError(
            f"cannot write {path}: {error.strerror or error}; free space or set SEGCORE_CACHE to another directory"
        ) from error


def _hash_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def built_here_s() -> float:
    """Return the seconds that this process has spent on building artifacts."""
    return sum(_built_here.values())


def built_earlier_s(path: Path) -> float | None:
    """Return the seconds that another process took to build a file: 0.0 if this one has, or none; None if unknown."""
    if path in _built_here or not _hash_path(path).is_file():
        return 0.0
    with contextlib.suppress(OSError, ValueError):
        return max(0.0, float(read_file(_seconds_path(path), 100)))
    return None


def _seconds_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.seconds")


def _is_whole(path: Path) -> bool:
    """Return whether a file is there and has the hash that was written beside it."""
    try:
        return path.is_file() and read_file(_hash_path(path), 64) == sha256_file(path).encode()
    except OSError:
        return False
