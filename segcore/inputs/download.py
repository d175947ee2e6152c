"""Files from the network, a mirror or the disk: fetched once, checked before they have their name, kept in a cache.

On its way a file is ``NAME.part`` with, beside it, ``NAME.part.source`` (the URL and the server's validator), from
which an interrupted download is resumed. Locks live in ``locks/`` of the cache, so that nothing is left beside a file
of the user's. What goes over the wire is in :mod:`segcore.inputs.network`.

filelock keeps two processes apart and platformdirs knows where caches go. pooch was considered: it resumes nothing,
knows no size limit, takes no lock, and retries a 404 like a dropped line.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from segcore.core.errors import DownloadError, IntegrityError, OfflineError, UsageError
from segcore.core.files import move_into_place
from segcore.inputs.network import OFFLINE_HINT, FetchSettings, Part, Source, download, split_url

__all__ = [
    "FetchSettings",
    "Progress",
    "cache_name",
    "cached_path",
    "download_file",
    "download_progress",
    "sha256_file",
    "verify",
]


class Progress(Protocol):
    """Told of a download's state after every chunk."""

    def __call__(self, name: str, done: int, total: int | None, /) -> None:
        """``done`` of ``total`` bytes of the file ``name`` are here; ``total`` is None where the server is silent."""


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 lower-case hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, sha256: str | None) -> bool:
    """Tell whether ``path`` is a file whose SHA-256 begins with ``sha256``; None accepts any file.

    Raises:
        UsageError: ``sha256`` is not 8 to 64 hexadecimal digits.
    """
    promise = _promise(sha256)
    return path.is_file() and (promise is None or sha256_file(path).startswith(promise))


def _promise(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    # torchvision's file names carry the first 8 digits: fewer would promise too little.
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256.lower()):
        raise UsageError(f"sha256 {sha256!r} is not a hash: wanted 64 hexadecimal digits, or the first 8 or more")
    return sha256.lower()


def cache_name(url: str) -> str:
    """Return the file name of ``url`` in the cache: unique by its hash, readable by its last part."""
    last = split_url(url).path.rstrip("/").rpartition("/")[2]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", last)[-100:] or "download"
    return f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{readable}"


def cached_path(url: str, sha256: str | None = None, settings: FetchSettings | None = None) -> Path | None:
    """Return where the right file already is in the cache, or None; never touches the network.

    Raises:
        UsageError: ``sha256`` is not 8 to 64 hexadecimal digits.
    """
    settings = settings or FetchSettings.from_env()
    path = settings.cache_dir / cache_name(url)
    return path if verify(path, sha256) else None


def download_file(
    url: str,
    destination: str | Path | None = None,
    *,
    sha256: str | None = None,
    settings: FetchSettings | None = None,
    progress: Progress | None = None,
) -> Path:
    """Return the path of ``url``'s file, fetched only if the right file is not there already.

    Args:
        url: https; http only for an allowed host or through a mirror; or file.
        destination: the file's path; None puts it into the cache.
        sha256: the promised SHA-256, 64 hexadecimal digits or the first 8 or more. Without one, a file that is there
            is taken as it is; with one, a file with other bytes is fetched anew.
        settings: where and how; None reads the environment.
        progress: told of every chunk; None shows a bar with size and speed where stderr is a terminal.

    Raises:
        OfflineError: the network is off or the host out of reach, and the file is not here.
        IntegrityError: the bytes received are not the promised ones.
        DownloadError: every other reason for which the file could not be fetched or stored.
        UsageError: ``sha256`` or an environment variable is malformed.
    """
    settings = settings or FetchSettings.from_env()
    promise = _promise(sha256)
    path = Path(destination).absolute() if destination is not None else settings.cache_dir / cache_name(url)
    if path.is_dir():
        raise UsageError(f"destination {path} is a directory: wanted the path of the file to write")
    if verify(path, promise):
        return path
    source = Source.of(url, settings)
    if settings.offline and source.is_remote:
        state = "has other bytes than promised" if path.exists() else "is not there"
        raise OfflineError(
            f"{source}: the network is switched off (SEGCORE_OFFLINE or --offline) and {path} {state}; {OFFLINE_HINT}"
        )
    try:
        with _lock(path, settings), download_progress() if progress is None else _given(progress) as report:
            if not verify(path, promise):  # another process may have been faster
                _fetch(source, path, promise, settings, report)
    except OSError as error:
        raise DownloadError(
            f"{source}: cannot write {path}: {error.strerror or error}; free or choose another place (SEGCORE_CACHE)"
        ) from error
    return path


def _lock(path: Path, settings: FetchSettings) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    locks = settings.cache_dir / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    # The lock is the kernel's, on an open file: it ends with the process, however that ends. The file stays.
    return FileLock(locks / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}.lock")


def _fetch(source: Source, path: Path, promise: str | None, settings: FetchSettings, report: Progress) -> None:
    part = Part(path.with_name(path.name + ".part"), source, promise is not None, settings.max_bytes)
    for last in (False, True):
        resumed = False
        if source.is_remote:
            resumed = download(source, part, settings, lambda done, total: report(path.name, done, total))
        else:
            _copy(source, part)
        found = sha256_file(part.path)
        if promise is None or found.startswith(promise):
            move_into_place(part.path, path)
            part.discard()
            return
        size = part.path.stat().st_size
        part.discard()
        if last or not resumed:
            raise IntegrityError(
                f"{source}: the {size} bytes received have sha256 {found[: len(promise)]}, promised is {promise}; "
                "nothing was kept: check the promised hash and the mirror, then try again"
            )


def _copy(source: Source, part: Part) -> None:
    url = split_url(source.actual)
    if url.netloc not in {"", "localhost"}:
        raise DownloadError(f"{source}: names another machine; wanted file:///path")
    origin = Path(urllib.request.url2pathname(url.path))
    if not origin.is_file():
        raise DownloadError(f"{source}: there is no file {origin}")
    part.begin("")
    part.require_room(origin.stat().st_size)
    shutil.copyfile(origin, part.path)


@contextlib.contextmanager
def _given(progress: Progress) -> Iterator[Progress]:
    yield progress


@contextlib.contextmanager
def download_progress() -> Iterator[Progress]:
    """Yield a progress callable that draws a bar with size and speed on stderr, or nothing where it is no terminal."""
    if not sys.stderr.isatty():
        yield lambda name, done, total: None
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.DownloadColumn(),
        bars.TransferSpeedColumn(),
        bars.TimeRemainingColumn(),
    )
    with bars.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, bars.TaskID] = {}

        def draw(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield draw
