"""A missing network is noticed at first contact, and remembered for a while."""

from __future__ import annotations

import dataclasses
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from segcore.core.errors import OfflineError
from segcore.inputs.download import FetchSettings, download_file
from segcore.inputs.reach import EXPIRY_S, why_out_of_reach
from tests.support.http_server import BODY, MisbehavingServer, Reply


def test_a_host_out_of_reach_is_contacted_again_after_a_while(
    rules: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for _ in range(2):
        with pytest.raises(OfflineError, match=r"127.0.0.1 is out of reach: .*refused; run `segcore fetch --all`"):
            download_file(f"http://127.0.0.1:{port}/f", settings=rules)
    with MisbehavingServer(port) as back:
        with pytest.raises(OfflineError, match="refused"):
            download_file(back.reply("/f", Reply(BODY)), settings=rules)
        assert not back.asked
        later = time.monotonic() + EXPIRY_S
        monkeypatch.setattr("segcore.inputs.reach.time.monotonic", lambda: later)
        assert download_file(back.url("/f"), settings=rules).read_bytes() == BODY


def test_a_host_that_drops_packets_times_out(rules: FetchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # nobody accepts: the queue is full after these two, and further packets are dropped
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/f"
        with pytest.raises(OfflineError, match=r"no answer within 0\.\d+ s"):
            download_file(url, settings=dataclasses.replace(rules, connect_timeout=0.3))


def test_an_unknown_host_is_out_of_reach(rules: FetchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    # 'invalid' never resolves (RFC 6761); the second name cannot even be looked up.
    for host in ("nowhere.invalid", "a" * 64 + ".invalid"):
        with pytest.raises(OfflineError, match=r"is out of reach"):
            download_file(f"https://{host}/f", settings=rules)


def test_with_a_proxy_the_proxy_must_be_in_reach(
    server: MisbehavingServer, rules: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("https_proxy", server.url(""))
    with pytest.raises(OfflineError, match="the proxy does not connect to it"):  # it knows no CONNECT
        download_file("https://nowhere.invalid/f", settings=rules)
    monkeypatch.setenv("https_proxy", "proxy.lan:port")
    with pytest.raises(OfflineError, match="names a proxy that is not a URL"):
        download_file("https://nowhere.invalid/f", settings=rules)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{closed.getsockname()[1]}")
    with pytest.raises(OfflineError, match=r"proxy 127.0.0.1 is out of reach"):
        download_file("https://nowhere.invalid/f", settings=rules)


def test_threads_ask_while_findings_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every thread finds all findings expired, and removes them, at every look."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("segcore.inputs.reach.EXPIRY_S", 0.0)
    monkeypatch.setattr("segcore.inputs.reach._probe", lambda host, *_: "no" if host == "b" else None)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(why_out_of_reach, ["https://a/f", "https://b/f"] * 400, [5.0] * 800))
    finally:
        sys.setswitchinterval(before)
    assert found == [None, "b is out of reach: no"] * 400
