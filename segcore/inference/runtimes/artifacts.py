"""Exported and quantised files, cached by content: the same network, versions and options are built once."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from segcore.core.errors import DeviceError
from segcore.core.files import move_into_place


@dataclass(frozen=True)
class Artifact:
    """A file built from a network."""

    path: Path
    build_s: float
    """Seconds that building took; 0.0 if the file was in the cache."""


def artifact(cache_dir: Path, content: Mapping[str, str], suffix: str, build: Callable[[Path], None]) -> Artifact:
    """Return the artifact of some content, building it if it is not in the cache; safe across processes.

    Args:
        cache_dir: cache of downloads and artifacts.
        content: everything that determines the bytes: network, weights, versions, options.
        suffix: of the file.
        build: writes the file to the path that it gets.

    Raises:
        DeviceError: the file cannot be written.
    """
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    path = cache_dir / "artifacts" / f"{digest[:24]}{suffix}"
    if path.is_file():
        return Artifact(path, 0.0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        (cache_dir / "locks").mkdir(exist_ok=True)
        with FileLock(cache_dir / "locks" / f"{path.name}.lock"):
            if path.is_file():  # another process has built it
                return Artifact(path, 0.0)
            start = time.perf_counter()
            temporary = path.with_name(f".{path.name}")  # may be there: a killed process leaves it
            try:
                build(temporary)
                move_into_place(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            return Artifact(path, time.perf_counter() - start)
    except OSError as error:
        raise DeviceError(
            f"cannot write {path}: {error.strerror or error}; free space or set SEGCORE_CACHE to another directory"
        ) from error
