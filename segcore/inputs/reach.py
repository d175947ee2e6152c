"""Whether a host answers at all: a missing network is noticed at first contact, within seconds, and once.

requests alone would try every address of a host for a whole time-out each, after a name look-up that has none.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from urllib.parse import urlsplit

import requests

_FOUND: dict[tuple[str, int], str | None] = {}
"""Per host and port contacted in this process: why it was out of reach at first contact, or None."""


def why_out_of_reach(url: str, patience: float) -> str | None:
    """Return why the host of ``url``, or the proxy towards it, gave no answer in ``patience`` seconds; None if it did.

    The first finding about a host holds for the whole process. Where one host was out of reach, it is most likely the
    network: others then get a third of the patience.
    """
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    try:
        contact = urlsplit(proxy if proxy and "://" in proxy else f"http://{proxy}" if proxy else url)
        host, port = contact.hostname or "", contact.port or {"https": 443, "http": 80}.get(contact.scheme, 1080)
    except ValueError as error:
        return f"the environment names a proxy that is not a URL: {error}"  # `url` itself was parsed before
    if (host, port) not in _FOUND:
        _FOUND[host, port] = _probe(host, port, patience / (3 if any(_FOUND.values()) else 1))
    reason = _FOUND[host, port]
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

    # Daemons: a name look-up cannot be interrupted, and must not hold up the end of the process.
    for family in (socket.AF_INET, socket.AF_INET6):
        threading.Thread(target=connect, args=(family,), daemon=True).start()
    deadline = time.monotonic() + timeout
    errors: list[OSError] = []
    while len(errors) < 2:
        try:
            error = outcomes.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            error = TimeoutError()
        if error is None:
            return None
        if isinstance(error, TimeoutError):
            return f"no answer within {timeout:.2g} s"
        errors.append(error)
    # A host with addresses of one family only fails to resolve in the other: that is not the reason.
    return str(min(errors, key=lambda error: isinstance(error, socket.gaierror)))
