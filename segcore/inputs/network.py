"""One file's bytes over http(s): what is allowed, which attempts are worth repeating, what can be resumed.

requests carries the bytes and urllib3's ``Retry`` counts and spaces the attempts; one budget covers refused
connections, server errors and bodies that break off half way. Used by :mod:`segcore.inputs.download` alone.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urljoin, urlsplit

import platformdirs
import requests
import urllib3
from urllib3.util.retry import Retry

from segcore.core.errors import DownloadError, OfflineError, UsageError
from segcore.inputs.reach import why_out_of_reach

CHUNK_BYTES = 1 << 18
MAX_REDIRECTS = 10
MAX_WAIT_S = 60.0
"""Longest pause between attempts; a server that asks for more (``Retry-After``) is given up with a message."""
MIN_BYTES_PER_S = 512
"""A connection that delivers less than this over a whole read time-out counts as stalled."""
RETRY_STATUS = frozenset({408, 429, 500, 502, 503, 504})
OFFLINE_HINT = (
    "run `segcore fetch --all` where there is a network, name a mirror in SEGCORE_MIRRORS, "
    "or point SEGCORE_CACHE at a filled cache"
)


@dataclass(frozen=True)
class FetchSettings:
    """Where downloads go and what is allowed; sizes in bytes, times in seconds.

    ``mirrors`` are pairs (URL prefix, replacement), the longest matching prefix counts; a replacement may be http or
    file, because the user named it. ``allowed_hosts`` may be asked over plain http. ``retries`` is the number of
    further attempts after the first, ``backoff`` the factor of urllib3's exponential pause between them.
    """

    cache_dir: Path
    offline: bool = False
    mirrors: tuple[tuple[str, str], ...] = ()
    allowed_hosts: frozenset[str] = frozenset()
    max_bytes: int = 4 << 30
    connect_timeout: float = 3.0
    read_timeout: float = 20.0
    retries: int = 4
    backoff: float = 0.5

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> FetchSettings:
        """Read SEGCORE_CACHE, SEGCORE_OFFLINE, SEGCORE_MIRRORS and SEGCORE_ALLOW_HTTP.

        Raises:
            UsageError: a variable has a value that means nothing.
        """
        cache = env.get("SEGCORE_CACHE", "").strip()
        return cls(
            cache_dir=Path(cache).expanduser().absolute() if cache else platformdirs.user_cache_path("segcore"),
            offline=_parse_switch("SEGCORE_OFFLINE", env.get("SEGCORE_OFFLINE", "")),
            mirrors=_parse_mirrors(env.get("SEGCORE_MIRRORS", "")),
            allowed_hosts=frozenset(env.get("SEGCORE_ALLOW_HTTP", "").lower().replace(",", " ").split()),
        )


def _parse_switch(name: str, value: str) -> bool:
    word = value.strip().lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"", "0", "false", "no", "off"}:
        return False
    raise UsageError(f"{name}={value!r} is neither on nor off: use 1 or 0")


def _parse_mirrors(value: str) -> tuple[tuple[str, str], ...]:
    mirrors = []
    for word in value.split():
        match = re.fullmatch(r"(https?://.+?)=((?:https?|file)://.+)", word)
        if match is None:
            raise UsageError(
                f"SEGCORE_MIRRORS: {word!r} is not PREFIX=REPLACEMENT: wanted for instance "
                "https://example.org/photos/=file:///srv/photos/ (several are separated by spaces)"
            )
        mirrors.append((match[1], match[2]))
    return tuple(mirrors)


@dataclass(frozen=True)
class Source:
    """What was asked for and, after the mirrors, where it is looked for."""

    url: str
    actual: str
    mirrored: bool

    @classmethod
    def of(cls, url: str, settings: FetchSettings) -> Source:
        """Apply the mirrors to ``url``; refuse what must not be asked for at all."""
        prefix, replacement = max(
            (pair for pair in settings.mirrors if url.startswith(pair[0])),
            key=lambda pair: len(pair[0]),
            default=("", ""),
        )
        source = cls(url, replacement + url.removeprefix(prefix) if prefix else url, bool(prefix))
        if source.is_remote:
            source.check_hop(source.actual, None, settings)
        return source

    def __str__(self) -> str:
        return f"{_shown(self.url)} (mirror {_shown(self.actual)})" if self.mirrored else _shown(self.url)

    @property
    def is_remote(self) -> bool:
        """Whether getting it needs the network."""
        return urlsplit(self.actual).scheme.lower() != "file"

    def check_hop(self, url: str, previous: str | None, settings: FetchSettings) -> None:
        """Refuse a URL, first or redirected to, that is neither https nor http to a host the user named."""
        parts = split_url(url)
        where = f"{self}: redirected to {_shown(url)}" if previous else str(self)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise DownloadError(f"{where}: {parts.scheme or 'no'} scheme is not fetched from; wanted an https URL")
        if parts.scheme == "https":
            return
        if previous and urlsplit(previous).scheme.lower() == "https":
            raise DownloadError(f"{where}: from https to plain http is not followed; name an https URL or a mirror")
        named = self.mirrored and parts.netloc == urlsplit(self.actual).netloc
        if not named and parts.hostname not in settings.allowed_hosts:
            raise DownloadError(
                f"{where}: plain http can be tampered with on its way; use https, name a mirror in SEGCORE_MIRRORS, "
                f"or allow the host with SEGCORE_ALLOW_HTTP={parts.hostname}"
            )


def split_url(url: str) -> SplitResult:
    """Return the parts of ``url``; DownloadError if it has none."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # parsed only when asked for
    except ValueError as error:
        raise DownloadError(f"{url!r} is not a URL: {error}") from None
    return parts


def _shown(url: str) -> str:
    """Return ``url`` without user, password and query: what a log may hold."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


class _TransientError(Exception):
    """An attempt failed in a way that another one may mend."""

    def __init__(self, reason: str, response: requests.Response | None = None) -> None:
        super().__init__(reason)
        self.response = response


@dataclass(frozen=True)
class Part:
    """A file on its way: its bytes so far, and from which version of which URL they are."""

    path: Path
    source: Source
    promised: bool
    max_bytes: int

    @property
    def _note(self) -> Path:
        return self.path.with_name(self.path.name + ".source")

    def resume(self) -> tuple[int, str]:
        """Return how many bytes can be kept and the validator that they belong to; (0, "") to start afresh."""
        try:
            size = self.path.stat().st_size
            url, _, validator = self._note.read_text(encoding="utf-8").partition("\n")
        except (OSError, UnicodeDecodeError):
            return 0, ""
        # Without validator only a promised hash can tell afterwards whether both halves belong together.
        return (size, validator) if url == self.source.actual and (validator or self.promised) else (0, "")

    def begin(self, validator: str) -> None:
        """Drop what is here and note what the bytes to come belong to."""
        self.discard()
        self._note.write_text(f"{self.source.actual}\n{validator}", encoding="utf-8")

    def require_room(self, size: int) -> None:
        """Refuse, and drop, a file of more than ``max_bytes``."""
        if size > self.max_bytes:
            self.discard()
            raise DownloadError(
                f"{self.source}: larger than the limit of {self.max_bytes} bytes ({size} or more); nothing was kept"
            )

    def discard(self) -> None:
        """Remove the bytes and the note."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)


class _OneHop(requests.Session):
    """A session that looks at no redirect: requests would read all of its body, however long, even unfollowed."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None

    def location(self, response: requests.Response) -> str | None:
        return super().get_redirect_target(response)


def download(source: Source, part: Part, settings: FetchSettings, report: Callable[[int, int | None], None]) -> bool:
    """Bring all bytes of ``source`` into ``part``; tell whether the last attempt resumed."""
    retry = Retry(total=settings.retries, backoff_factor=settings.backoff, backoff_max=MAX_WAIT_S)
    with _OneHop() as session:
        # Compressed on the way, neither sizes nor ranges nor hashes would be those of the file.
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": "segcore"})
        while True:
            try:
                return _attempt(session, source, part, settings, report)
            except _TransientError as failure:
                if not retry.total:
                    raise DownloadError(
                        f"{source}: {failure}; given up after {settings.retries + 1} attempts, "
                        "try again later: what arrived is kept and resumed where the server can"
                    ) from failure
                retry = retry.increment("GET", source.actual, error=urllib3.exceptions.ProtocolError(str(failure)))
                time.sleep(pause_before_retry(source, retry, failure.response))


def pause_before_retry(source: object, retry: Retry, response: requests.Response | None) -> float:
    """Return the seconds to wait: what the server asks for (``Retry-After``) or urllib3's back-off, if longer.

    Raises:
        DownloadError: the server asks for more than ``MAX_WAIT_S``.
    """
    asked = None
    if response is not None:
        with contextlib.suppress(urllib3.exceptions.InvalidHeader):
            asked = (
                retry.parse_retry_after(response.headers["Retry-After"]) if "Retry-After" in response.headers else None
            )
    if asked is not None and asked > MAX_WAIT_S:
        raise DownloadError(f"{source}: the server asks to wait {asked:.0f} s (Retry-After); try again after that")
    return max(asked or 0.0, retry.get_backoff_time())


def _attempt(
    session: _OneHop,
    source: Source,
    part: Part,
    settings: FetchSettings,
    report: Callable[[int, int | None], None],
) -> bool:
    """Ask once for what is missing of ``part`` and append it; tell whether earlier bytes were kept."""
    offset, validator = part.resume()
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    if offset and validator:
        headers["If-Range"] = validator
    with _open(session, source, headers, settings) as response:
        _check_status(source, part, response)
        resumed = response.status_code == 206
        total = _total_bytes(response)
        if resumed and (not offset or not _continues(response, offset, validator)):
            part.discard()
            raise _TransientError("the server answered with another part of the file than was asked for")
        if not resumed:
            offset = 0
            part.begin(_validator(response))
        if total is not None:
            part.require_room(total)
        with part.path.open("ab") as file:
            report(offset, total)
            for chunk in _chunks(response, settings):
                part.require_room(offset + len(chunk))
                file.write(chunk)
                file.flush()  # so that a killed process leaves all that came
                offset += len(chunk)
                report(offset, total)
    if total is not None and offset != total:
        raise _TransientError(f"the connection ended after {offset} of {total} bytes")
    return resumed


def _check_status(source: Source, part: Part, response: requests.Response) -> None:
    status = response.status_code
    told = f"HTTP {status} {response.reason or ''}".rstrip()
    if status == 416:  # what we hold is longer than the file is now
        part.discard()
        raise _TransientError(told)
    if status in RETRY_STATUS:
        raise _TransientError(told, response)
    if status not in {200, 206}:
        raise DownloadError(f"{source}: {told}; check the URL, or name a mirror in SEGCORE_MIRRORS")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding != "identity":
        raise DownloadError(f"{source}: sent with Content-Encoding {encoding} although identity was asked for")


def _validator(response: requests.Response) -> str:
    """Return what If-Range accepts (RFC 9110, section 13.1.5): a strong ETag, else Last-Modified, else nothing."""
    etag = response.headers.get("ETag", "").strip()
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "").strip()


def _continues(response: requests.Response, offset: int, validator: str) -> bool:
    # Some servers honour Range but not If-Range: their validator then tells of another version.
    same = not validator or _validator(response) in {"", validator}
    return same and response.headers.get("Content-Range", "").startswith(f"bytes {offset}-")


def _total_bytes(response: requests.Response) -> int | None:
    if response.status_code == 206:
        length = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        length = response.headers.get("Content-Length", "")
    return int(length) if length.isascii() and length.isdecimal() else None


def _chunks(response: requests.Response, settings: FetchSettings) -> Iterator[bytes]:
    """Yield the body as it arrives; a cut, silent or dripping connection is transient."""
    since, received = time.monotonic(), 0
    try:
        while chunk := response.raw.read1(CHUNK_BYTES, decode_content=False):
            yield chunk
            received += len(chunk)
            elapsed = time.monotonic() - since
            if elapsed > settings.read_timeout:
                if received < MIN_BYTES_PER_S * elapsed:
                    raise _TransientError(f"only {received} bytes arrived in {elapsed:.1f} s")
                since, received = time.monotonic(), 0
    except urllib3.exceptions.ReadTimeoutError:
        raise _TransientError(f"nothing arrived for {settings.read_timeout:g} s") from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _TransientError(f"the connection broke: {error}") from error


def _open(session: _OneHop, source: Source, headers: dict[str, str], settings: FetchSettings) -> requests.Response:
    """Ask for ``source``, following redirects by hand, because each hop must be one that is allowed."""
    url = source.actual
    for _ in range(MAX_REDIRECTS + 1):
        response = _get(session, source, url, headers, settings)
        target = session.location(response)
        if target is None:
            return response
        response.close()
        try:
            previous, url = url, urljoin(url, target)
        except ValueError as error:
            raise DownloadError(f"{source}: redirected to {target!r}, which is not a URL: {error}") from None
        source.check_hop(url, previous, settings)
    raise DownloadError(f"{source}: more than {MAX_REDIRECTS} redirects, the last to {_shown(url)}")


def _get(
    session: _OneHop, source: Source, url: str, headers: dict[str, str], settings: FetchSettings
) -> requests.Response:
    reason = why_out_of_reach(url, settings.connect_timeout)
    if reason is not None:
        raise OfflineError(f"{source}: {reason}; {OFFLINE_HINT}")
    timeouts = (settings.connect_timeout, settings.read_timeout)
    try:
        return session.get(url, headers=headers, stream=True, allow_redirects=False, timeout=timeouts)
    except requests.exceptions.ProxyError as error:
        raise OfflineError(f"{source}: the proxy gives no way to it: {_cause(error)}; {OFFLINE_HINT}") from error
    except requests.exceptions.SSLError as error:
        raise DownloadError(
            f"{source}: no trusted https connection: {_cause(error)}; behind an inspecting proxy, name its "
            "certificate in REQUESTS_CA_BUNDLE"
        ) from error
    except requests.exceptions.Timeout:
        raise _TransientError(f"no answer within {settings.read_timeout:g} s") from None
    except requests.exceptions.ConnectionError as error:
        raise _TransientError(f"the connection broke: {_cause(error)}") from error
    except requests.exceptions.RequestException as error:
        raise DownloadError(f"{source}: {error}") from error


def _cause(error: requests.RequestException) -> object:
    """Return the innermost reason that requests and urllib3 have wrapped."""
    inner = error.args[0] if error.args else error
    return getattr(inner, "reason", inner)
