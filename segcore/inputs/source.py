"""What may be downloaded from where: settings, mirrors and the rules for redirects."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import platformdirs

from segcore.core.errors import DownloadError, UsageError

OFFLINE_HINT = (
    "run `segcore fetch --all` on a machine with a network, name a mirror in SEGCORE_MIRRORS, "
    "or set SEGCORE_CACHE to a filled cache"
)
NO_CACHE = Path(os.devnull, "no home directory: set SEGCORE_CACHE")
"""Cache of a user without a home directory: an attempt to write to it names the remedy."""
_ON, _OFF = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}


@dataclass(frozen=True)
class FetchSettings:
    """Where downloads are stored and what is allowed; sizes in bytes, times in seconds."""

    cache_dir: Path
    offline: bool = False
    mirrors: tuple[tuple[str, str], ...] = ()
    """Pairs of URL prefix and replacement; the longest matching prefix counts. A replacement may be http or file."""
    allowed_hosts: frozenset[str] = frozenset()
    """Hosts that may be contacted over plain http."""
    max_bytes: int = 4 << 30
    connect_timeout: float = 3.0
    read_timeout: float = 20.0
    """Seconds for the headers of a response; then for each ``read_timeout * min_bytes_per_s`` bytes of its body."""
    min_bytes_per_s: int = 512
    """Least speed of a body; a slower connection counts as stalled."""
    retries: int = 4
    backoff: float = 0.5
    """Factor of urllib3's exponential pause between attempts."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> FetchSettings:
        """Read SEGCORE_CACHE, SEGCORE_OFFLINE, SEGCORE_MIRRORS and SEGCORE_ALLOW_HTTP; UsageError if one is invalid."""
        cache, offline = env.get("SEGCORE_CACHE", "").strip(), env.get("SEGCORE_OFFLINE", "").strip().lower()
        if offline not in _ON | _OFF:
            raise UsageError(f"SEGCORE_OFFLINE={offline!r} is neither on nor off: use 1 or 0")
        return cls(
            cache_dir=_cache_dir(cache),
            offline=offline in _ON,
            mirrors=tuple(map(_parse_mirror, env.get("SEGCORE_MIRRORS", "").split())),
            allowed_hosts=frozenset(env.get("SEGCORE_ALLOW_HTTP", "").lower().replace(",", " ").split()),
        )


def _cache_dir(name: str) -> Path:
    try:
        return Path(name).expanduser().absolute() if name else platformdirs.user_cache_path("segcore")
    except RuntimeError as error:  # ~USER is unknown; or neither HOME nor the password file names a home directory
        if name:
            raise UsageError(f"SEGCORE_CACHE={name!r}: {error} Name a directory by its whole path") from None
        return NO_CACHE


def _parse_mirror(word: str) -> tuple[str, str]:
    match = re.fullmatch(r"(https?://.+?)=((?:https?|file)://.+)", word)
    if match is None:
        raise UsageError(
            f"SEGCORE_MIRRORS: {word!r} is not PREFIX=REPLACEMENT, for example "
            "https://example.org/photos/=file:///srv/photos/ (separate several by spaces)"
        )
    return match[1], match[2]


@dataclass(frozen=True)
class Source:
    """The URL that was requested and, after the mirrors, the one that is downloaded."""

    url: str
    actual: str

    @classmethod
    def of(cls, url: str, settings: FetchSettings) -> Source:
        """Apply the mirrors to ``url``."""
        matching = [pair for pair in settings.mirrors if url.startswith(pair[0])]
        prefix, replacement = max(matching, key=lambda pair: len(pair[0]), default=("", ""))
        return cls(url, replacement + url.removeprefix(prefix))

    def __str__(self) -> str:
        return without_secrets(self.url) + (f" (mirror {without_secrets(self.actual)})" if self.is_mirrored else "")

    @property
    def is_mirrored(self) -> bool:
        """Whether a mirror replaces the URL."""
        return self.url != self.actual

    @property
    def is_remote(self) -> bool:
        """Whether the download needs the network."""
        return urlsplit(self.actual).scheme.lower() != "file"

    def check_allowed(self, url: str, previous: str | None, settings: FetchSettings) -> None:
        """Refuse a URL, or one that ``previous`` redirects to, unless it is https or http to an allowed host."""
        parts = split_url(url)
        hop = f"redirected to {without_secrets(url)}: " if previous else ""
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise DownloadError(f"{hop}{parts.scheme or 'no'} scheme is not fetched from; wanted an https URL")
        if parts.scheme == "https":
            return
        if previous and urlsplit(previous).scheme.lower() == "https":
            raise DownloadError(f"{hop}from https to plain http is not followed; name an https URL or a mirror")
        is_mirror = self.is_mirrored and parts.netloc == urlsplit(self.actual).netloc
        if not is_mirror and parts.hostname not in settings.allowed_hosts:
            raise DownloadError(
                f"{hop}plain http can be tampered with on its way; use https, name a mirror in SEGCORE_MIRRORS, "
                f"or allow the host with SEGCORE_ALLOW_HTTP={parts.hostname}"
            )


def split_url(url: str) -> SplitResult:
    """Return the parts of ``url``; DownloadError if it is no URL."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # is parsed on access
    except ValueError as error:
        raise DownloadError(f"{url!r} is not a URL: {error}") from None
    return parts


def without_secrets(url: str) -> str:
    """Return ``url`` without user, password and query, for logs."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
