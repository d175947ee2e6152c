"""Download files from the network, a mirror or the disk: once, verified, and into a cache.

While it is being downloaded a file is ``NAME.part``; ``NAME.part.source`` beside it holds the URL and the server's
validator, with which an interrupted download is resumed. pooch cannot resume, has no size limit and no lock, and
retries a 404 like a broken connection.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock

from segcore.core.errors import DownloadError, IntegrityError, OfflineError, OutputError, UsageError
from segcore.core.files import move_into_place, sha256_file, write_file
from segcore.core.streams import is_terminal, progress_console
from segcore.inputs.network import PartialFile, download
from segcore.inputs.source import OFFLINE_HINT, Source, split_url
from segcore.inputs.source import FetchSettings as FetchSettings  # for importers of this module

Progress = Callable[[str, int, int | None], None]
"""Called after every chunk with the file's name, the bytes that have arrived, and their total (None if unknown)."""


def verify(path: Path, sha256: str | None) -> bool:
    """Return whether a file can be read and its SHA-256 begins with ``sha256`` (8 to 64 digits); None accepts any."""
    digits = _digits(sha256)
    return os.access(path, os.R_OK) and path.is_file() and (digits is None or sha256_file(path).startswith(digits))


def _digits(sha256: str | None) -> str | None:
    if sha256 is None:
        return None
    # torchvision's file names contain the first 8 digits.
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256.lower()):
        raise UsageError(f"sha256 {sha256!r} is not a hash: wanted 64 hexadecimal digits, or the first 8 or more")
    return sha256.lower()


def cache_name(url: str) -> str:
    """Return the file name of ``url`` in the cache: a hash of the URL and its readable last part."""
    last = split_url(url).path.rstrip("/").rpartition("/")[2]
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", last)[-100:] or "download"
    return f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{readable}"


def cached_path(url: str, sha256: str | None = None, settings: FetchSettings | None = None) -> Path | None:
    """Return the path of the verified file in the cache, or None; never use the network."""
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
    """Return the path of the file at ``url``, downloading it only if it is not there already.

    Args:
        url: https; http only for an allowed host or through a mirror; or file.
        destination: path of the file; None puts it into the cache. A device or pipe is written through.
        sha256: expected SHA-256, 64 hexadecimal digits or the first 8 or more. Without one, an existing file is
            accepted as it is; with one, a file with other bytes is downloaded again.
        settings: where to store it and what is allowed; None reads the environment.
        progress: called after every chunk; None shows a progress bar if stderr is a terminal.

    Raises:
        OfflineError: the network is switched off or the host out of reach, and the file is not there.
        IntegrityError: the bytes received do not have the expected hash.
        DownloadError: the file cannot be downloaded or stored for another reason.
        UsageError: ``sha256`` or an environment variable is malformed.
    """
    settings = settings or FetchSettings.from_env()
    digits = _digits(sha256)
    path = Path(destination).absolute() if destination is not None else settings.cache_dir / cache_name(url)
    if os.path.isdir(path):  # noqa: PTH112 - Path.is_dir() raises if a directory above cannot be read
        raise UsageError(f"destination {path} is a directory: wanted the path of the file to write")
    if verify(path, digits):
        return path
    if os.access(path, os.F_OK) and not path.is_file():
        fetched = download_file(url, sha256=sha256, settings=settings, progress=progress)
        try:
            write_file(path, fetched.read_bytes())
        except OutputError as error:
            raise DownloadError(str(error)) from error
        return path
    source = Source.of(url, settings)
    try:
        if source.is_remote:
            source.check_allowed(source.actual, None, settings)
            if settings.offline:
                state = "has another hash than expected" if os.access(path, os.R_OK) else "is missing"
                what = f"the network is off (SEGCORE_OFFLINE or --offline), and the file in {path.parent} {state}"
                raise OfflineError(f"{what}; {OFFLINE_HINT}")
        with _lock(path, settings), download_progress() if progress is None else contextlib.nullcontext(progress) as p:
            if not verify(path, digits):  # another process may have downloaded it meanwhile
                _fetch(source, path.resolve(), digits, settings, p)  # a link keeps pointing at it
    except DownloadError as error:
        raise type(error)(error.message, where=str(source)) from error
    except OSError as error:
        hint = "free space, or choose another directory (SEGCORE_CACHE)"
        raise DownloadError(f"cannot write {path}: {error.strerror or error}; {hint}", where=str(source)) from error
    return path


def _lock(path: Path, settings: FetchSettings) -> FileLock:
    locks = settings.cache_dir / "locks"
    for directory in (path.parent, locks):
        directory.mkdir(parents=True, exist_ok=True)
    # The kernel holds the lock on an open file: it ends with the process, but the file stays.
    return FileLock(locks / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:16]}.lock")


def _fetch(source: Source, path: Path, digits: str | None, settings: FetchSettings, progress: Progress) -> None:
    part = PartialFile(path.with_name(path.name + ".part"), source, digits is not None, settings.max_bytes)
    resumed = False
    for _ in range(2):  # if the parts of a resumed download do not belong together, start again
        if source.is_remote:
            resumed = download(part, settings, lambda done, total: progress(path.name, done, total))
        else:
            _copy(source, part)
        found, size = sha256_file(part.path), part.path.stat().st_size
        if digits is None or found.startswith(digits):
            move_into_place(part.path, path)
            part.discard()
            return
        part.discard()
        if not resumed:
            break
    raise IntegrityError(
        f"the {size} bytes received have sha256 {found}, expected was {digits}; "
        "nothing was kept: check the expected hash and the mirror, then try again"
    )


def _copy(source: Source, part: PartialFile) -> None:
    url = split_url(source.actual)
    if url.netloc not in {"", "localhost"}:
        raise DownloadError("names another machine; wanted file:///path")
    origin = Path(urllib.request.url2pathname(url.path))
    if not origin.is_file():
        raise DownloadError(f"there is no file {origin}")
    part.begin("")
    part.check_size(origin.stat().st_size)
    shutil.copyfile(origin, part.path)


@contextlib.contextmanager
def download_progress() -> Iterator[Progress]:
    """Yield a callable that draws a progress bar with size and speed on stderr, or nothing if it is no terminal."""
    if not is_terminal(stderr=True):
        yield lambda name, done, total: None
        return
    from rich import progress as bars

    columns = bars.TextColumn("{task.description}"), bars.BarColumn(), bars.DownloadColumn(), bars.TransferSpeedColumn()
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=progress_console(), transient=True) as bar:
        tasks: dict[str, bars.TaskID] = {}

        def draw(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield draw
