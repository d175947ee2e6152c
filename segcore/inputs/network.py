"""Download the bytes of one file over http(s): attempts, redirects, resuming, limits.

requests does the transfer, urllib3's ``Retry`` counts and spaces the attempts: one budget covers refused connections,
server errors and interrupted bodies.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import requests
import urllib3
from urllib3.util.retry import Retry

from segcore.core.errors import DownloadError, OfflineError
from segcore.inputs.reach import why_out_of_reach
from segcore.inputs.source import OFFLINE_HINT, FetchSettings, Source, without_secrets

CHUNK_BYTES = 1 << 18
MAX_REDIRECTS = 10
MAX_WAIT_S = 60.0
"""Longest pause between attempts; the download fails if a server asks for more (``Retry-After``)."""
RETRY_STATUS = frozenset({408, 429, 500, 502, 503, 504})

ByteProgress = Callable[[int, int | None], None]
"""Called with the bytes that have arrived and, if known, their total."""


class _TransientError(Exception):
    """An attempt failed in a way that another one may not."""

    def __init__(self, reason: str, response: requests.Response | None = None) -> None:
        super().__init__(reason)
        self.response = response


@dataclass(frozen=True)
class PartialFile:
    """A file that is being downloaded: its bytes so far, and beside it the URL and version that they belong to."""

    path: Path
    source: Source
    has_hash: bool
    """Whether the whole file can be checked against a hash."""
    max_bytes: int

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".source")

    def resume(self) -> tuple[int, str]:
        """Return the number of bytes to keep and their validator; (0, "") to start again."""
        try:
            size = self.path.stat().st_size
            url, _, validator = self._note.read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return 0, ""
        # Without a validator, only a hash shows afterwards whether both parts belong together.
        return (size, validator) if url == self.source.actual and (validator or self.has_hash) else (0, "")

    def begin(self, validator: str) -> None:
        """Discard the bytes and note what the next ones belong to."""
        self.discard()
        self._note.write_text(f"{self.source.actual}\n{validator}", encoding="utf-8")

    def check_size(self, size: int) -> None:
        """Discard the file and raise DownloadError if ``size`` is over the limit."""
        if size > self.max_bytes:
            self.discard()
            raise DownloadError(f"larger than the limit of {self.max_bytes} bytes ({size} or more); nothing was kept")

    def discard(self) -> None:
        """Remove the bytes and the note."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


class _Reader(io.RawIOBase):
    """The bytes of a socket until the session's deadline. A socket's own time-out begins again with every byte."""

    def __init__(self, raw: socket.SocketIO, connection: socket.socket, session: _Session) -> None:
        self._raw, self._connection, self._session = raw, connection, session

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._session.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._connection.settimeout(left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """A response, of a server or of a proxy to CONNECT, that is read until the deadline."""

    def __init__(self, session: _Session, sock: socket.socket, **options: Any) -> None:
        super().__init__(sock, **options)
        self.fp = io.BufferedReader(_Reader(self.fp.detach(), sock, session))  # type: ignore[arg-type]  # a SocketIO


class _Adapter(requests.adapters.HTTPAdapter):
    """requests' transport, reading until the deadline."""

    def __init__(self, session: _Session) -> None:
        super().__init__()
        self._session = session

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **options)
        response_class = staticmethod(partial(_Response, self._session))
        pool.ConnectionCls = type("_Connection", (type(pool).ConnectionCls,), {"response_class": response_class})
        return pool


class _Session(requests.Session):
    """A session without redirects: requests reads the whole body of a redirect, even of one that it does not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.deadline = 0.0
        """When the bytes that are being waited for must have arrived, by `time.monotonic`."""
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter(self))

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None

    def location(self, response: requests.Response) -> str | None:
        return super().get_redirect_target(response)


def download(part: PartialFile, settings: FetchSettings, progress: ByteProgress) -> bool:
    """Download all bytes of ``part``; return whether the last attempt resumed. DownloadError if no attempt succeeds."""
    retry = Retry(total=settings.retries, backoff_factor=settings.backoff, backoff_max=MAX_WAIT_S)
    with _Session() as session:
        # With compression, sizes, ranges and hashes would not be those of the file.
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": "segcore"})
        while True:
            try:
                return _attempt(session, part, settings, progress)
            except _TransientError as failure:
                if not retry.total:
                    raise DownloadError(
                        f"{failure}; given up after {settings.retries + 1} attempts, "
                        "try again later: the bytes received are kept and resumed if the server can"
                    ) from failure
                retry = retry.increment("GET", part.source.actual, error=urllib3.exceptions.ProtocolError(str(failure)))
                time.sleep(pause_before_retry(retry, failure.response))


def pause_before_retry(retry: Retry, response: requests.Response | None) -> float:
    """Return the seconds to wait: urllib3's back-off, or what the server asks for (``Retry-After``) if that is longer.

    DownloadError if the server asks for more than ``MAX_WAIT_S``.
    """
    asked = 0.0
    if response is not None and "Retry-After" in response.headers:
        with contextlib.suppress(urllib3.exceptions.InvalidHeader):
            asked = retry.parse_retry_after(response.headers["Retry-After"])
    if asked > MAX_WAIT_S:
        raise DownloadError(f"the server asks to wait {asked:.0f} s (Retry-After); try again after that")
    return max(asked, retry.get_backoff_time())


def _attempt(session: _Session, part: PartialFile, settings: FetchSettings, progress: ByteProgress) -> bool:
    """Request the missing bytes of ``part`` and append them; return whether earlier bytes were kept."""
    offset, validator = part.resume()
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator
    with _open(session, part.source, headers, settings) as response:
        _check_status(part, response)
        resumed = response.status_code == 206
        start, total = _extent(response)
        if not resumed:
            offset = 0
            part.begin(_validator(response))
        # Some servers honour Range but not If-Range: then their validator shows that the version is another one.
        elif not offset or start != offset or (validator and _validator(response) not in {"", validator}):
            part.discard()
            raise _TransientError("the server answered with another part of the file than was asked for")
        part.check_size(total or 0)
        with part.path.open("ab") as file:
            progress(offset, total)
            for chunk in _chunks(response, session, settings):
                part.check_size(offset + len(chunk))
                file.write(chunk)
                file.flush()  # a killed process leaves everything that arrived
                offset += len(chunk)
                progress(offset, total)
    if total is not None and offset != total:
        raise _TransientError(f"the connection ended after {offset} of {total} bytes")
    return resumed


def _check_status(part: PartialFile, response: requests.Response) -> None:
    status = f"HTTP {response.status_code} {response.reason or ''}".rstrip()
    if response.status_code == 416:  # the partial file is longer than the file is now
        part.discard()
        raise _TransientError(status)
    if response.status_code in RETRY_STATUS:
        raise _TransientError(status, response)
    if response.status_code not in {200, 206}:
        raise DownloadError(f"{status}; check the URL, or name a mirror in SEGCORE_MIRRORS")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise DownloadError(f"sent with Content-Encoding {encoding} although identity was asked for")


def _validator(response: requests.Response) -> str:
    """Return what If-Range accepts (RFC 9110, section 13.1.5): a strong ETag, else Last-Modified, else nothing."""
    etag = response.headers.get("ETag", "").strip()
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "").strip()


def _extent(response: requests.Response) -> tuple[int | None, int | None]:
    """Return the offset of the body in the file and the size of the file; None if the server does not say."""
    if response.status_code == 206:
        match = re.match(r"bytes (\d{1,18})-(?:.*/(\d{1,18})$)?", response.headers.get("Content-Range", ""), re.ASCII)
        start, size = match.groups() if match else (None, None)
    else:
        start, size = "0", response.headers.get("Content-Length", "")
        size = size if re.fullmatch(r"\d{1,18}", size, re.ASCII) else None
    return int(start) if start else None, int(size) if size else None


def _chunks(response: requests.Response, session: _Session, settings: FetchSettings) -> Iterator[bytes]:
    """Yield the body as it arrives; raise _TransientError if the connection breaks or is too slow."""
    wanted = settings.min_bytes_per_s * settings.read_timeout
    received, left = 0, settings.read_timeout
    try:
        while True:
            session.deadline = time.monotonic() + left
            chunk = response.raw.read1(CHUNK_BYTES, decode_content=False)
            if not chunk:
                return
            received, left = received + len(chunk), session.deadline - time.monotonic()
            yield chunk  # what the caller takes is not the server's
            if received >= wanted:
                received, left = 0, settings.read_timeout
    except urllib3.exceptions.ReadTimeoutError:
        raise _TransientError(
            f"too slow: only {received} bytes arrived within {settings.read_timeout:g} s, wanted {wanted:.0f}"
        ) from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _TransientError(f"the connection broke: {error}") from error


def _open(session: _Session, source: Source, headers: dict[str, str], settings: FetchSettings) -> requests.Response:
    """Request ``source``, following redirects one by one, because each must be allowed."""
    url = source.actual
    for _ in range(MAX_REDIRECTS + 1):
        response = _get(session, url, headers, settings)
        target = session.location(response)
        if target is None:
            return response
        response.close()
        try:
            previous, url = url, urljoin(url, target)
        except ValueError as error:
            raise DownloadError(f"redirected to {target!r}, which is not a URL: {error}") from None
        source.check_allowed(url, previous, settings)
    raise DownloadError(f"more than {MAX_REDIRECTS} redirects, the last to {without_secrets(url)}")


def _get(session: _Session, url: str, headers: dict[str, str], settings: FetchSettings) -> requests.Response:
    reason = why_out_of_reach(url, settings.connect_timeout)
    if reason is not None:
        raise OfflineError(f"{reason}; {OFFLINE_HINT}")
    session.deadline = time.monotonic() + settings.read_timeout
    timeouts = (settings.connect_timeout, settings.read_timeout)
    try:
        return session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeouts)
    except requests.exceptions.ReadTimeout as error:
        raise _TransientError(f"no complete headers within {settings.read_timeout:g} s") from error
    except requests.exceptions.ProxyError as error:
        raise OfflineError(f"the proxy does not connect to it: {_cause(error)}; {OFFLINE_HINT}") from error
    except requests.exceptions.SSLError as error:
        raise DownloadError(
            f"no trusted https connection: {_cause(error)}; behind an inspecting proxy, name its "
            "certificate in REQUESTS_CA_BUNDLE"
        ) from error
    except (requests.exceptions.Timeout, requests.exceptions.ConnectionError) as error:
        raise _TransientError(f"the connection broke: {_cause(error)}") from error
    except requests.exceptions.RequestException as error:
        raise DownloadError(str(error)) from error


def _cause(error: requests.RequestException) -> object:
    """Return the innermost reason that requests and urllib3 have wrapped."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", inner)
