"""Downloads from a real server that misbehaves on purpose."""

from __future__ import annotations

import dataclasses
from email.utils import formatdate
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util.retry import Retry

from segcore.core.errors import DownloadError, IntegrityError
from segcore.inputs.download import FetchSettings, cache_name, download_file
from segcore.inputs.network import pause_before_retry
from segcore.inputs.source import Source
from tests.support.examples import examples
from tests.support.http_server import BODY, HALF, SHA, MisbehavingServer, Reply

# --- servers that fail and recover

RECOVERING = {
    "500 twice": [Reply(status=500), Reply(status=503), Reply(BODY)],
    "429": [Reply(status=429, headers={"Retry-After": "0"}), Reply(BODY)],
    "429 nonsense": [Reply(status=429, headers={"Retry-After": "soon"}), Reply(BODY)],
    "hangs": [Reply(BODY, hang_at=HALF), Reply(BODY)],
    "hangs before the head": [Reply(BODY, hang_at=0), Reply(BODY)],
    "drips": [Reply(BODY, drip=True), Reply(BODY)],
    "cut": [Reply(BODY, cut_at=HALF), Reply(BODY)],
    "cut, no ranges": [Reply(BODY, cut_at=HALF, ranges=False), Reply(BODY, ranges=False)],
    "cut at once": [Reply(BODY, cut_at=0), Reply(BODY)],
    "cut, then 416": [Reply(BODY, cut_at=HALF, etag='"a"'), Reply(status=416), Reply(BODY)],
    "cut thrice": [Reply(BODY, cut_at=n, etag='"a"') for n in (10, HALF, HALF)] + [Reply(BODY, etag='"a"')],
    "other version, If-Range unheeded": [
        Reply(b"x" * len(BODY), cut_at=HALF, etag='"a"'),
        Reply(BODY, etag='"b"', heeds_if_range=False),
        Reply(BODY, etag='"b"'),
    ],
    "other version": [Reply(b"x" * len(BODY), cut_at=HALF, etag='"a"'), Reply(BODY, etag='"b"')],
    "another range than asked": [
        Reply(BODY, cut_at=HALF, etag='"a"'),
        Reply(BODY, status=206, headers={"Content-Range": f"bytes 0-{len(BODY) - 1}/{len(BODY)}"}),
        Reply(BODY),
    ],
}


@pytest.mark.parametrize("digits", [SHA, None])
@pytest.mark.parametrize("replies", RECOVERING.values(), ids=RECOVERING.keys())
def test_a_failing_server_is_asked_again(
    server: MisbehavingServer, rules: FetchSettings, replies: list[Reply], digits: str | None
) -> None:
    stalls = any(reply.hang_at is not None or reply.drip for reply in replies)
    rules = dataclasses.replace(rules, read_timeout=0.5 if stalls else 60)  # on a busy machine, an answer takes a while
    url = server.reply("/f", *replies)
    assert download_file(url, sha256=digits, settings=rules).read_bytes() == BODY
    assert len(server.asked) == len(replies)
    assert [path.name for path in rules.cache_dir.glob("*-*")] == [cache_name(url)]


def test_a_broken_download_is_resumed(server: MisbehavingServer, rules: FetchSettings) -> None:
    url = server.reply("/f", Reply(BODY, cut_at=HALF, etag='"v1"'), Reply(BODY, etag='"v1"'))
    seen: list[tuple[str, int, int | None]] = []
    path = download_file(url, settings=rules, progress=lambda *state: seen.append(state))
    first, second = server.headers_of("/f")
    assert "Range" not in first
    assert (second["Range"], second["If-Range"]) == (f"bytes={HALF}-", '"v1"')
    assert first["Accept-Encoding"] == "identity"
    assert path.read_bytes() == BODY
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    assert seen[-1] == (path.name, len(BODY), len(BODY))


@pytest.mark.parametrize(
    ("head", "if_range"),
    [
        ({"ETag": 'W/"weak"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, "Wed, 21 Oct 2015 07:28:00 GMT"),
        ({"ETag": 'W/"weak"'}, None),
        ({}, None),
    ],
)
def test_a_download_is_resumed_without_a_strong_etag(
    server: MisbehavingServer, rules: FetchSettings, head: dict[str, str], if_range: str | None
) -> None:
    url = server.reply("/f", Reply(BODY, headers=head, cut_at=HALF), Reply(BODY, headers=head))
    assert download_file(url, sha256=SHA, settings=rules).read_bytes() == BODY
    assert server.headers_of("/f")[1].get("If-Range") == if_range
    assert server.headers_of("/f")[1]["Range"] == f"bytes={HALF}-"


def test_a_download_without_hash_and_validator_is_not_resumed(server: MisbehavingServer, rules: FetchSettings) -> None:
    url = server.reply("/f", Reply(b"x" * len(BODY), cut_at=HALF), Reply(BODY))
    assert download_file(url, settings=rules).read_bytes() == BODY
    assert "Range" not in server.headers_of("/f")[1]


def test_parts_that_do_not_match_the_hash_are_downloaded_again(server: MisbehavingServer, rules: FetchSettings) -> None:
    url = server.reply("/f", Reply(b"x" * len(BODY), cut_at=HALF), Reply(BODY))  # no validator
    assert download_file(url, sha256=SHA, settings=rules).read_bytes() == BODY
    assert [headers.get("Range") for headers in server.headers_of("/f")] == [None, f"bytes={HALF}-", None]


def test_a_part_of_another_url_is_not_resumed(server: MisbehavingServer, rules: FetchSettings, tmp_path: Path) -> None:
    rules = dataclasses.replace(rules, retries=0)
    with pytest.raises(DownloadError, match="given up after 1 attempts"):
        download_file(server.reply("/old", Reply(b"x" * 99, cut_at=9)), tmp_path / "f", sha256=SHA, settings=rules)
    assert (tmp_path / "f.part").read_bytes() == b"x" * 9
    assert download_file(server.reply("/new", Reply(BODY)), tmp_path / "f", sha256=SHA, settings=rules)
    assert "Range" not in server.headers_of("/new")[0]


@examples(20)
@given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=3), ranges=st.booleans())
def test_any_sequence_of_cuts_gives_the_same_bytes(
    server: MisbehavingServer, rules: FetchSettings, body: bytes, cuts: list[int], ranges: bool
) -> None:
    replies = [Reply(body, cut_at=min(cut, len(body)), etag='"e"', ranges=ranges) for cut in cuts]
    url = server.reply("/f", *replies, Reply(body, etag='"e"', ranges=ranges))
    path = download_file(url, settings=rules)
    assert path.read_bytes() == body
    path.unlink()


# --- servers that are slow, or never come to an end

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
NEVER_ENDING: dict[str, tuple[tuple[bytes, bytes, float], str]] = {
    "nothing": ((b"", b"", 0.01), "headers"),
    "status line dripped": ((b"HTTP/1.1 200 O", b"K", 0.01), "headers"),
    "header dripped": ((HEAD + b"X: ", b"x", 0.01), "headers"),
    "headers dripped": ((HEAD, b"X: x\r\n", 0.01), "headers"),
    "100 Continue, slowly": ((b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01), "headers"),
    "100 Continue, fast": ((b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 99, 0.0), "headers"),
    "header of a redirect dripped": ((b"HTTP/1.1 302 Found\r\nLocation: /", b"x", 0.01), "headers"),
    "body silent": ((HEAD + b"Content-Length: 999\r\n\r\n", b"", 0.01), "only 0 bytes"),
    "body dripped": ((HEAD + b"Content-Length: 999999\r\n\r\n", b"x", 0.01), "bytes arrived"),
    "body dripped until the end": ((HEAD + b"\r\n", b"x", 0.01), "bytes arrived"),
    "chunk size dripped": ((CHUNKED, b"0", 0.01), "only 0 bytes"),
    "chunk extension dripped": ((CHUNKED + b"9;", b"x", 0.01), "only 0 bytes"),
    "chunks of one byte": ((CHUNKED, b"1\r\nx\r\n", 0.01), "bytes arrived"),
    "chunks of one byte in long extensions": ((CHUNKED, b"1;" + b"x" * 9999 + b"\r\nx\r\n", 0.001), "bytes arrived"),
    "trailer dripped": ((CHUNKED + b"5\r\nwhole\r\n0\r\n", b"x", 0.01), "only 5 bytes"),
    "trailers, slowly": ((CHUNKED + b"5\r\nwhole\r\n0\r\n", b"X: x\r\n", 0.01), "only 5 bytes"),
    "trailers, fast": ((CHUNKED + b"5\r\nwhole\r\n0\r\n", b"X: x\r\n" * 99, 0.0), "only 5 bytes"),
}


@pytest.mark.parametrize(("raw", "message"), NEVER_ENDING.values(), ids=NEVER_ENDING.keys())
def test_a_server_that_never_comes_to_an_end_is_given_up(
    server: MisbehavingServer, rules: FetchSettings, raw: tuple[bytes, bytes, float], message: str
) -> None:
    impatient = dataclasses.replace(rules, read_timeout=0.1, min_bytes_per_s=5000, retries=0)
    with pytest.raises(DownloadError, match=f"{message}.* within 0.1 s.*given up after 1 attempts"):
        download_file(server.reply("/f", Reply(raw=raw)), settings=impatient)
    rules = dataclasses.replace(rules, read_timeout=0.2, min_bytes_per_s=5000)
    assert download_file(server.reply("/f", Reply(raw=raw), Reply(BODY)), settings=rules).read_bytes() == BODY


def test_a_proxy_that_never_comes_to_an_end_is_given_up(
    server: MisbehavingServer, rules: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("https_proxy", server.url(""))
    rules = dataclasses.replace(rules, read_timeout=0.2, retries=0)
    server.reply("nowhere.invalid:443", Reply(raw=(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n", 0.01)))
    with pytest.raises(DownloadError, match=r"within 0\.2 s"):
        download_file("https://nowhere.invalid/f", settings=rules)


def test_a_body_that_is_slow_but_fast_enough_arrives(server: MisbehavingServer, rules: FetchSettings) -> None:
    rules = dataclasses.replace(rules, read_timeout=1.5, min_bytes_per_s=2)
    body = BODY[:160]  # dripped, it takes longer than the time-out
    assert download_file(server.reply("/f", Reply(body, drip=True)), settings=rules).read_bytes() == body
    assert len(server.asked) == 1


# --- servers that are refused


def redirect(to: str) -> Reply:
    return Reply(status=302, headers={"Location": to})


REFUSED: dict[str, tuple[list[Reply], int, type[DownloadError], str]] = {
    "404 is not retried": ([Reply(status=404)], 1, DownloadError, "HTTP 404 Not Found; check the URL"),
    "403 is not retried": ([Reply(status=403)], 1, DownloadError, "HTTP 403 Forbidden"),
    "304 unasked": ([Reply(status=304)], 1, DownloadError, "HTTP 304"),
    "500 for ever": ([Reply(status=500)], 4, DownloadError, "HTTP 500 .*; given up after 4 attempts"),
    "cut for ever": ([Reply(BODY, cut_at=5, ranges=False)], 4, DownloadError, "connection broke.*given up"),
    "asks to wait an hour": (
        [Reply(status=429, headers={"Retry-After": "3600"})],
        1,
        DownloadError,
        "asks to wait 3600 s",
    ),
    "wrong bytes": ([Reply(BODY[::-1])], 1, IntegrityError, f"have sha256 [0-9a-f]{{64}}, expected was {SHA}"),
    "too large, as declared": ([Reply(BODY * 4)], 1, DownloadError, f"limit of {2 * len(BODY)} bytes"),
    "too large, endless": ([Reply(BODY, endless=True)], 1, DownloadError, f"limit of {2 * len(BODY)} bytes"),
    "compressed": ([Reply(BODY, headers={"Content-Encoding": "gzip"})], 1, DownloadError, "Content-Encoding gzip"),
    "redirect to file": ([redirect("file:///etc/hostname")], 1, DownloadError, "file scheme is not fetched from"),
    "redirect to ftp": ([redirect("ftp://127.0.0.1/f")], 1, DownloadError, "ftp scheme is not fetched from"),
    "redirect to http elsewhere": ([redirect("http://localhost/f")], 1, DownloadError, "plain http can be tampered"),
    "redirect to file with an endless body": (
        [Reply(BODY, status=302, headers={"Location": "file:///etc/hostname"}, endless=True)],
        1,
        DownloadError,
        "file scheme is not fetched from",
    ),
    "redirect loop": ([redirect("/f")], 11, DownloadError, "more than 10 redirects"),
    "redirect nowhere": ([redirect("http://[/")], 1, DownloadError, "is not a URL"),
}


@pytest.mark.parametrize(("replies", "times", "kind", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_answer_is_refused(
    server: MisbehavingServer,
    rules: FetchSettings,
    replies: list[Reply],
    times: int,
    kind: type[DownloadError],
    message: str,
) -> None:
    url, rules = server.reply("/f", *replies), dataclasses.replace(rules, max_bytes=2 * len(BODY))
    with pytest.raises(kind, match=message) as caught:
        download_file(url, sha256=SHA, settings=rules)
    assert caught.value.where == url
    assert str(caught.value) == f"{url}: {caught.value.message}"
    assert "\n" not in str(caught.value)
    assert len(server.asked) == times
    assert not (rules.cache_dir / cache_name(url)).exists()


def test_redirects_are_followed_and_the_first_url_names_the_file(
    server: MisbehavingServer, rules: FetchSettings
) -> None:
    server.reply("/blob", Reply(BODY))
    url = server.reply("/photo.jpg", redirect("/next"))
    server.reply("/next", redirect(server.url("/blob?token=secret")))
    server.reply("/blob?token=secret", Reply(BODY))
    assert download_file(url, sha256=SHA, settings=rules).name == cache_name(url)


@pytest.mark.parametrize(
    ("url", "previous", "message"),
    [
        ("http://example.org/f", None, "plain http can be tampered with.*SEGCORE_ALLOW_HTTP=example.org"),
        ("http://127.0.0.1/f", "https://example.org/f", "from https to plain http is not followed"),
        ("file:///etc/passwd", "https://example.org/f", "file scheme is not fetched"),
        ("https:///f", None, "wanted an https URL"),
        ("dog.jpg", None, "no scheme"),
        ("https://example.org:port/", None, "is not a URL"),
    ],
)
def test_unsafe_urls_are_refused(rules: FetchSettings, url: str, previous: str | None, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        Source(previous or url, previous or url).check_allowed(url, previous, rules)


@pytest.mark.parametrize(
    ("url", "previous"),
    [
        ("https://example.org/f", None),
        ("HTTPS://EXAMPLE.org/f", "http://127.0.0.1/f"),
        ("http://127.0.0.1:8080/f", None),
        ("http://127.0.0.1/f", "http://127.0.0.1/g"),
    ],
)
def test_safe_urls_are_accepted(rules: FetchSettings, url: str, previous: str | None) -> None:
    Source(previous or url, previous or url).check_allowed(url, previous, rules)


def test_messages_contain_no_secrets(server: MisbehavingServer, rules: FetchSettings) -> None:
    with pytest.raises(DownloadError) as caught:
        download_file(f"http://user:hunter2@{server.address}/f?token=hunter2", settings=rules)
    assert "hunter2" not in str(caught.value)


def test_a_mirror_may_not_redirect_to_other_http_hosts(server: MisbehavingServer, tmp_path: Path) -> None:
    server.reply("/same", redirect("/f"))
    server.reply("/f", Reply(BODY))
    server.reply("/other", redirect("http://localhost:1/f"))
    rules = FetchSettings(tmp_path, mirrors=(("https://example.org", server.url("")),), backoff=0.0)
    assert download_file("https://example.org/same", settings=rules).read_bytes() == BODY
    with pytest.raises(DownloadError, match="redirected to http://localhost:1/f: plain http"):
        download_file("https://example.org/other", settings=rules)


def test_https_needs_a_trusted_certificate(server: MisbehavingServer, rules: FetchSettings) -> None:
    with pytest.raises(DownloadError, match=r"no trusted https connection: .*REQUESTS_CA_BUNDLE"):
        download_file(f"https://{server.address}/f", settings=rules)


# --- waiting


@pytest.mark.parametrize(
    ("headers", "failures", "seconds"),
    [
        ({}, 1, 0.0),
        ({}, 2, 1.0),
        ({}, 4, 4.0),
        ({"Retry-After": "7"}, 1, 7.0),
        ({"Retry-After": "1"}, 4, 4.0),
        ({"Retry-After": formatdate(0, usegmt=True)}, 1, 0.0),
        ({"Retry-After": "soon"}, 2, 1.0),
    ],
)
def test_the_longer_of_retry_after_and_backoff_counts(headers: dict[str, str], failures: int, seconds: float) -> None:
    retry = Retry(total=9, backoff_factor=0.5)
    for _ in range(failures):
        retry = retry.increment("GET", "/", error=OSError())
    response = requests.Response()
    response.headers.update(headers)
    assert pause_before_retry(retry, response) == seconds
    assert FetchSettings(Path()).backoff == 0.5
