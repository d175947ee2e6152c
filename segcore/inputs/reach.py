"""Find out within seconds whether a host answers at all, and remember it for a while.

requests alone tries every address of a host for a whole time-out each, after a name look-up without a time-out.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from urllib.parse import urlsplit

import requests

EXPIRY_S = 60.0
"""Seconds after which a host is contacted again."""
_lock = threading.Lock()
_FOUND: dict[tuple[str, int], tuple[float, str | None]] = {}
"""By host and port: when the finding expires, and why the host was out of reach, None if it answered."""


def why_out_of_reach(url: str, patience: float) -> str | None:
    """Return why the host of ``url``, or the proxy towards it, did not answer within ``patience`` seconds, or None.

    A finding is valid for `EXPIRY_S`. While one host is out of reach, probably the network is: the others get a third
    of the patience.
    """
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    address = proxy or url
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        host, port = parts.hostname or "", parts.port or {"https": 443, "http": 80}.get(parts.scheme, 1080)
    except ValueError as error:  # `url` was parsed before
        return f"the environment names a proxy that is not a URL: {error}"
    with _lock:  # not while a host is contacted: threads that ask for another one need not wait
        for expired in [key for key, (expiry, _) in _FOUND.items() if expiry <= time.monotonic()]:
            del _FOUND[expired]
        found = _FOUND.get((host, port))
        others_failed = any(reason for _, reason in _FOUND.values())
    if found is None:
        reason = _probe(host, port, patience / (3 if others_failed else 1))
        found = time.monotonic() + EXPIRY_S, reason
        with _lock:
            _FOUND[host, port] = found
    reason = found[1]
    return reason and f"{'proxy ' if proxy else ''}{host} is out of reach: {reason}"


def _probe(host: str, port: int, timeout: float) -> str | None:
    """Connect over IPv4 and IPv6 at once; return why neither answered within ``timeout`` seconds, or None."""
    outcomes: queue.SimpleQueue[OSError | None] = queue.SimpleQueue()

    def connect(family: socket.AddressFamily) -> None:
        try:
            kind, address = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][1::3]
            with socket.socket(family, kind) as probe:
                probe.settimeout(timeout)
                probe.connect(address)
            outcomes.put(None)
        except (OSError, UnicodeError) as error:
            outcomes.put(error if isinstance(error, OSError) else socket.gaierror(str(error)))

    # Daemon threads: a name look-up cannot be interrupted and must not delay the end of the process.
    for family in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=connect, args=(family,), daemon=True).start()
    deadline = time.monotonic() + timeout
    reason = ""
    for _ in range(2):
        try:
            error = outcomes.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            error = TimeoutError()
        if error is None:
            return None
        if isinstance(error, TimeoutError):
            return f"no answer within {timeout:.2g} s"
        # A host with addresses of one family fails to resolve in the other, which is not the reason.
        if not reason or not isinstance(error, socket.gaierror):
            reason = str(error)
    return reason
