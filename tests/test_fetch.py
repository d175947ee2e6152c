"""Downloads against a real server that misbehaves on purpose."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from urllib3.util.retry import Retry

from segcore.errors import DownloadError, IntegrityError, OfflineError, UsageError
from segcore.fetch import (
    FetchSettings,
    cache_name,
    cached_path,
    download_file,
    download_progress,
    sha256_file,
    verify,
)
from segcore.network import Source, pause_before_retry
from tests.http_server import MisbehavingServer, Reply

BODY = bytes(range(256)) * 1200  # larger than one chunk
HALF = len(BODY) // 2
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with MisbehavingServer() as server:
        yield server


@pytest.fixture
def rules(tmp_path: Path) -> FetchSettings:
    return FetchSettings(tmp_path / "cache", allowed_hosts=frozenset({"127.0.0.1"}), backoff=0.0, retries=3)


def in_cache(rules: FetchSettings) -> list[str]:
    """What lies in the cache beside the locks: the file alone after a success, nothing after a refusal."""
    return sorted(path.name for path in rules.cache_dir.glob("*") if path.name != "locks")


# --- what is fetched, and what is not


def test_fetches_once_under_a_stable_readable_name(server: MisbehavingServer, rules: FetchSettings) -> None:
    url = server.reply("/photos/dog.jpg", Reply(BODY))
    assert cached_path(url, SHA, rules) is None
    path = download_file(url, sha256=SHA, settings=rules)
    assert path.read_bytes() == BODY
    assert path.parent == rules.cache_dir
    assert path.name.endswith("-dog.jpg")
    assert download_file(url, sha256=SHA, settings=rules) == cached_path(url, SHA, rules) == path
    assert download_file(url, settings=dataclasses.replace(rules, offline=True)) == path
    assert len(server.asked) == 1
    assert in_cache(rules) == [path.name]


@pytest.mark.parametrize("promise", [SHA, SHA.upper(), SHA[:8], SHA[:20]])
def test_accepts_a_hash_or_its_first_digits(server: MisbehavingServer, rules: FetchSettings, promise: str) -> None:
    assert download_file(server.reply("/f", Reply(BODY)), sha256=promise, settings=rules).read_bytes() == BODY


def test_mends_a_damaged_file(server: MisbehavingServer, rules: FetchSettings, tmp_path: Path) -> None:
    url, target = server.reply("/w.pth", Reply(BODY)), tmp_path / "deep" / "w.pth"
    target.parent.mkdir()
    target.write_bytes(BODY[:-1] + b"!")
    assert download_file(url, target, sha256=SHA, settings=rules) == target
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]


def test_takes_what_is_there_where_nothing_is_promised(
    server: MisbehavingServer, rules: FetchSettings, tmp_path: Path
) -> None:
    target = tmp_path / "mine.bin"
    target.write_bytes(b"mine")
    assert download_file(server.reply("/f", Reply(BODY)), target, settings=rules).read_bytes() == b"mine"
    assert not server.asked


@pytest.mark.parametrize("damaged", [False, True])
def test_offline_asks_nothing_and_says_how_to_mend(
    server: MisbehavingServer, rules: FetchSettings, damaged: bool
) -> None:
    url, rules = server.reply("/f", Reply(BODY)), dataclasses.replace(rules, offline=True)
    if damaged:
        rules.cache_dir.mkdir()
        (rules.cache_dir / cache_name(url)).write_bytes(b"damaged")
    state = "other bytes than promised" if damaged else "is not there"
    with pytest.raises(OfflineError, match=rf"{state}.*segcore fetch --all.*SEGCORE_MIRRORS.*SEGCORE_CACHE"):
        download_file(url, sha256=SHA, settings=rules)
    assert not server.asked


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


@pytest.mark.parametrize("promise", [SHA, None])
@pytest.mark.parametrize("replies", RECOVERING.values(), ids=RECOVERING.keys())
def test_recovers(server: MisbehavingServer, rules: FetchSettings, replies: list[Reply], promise: str | None) -> None:
    url, rules = server.reply("/f", *replies), dataclasses.replace(rules, read_timeout=0.2)
    assert download_file(url, sha256=promise, settings=rules).read_bytes() == BODY
    assert len(server.asked) == len(replies)
    assert len(in_cache(rules)) == 1


def test_resumes_with_range_and_if_range(server: MisbehavingServer, rules: FetchSettings) -> None:
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
def test_resumes_without_a_strong_etag(
    server: MisbehavingServer, rules: FetchSettings, head: dict[str, str], if_range: str | None
) -> None:
    url = server.reply("/f", Reply(BODY, headers=head, cut_at=HALF), Reply(BODY, headers=head))
    assert download_file(url, sha256=SHA, settings=rules).read_bytes() == BODY
    assert server.headers_of("/f")[1].get("If-Range") == if_range
    assert server.headers_of("/f")[1]["Range"] == f"bytes={HALF}-"


def test_starts_afresh_where_two_halves_could_not_be_told_apart(
    server: MisbehavingServer, rules: FetchSettings
) -> None:
    url = server.reply("/f", Reply(b"x" * len(BODY), cut_at=HALF), Reply(BODY))
    assert download_file(url, settings=rules).read_bytes() == BODY
    assert "Range" not in server.headers_of("/f")[1]


def test_two_halves_that_do_not_belong_together_are_fetched_anew(
    server: MisbehavingServer, rules: FetchSettings
) -> None:
    url = server.reply("/f", Reply(b"x" * len(BODY), cut_at=HALF), Reply(BODY))  # no validator to tell
    assert download_file(url, sha256=SHA, settings=rules).read_bytes() == BODY
    assert [headers.get("Range") for headers in server.headers_of("/f")] == [None, f"bytes={HALF}-", None]


def test_a_part_of_another_url_is_not_resumed(server: MisbehavingServer, rules: FetchSettings, tmp_path: Path) -> None:
    rules = dataclasses.replace(rules, retries=0)
    with pytest.raises(DownloadError, match="given up after 1 attempts"):
        download_file(server.reply("/old", Reply(b"x" * 99, cut_at=9)), tmp_path / "f", sha256=SHA, settings=rules)
    assert (tmp_path / "f.part").read_bytes() == b"x" * 9
    assert download_file(server.reply("/new", Reply(BODY)), tmp_path / "f", sha256=SHA, settings=rules)
    assert "Range" not in server.headers_of("/new")[0]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=3), ranges=st.booleans())
def test_any_sequence_of_cuts_gives_the_same_bytes(
    server: MisbehavingServer, rules: FetchSettings, body: bytes, cuts: list[int], ranges: bool
) -> None:
    replies = [Reply(body, cut_at=min(cut, len(body)), etag='"e"', ranges=ranges) for cut in cuts]
    url = server.reply("/f", *replies, Reply(body, etag='"e"', ranges=ranges))
    path = download_file(url, settings=rules)
    assert path.read_bytes() == body
    path.unlink()


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
        [Reply(status=429, headers={"Retry-After": "3600"})], 1, DownloadError, "asks to wait 3600 s",
    ),
    "wrong bytes": ([Reply(BODY[::-1])], 1, IntegrityError, f"have sha256 [0-9a-f]{{64}}, promised is {SHA}"),
    "too large, as declared": ([Reply(BODY * 4)], 1, DownloadError, f"limit of {2 * len(BODY)} bytes"),
    "too large, endless": ([Reply(BODY, endless=True)], 1, DownloadError, f"limit of {2 * len(BODY)} bytes"),
    "compressed": ([Reply(BODY, headers={"Content-Encoding": "gzip"})], 1, DownloadError, "Content-Encoding gzip"),
    "redirect to file": ([redirect("file:///etc/hostname")], 1, DownloadError, "file scheme is not fetched from"),
    "redirect to ftp": ([redirect("ftp://127.0.0.1/f")], 1, DownloadError, "ftp scheme is not fetched from"),
    "redirect to http elsewhere": ([redirect("http://localhost/f")], 1, DownloadError, "plain http can be tampered"),
    "redirect to file with an endless body": (
        [Reply(BODY, status=302, headers={"Location": "file:///etc/hostname"}, endless=True)],
        1, DownloadError, "file scheme is not fetched from",
    ),
    "redirect loop": ([redirect("/f")], 11, DownloadError, "more than 10 redirects"),
    "redirect nowhere": ([redirect("http://[/")], 1, DownloadError, "is not a URL"),
}  # fmt: skip


@pytest.mark.parametrize(("replies", "times", "kind", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses(
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
    assert str(caught.value).startswith(url)
    assert "\n" not in str(caught.value)
    assert len(server.asked) == times
    assert [name for name in in_cache(rules) if ".part" not in name] == []


def test_redirects_are_followed_and_end_in_the_name_of_the_first_url(
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
def test_hops_that_are_refused(rules: FetchSettings, url: str, previous: str | None, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        Source(previous or url, previous or url, mirrored=False).check_hop(url, previous, rules)


@pytest.mark.parametrize(
    ("url", "previous"),
    [
        ("https://example.org/f", None),
        ("HTTPS://EXAMPLE.org/f", "http://127.0.0.1/f"),
        ("http://127.0.0.1:8080/f", None),
        ("http://127.0.0.1/f", "http://127.0.0.1/g"),
    ],
)
def test_hops_that_are_followed(rules: FetchSettings, url: str, previous: str | None) -> None:
    Source(previous or url, previous or url, mirrored=False).check_hop(url, previous, rules)


def test_messages_hold_no_secrets(server: MisbehavingServer, rules: FetchSettings) -> None:
    with pytest.raises(DownloadError) as caught:
        download_file(f"http://user:hunter2@{server.address}/f?token=hunter2", settings=rules)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("sha256", ["", "abc", "0123456", "g" * 64, "0" * 65, "sha256:" + "0" * 64])
def test_malformed_hashes_are_refused(rules: FetchSettings, sha256: str) -> None:
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        download_file("https://example.org/f", sha256=sha256, settings=rules)


def test_a_directory_is_no_destination(rules: FetchSettings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        download_file("https://example.org/f", tmp_path, settings=rules)


def test_what_is_no_url_is_refused(rules: FetchSettings) -> None:
    with pytest.raises(DownloadError, match="is not a URL"):
        download_file("https://[/f", settings=rules)


def test_a_place_that_cannot_be_written_is_named(server: MisbehavingServer, rules: FetchSettings) -> None:
    rules.cache_dir.write_bytes(b"a file where the cache should be")
    with pytest.raises(DownloadError, match=r"cannot write .*cache.*SEGCORE_CACHE"):
        download_file(server.reply("/f", Reply(BODY)), settings=rules)


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
def test_pauses(headers: dict[str, str], failures: int, seconds: float) -> None:
    retry = Retry(total=9, backoff_factor=0.5)
    for _ in range(failures):
        retry = retry.increment("GET", "/", error=OSError())
    response = requests.Response()
    response.headers.update(headers)
    assert pause_before_retry("f", retry, response) == seconds
    assert FetchSettings(Path()).backoff == 0.5


# --- hosts out of reach


def test_a_host_out_of_reach_is_noticed_once(rules: FetchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    for _ in range(2):
        with pytest.raises(OfflineError, match=r"127.0.0.1 is out of reach: .*refused; run `segcore fetch --all`"):
            download_file(f"http://127.0.0.1:{port}/f", settings=rules)
    with MisbehavingServer(port) as back:
        with pytest.raises(OfflineError, match="refused"):
            download_file(back.reply("/f", Reply(BODY)), settings=rules)
        assert not back.asked


def test_a_host_that_swallows_packets_is_given_up(rules: FetchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # nobody accepts: the queue is full after these two, and further packets are dropped
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/f"
        with pytest.raises(OfflineError, match=r"no answer within 0\.\d+ s"):
            download_file(url, settings=dataclasses.replace(rules, connect_timeout=0.3))


def test_an_unknown_name_is_out_of_reach(rules: FetchSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    # 'invalid' never resolves (RFC 6761); the second name cannot even be looked up.
    for host in ("nowhere.invalid", "a" * 64 + ".invalid"):
        with pytest.raises(OfflineError, match=r"is out of reach"):
            download_file(f"https://{host}/f", settings=rules)


def test_a_proxy_is_what_must_be_in_reach(
    server: MisbehavingServer, rules: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("https_proxy", server.url(""))
    with pytest.raises(OfflineError, match="the proxy gives no way to it"):  # it knows no CONNECT
        download_file("https://nowhere.invalid/f", settings=rules)
    monkeypatch.setenv("https_proxy", "proxy.lan:port")
    with pytest.raises(OfflineError, match="names a proxy that is not a URL"):
        download_file("https://nowhere.invalid/f", settings=rules)
    with socket.create_server(("127.0.0.1", 0)) as closed:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{closed.getsockname()[1]}")
    with pytest.raises(OfflineError, match=r"proxy 127.0.0.1 is out of reach"):
        download_file("https://nowhere.invalid/f", settings=rules)


def test_https_needs_a_trusted_certificate(server: MisbehavingServer, rules: FetchSettings) -> None:
    with pytest.raises(DownloadError, match=r"no trusted https connection: .*REQUESTS_CA_BUNDLE"):
        download_file(f"https://{server.address}/f", settings=rules)


# --- mirrors, files, settings


def test_mirrors_replace_the_longest_prefix(server: MisbehavingServer, tmp_path: Path) -> None:
    folder = tmp_path / "photos of mine"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(BODY)
    server.serve_folder("/m/", folder)
    mirrors = (
        ("https://example.org/", "http://127.0.0.1:1/wrong/"),
        ("https://example.org/photos/", server.url("/m/")),
        ("https://example.org/photos/local/", folder.as_uri() + "/"),
    )
    rules = FetchSettings(tmp_path / "cache", mirrors=mirrors, backoff=0.0)
    assert download_file("https://example.org/photos/a.jpg", sha256=SHA, settings=rules).read_bytes() == BODY
    assert len(server.headers_of("/m/a.jpg")) == 1
    off = dataclasses.replace(rules, offline=True)  # a file needs no network
    assert download_file("https://example.org/photos/local/a.jpg", sha256=SHA, settings=off).read_bytes() == BODY
    with pytest.raises(DownloadError, match=r"^https://example.org/photos/b.jpg \(mirror http://127.*HTTP 404"):
        download_file("https://example.org/photos/b.jpg", settings=rules)


def test_a_mirror_may_not_redirect_to_other_http_hosts(server: MisbehavingServer, tmp_path: Path) -> None:
    server.reply("/same", redirect("/f"))
    server.reply("/f", Reply(BODY))
    server.reply("/other", redirect("http://localhost:1/f"))
    rules = FetchSettings(tmp_path, mirrors=(("https://example.org", server.url("")),), backoff=0.0)
    assert download_file("https://example.org/same", settings=rules).read_bytes() == BODY
    with pytest.raises(DownloadError, match="redirected to http://localhost:1/f: plain http"):
        download_file("https://example.org/other", settings=rules)


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        ("file:///no/such/file", None, "there is no file .*such"),
        ("file://server/share/f", None, "names another machine"),
        (Path(__file__).as_uri(), "0" * 64, "promised is 0{64}"),
    ],
)
def test_bad_files(rules: FetchSettings, url: str, sha256: str | None, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        download_file(url, sha256=sha256, settings=rules)
    assert in_cache(rules) == []


def test_files_obey_the_size_limit(rules: FetchSettings) -> None:
    with pytest.raises(DownloadError, match="limit of 9 bytes"):
        download_file(Path(__file__).as_uri(), settings=dataclasses.replace(rules, max_bytes=9))
    assert in_cache(rules) == []


def test_settings_from_the_environment(tmp_path: Path) -> None:
    found = FetchSettings.from_env(
        {
            "SEGCORE_CACHE": str(tmp_path),
            "SEGCORE_OFFLINE": "Yes",
            "SEGCORE_MIRRORS": "https://a.org/x?k=v&/=file:///m/\n https://b.org/=http://127.0.0.1:80/",
            "SEGCORE_ALLOW_HTTP": "Files.Lan, 127.0.0.1",
        }
    )
    assert found == FetchSettings(
        tmp_path,
        offline=True,
        mirrors=(("https://a.org/x?k=v&/", "file:///m/"), ("https://b.org/", "http://127.0.0.1:80/")),
        allowed_hosts=frozenset({"files.lan", "127.0.0.1"}),
    )
    default = FetchSettings.from_env({"SEGCORE_OFFLINE": "0"})
    assert default.cache_dir.name == "segcore"
    assert not default.offline


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SEGCORE_OFFLINE", "maybe"),
        ("SEGCORE_MIRRORS", "https://a.org/"),
        ("SEGCORE_MIRRORS", "https://a.org/=/srv/mirror"),
        ("SEGCORE_MIRRORS", "a.org=https://b.org"),
    ],
)
def test_settings_that_mean_nothing(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable):
        FetchSettings.from_env({variable: value})


@given(st.text(max_size=60))
def test_cache_names_are_safe_and_distinct(tail: str) -> None:
    name = cache_name("https://example.org/" + tail)
    assert len(name) <= 109
    assert name.isascii()
    assert not set(name) & set('/\\:*?"<>|\0 ')
    assert name != cache_name("https://example.org/" + tail + "x")


def test_hashes(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert sha256_file(file) == digest
    assert verify(file, digest[:8])
    assert verify(file, None)
    assert not verify(file, "0" * 8)
    assert not verify(tmp_path / "none", None)


# --- processes

CHILD = """
import sys
from segcore.fetch import download_file
print("ready", flush=True)
path = download_file(sys.argv[1], sha256=sys.argv[2], progress=lambda name, done, total: print(done, flush=True))
assert "torch" not in sys.modules
print(path, flush=True)
"""


def child(server: MisbehavingServer, cache: Path) -> subprocess.Popen[str]:
    env = {**os.environ, "SEGCORE_CACHE": str(cache), "SEGCORE_MIRRORS": f"https://example.org/={server.url('/')}"}
    command = [sys.executable, "-c", CHILD, "https://example.org/f", SHA]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_processes_download_once(server: MisbehavingServer, tmp_path: Path) -> None:
    server.reply("/f", Reply(BODY, hang_at=HALF))
    with child(server, tmp_path) as first:
        server.wait_until_asked("/f")
        with child(server, tmp_path) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "ready\n"
            server.release()
            outputs = [first.communicate(timeout=60)[0], second.communicate(timeout=60)[0]]
    paths = {output.splitlines()[-1] for output in outputs}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == BODY
    assert len(server.asked) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_process_leaves_a_part_that_is_resumed(
    server: MisbehavingServer, tmp_path: Path, number: signal.Signals
) -> None:
    server.reply("/f", Reply(BODY, hang_at=HALF, etag='"e"'), Reply(BODY, etag='"e"'))
    with child(server, tmp_path) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == f"{HALF}\n":
                process.send_signal(number)
                break
        process.communicate(timeout=60)
    assert process.returncode != 0
    name = cache_name("https://example.org/f")
    assert (tmp_path / (name + ".part")).read_bytes() == BODY[:HALF]
    assert not (tmp_path / name).exists()
    rules = FetchSettings(tmp_path, mirrors=(("https://example.org/", server.url("/")),))
    assert download_file("https://example.org/f", sha256=SHA, settings=rules).read_bytes() == BODY
    assert server.headers_of("/f")[1]["Range"] == f"bytes={HALF}-"
    assert in_cache(rules) == [name]


# --- the bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_size_and_speed(
    server: MisbehavingServer, rules: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    download_file(server.reply("/photo.jpg", Reply(BODY)), settings=rules)
    assert "photo.jpg" in terminal.getvalue()
    assert f"{len(BODY) / 1000:.1f}/{len(BODY) / 1000:.1f} kB" in terminal.getvalue()
    assert "B/s" in terminal.getvalue()


def test_no_terminal_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    with download_progress() as report:
        report("f", 1, 2)
    assert capsys.readouterr() == ("", "")
