"""Files are downloaded once, verified and cached: by URL, through mirrors, by several processes."""

from __future__ import annotations

import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.core.errors import DownloadError, OfflineError, UsageError
from segcore.core.files import sha256_file
from segcore.inputs.download import (
    FetchSettings,
    cache_name,
    cached_path,
    download_file,
    download_progress,
    verify,
)
from tests.support.http_server import BODY, HALF, SHA, MisbehavingServer, Reply


def in_cache(rules: FetchSettings) -> list[str]:
    """Return the names in the cache except the locks: the file after a success, nothing after a failure."""
    return sorted(path.name for path in rules.cache_dir.glob("*") if path.name != "locks")


# --- what is fetched, and what is not


def test_a_file_is_downloaded_once(server: MisbehavingServer, rules: FetchSettings) -> None:
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


@pytest.mark.parametrize("expected", [SHA, SHA.upper(), SHA[:8], SHA[:20]])
def test_a_hash_may_be_abbreviated(server: MisbehavingServer, rules: FetchSettings, expected: str) -> None:
    assert download_file(server.reply("/f", Reply(BODY)), sha256=expected, settings=rules).read_bytes() == BODY


def test_a_damaged_file_is_replaced(server: MisbehavingServer, rules: FetchSettings, tmp_path: Path) -> None:
    url, target = server.reply("/w.pth", Reply(BODY)), tmp_path / "deep" / "w.pth"
    target.parent.mkdir()
    target.write_bytes(BODY[:-1] + b"!")
    assert download_file(url, target, sha256=SHA, settings=rules) == target
    assert target.read_bytes() == BODY
    assert list(target.parent.iterdir()) == [target]


def test_an_existing_file_is_accepted_without_a_hash(
    server: MisbehavingServer, rules: FetchSettings, tmp_path: Path
) -> None:
    target = tmp_path / "mine.bin"
    target.write_bytes(b"mine")
    assert download_file(server.reply("/f", Reply(BODY)), target, settings=rules).read_bytes() == b"mine"
    assert not server.asked


@pytest.mark.parametrize("damaged", [False, True])
def test_offline_nothing_is_requested(server: MisbehavingServer, rules: FetchSettings, damaged: bool) -> None:
    url, rules = server.reply("/f", Reply(BODY)), dataclasses.replace(rules, offline=True)
    if damaged:
        rules.cache_dir.mkdir()
        (rules.cache_dir / cache_name(url)).write_bytes(b"damaged")
    state = "another hash than expected" if damaged else "is missing"
    with pytest.raises(OfflineError, match=rf"{state}.*segcore fetch --all.*SEGCORE_MIRRORS.*SEGCORE_CACHE"):
        download_file(url, sha256=SHA, settings=rules)
    assert not server.asked


@pytest.mark.parametrize("sha256", ["", "abc", "0123456", "g" * 64, "0" * 65, "sha256:" + "0" * 64])
def test_malformed_hashes_are_refused(rules: FetchSettings, sha256: str) -> None:
    with pytest.raises(UsageError, match="64 hexadecimal digits"):
        download_file("https://example.org/f", sha256=sha256, settings=rules)


def test_a_directory_is_refused_as_destination(rules: FetchSettings, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a directory"):
        download_file("https://example.org/f", tmp_path, settings=rules)


def test_an_invalid_url_is_refused(rules: FetchSettings) -> None:
    with pytest.raises(DownloadError, match="is not a URL"):
        download_file("https://[/f", settings=rules)


def test_an_unwritable_cache_is_named(server: MisbehavingServer, rules: FetchSettings) -> None:
    rules.cache_dir.write_bytes(b"a file where the cache should be")
    with pytest.raises(DownloadError, match=r"cannot write .*cache.*SEGCORE_CACHE"):
        download_file(server.reply("/f", Reply(BODY)), settings=rules)


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


@pytest.mark.parametrize(
    ("url", "sha256", "message"),
    [
        ("file:///no/such/file", None, "there is no file .*such"),
        ("file://server/share/f", None, "names another machine"),
        (Path(__file__).as_uri(), "0" * 64, "expected was 0{64}"),
    ],
)
def test_bad_files(rules: FetchSettings, url: str, sha256: str | None, message: str) -> None:
    with pytest.raises(DownloadError, match=message):
        download_file(url, sha256=sha256, settings=rules)
    assert in_cache(rules) == []


def test_the_size_limit_applies_to_file_urls(rules: FetchSettings) -> None:
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
def test_invalid_settings_are_refused(variable: str, value: str) -> None:
    with pytest.raises(UsageError, match=variable):
        FetchSettings.from_env({variable: value})


@pytest.mark.slow
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
from segcore.inputs.download import download_file
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
def test_the_download_of_a_stopped_process_is_resumed(
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


def test_a_terminal_shows_a_progress_bar(
    server: MisbehavingServer, rules: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    download_file(server.reply("/photo.jpg", Reply(BODY)), settings=rules)
    assert "photo.jpg" in terminal.getvalue()
    assert f"{len(BODY) / 1000:.1f}/{len(BODY) / 1000:.1f} kB" in terminal.getvalue()
    assert "B/s" in terminal.getvalue()


def test_nothing_is_printed_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with download_progress() as report:
        report("f", 1, 2)
    assert capsys.readouterr() == ("", "")


# --- destinations that are no files, users without a home


def test_a_device_is_written_through(server: MisbehavingServer, rules: FetchSettings) -> None:
    assert download_file(server.reply("/f", Reply(BODY)), os.devnull, sha256=SHA, settings=rules) == Path(os.devnull)
    assert Path(os.devnull).is_char_device()
    assert len(in_cache(rules)) == 1


def test_a_full_device_is_named(server: MisbehavingServer, rules: FetchSettings) -> None:
    with pytest.raises(DownloadError, match="/dev/full: cannot be written: No space left"):
        download_file(server.reply("/f", Reply(BODY)), "/dev/full", settings=rules)
    assert Path("/dev/full").is_char_device()


def test_a_pipe_is_written_through(server: MisbehavingServer, rules: FetchSettings, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    download_file(server.reply("/f", Reply(BODY)), tmp_path / "pipe", sha256=SHA, settings=rules)
    reader.join()
    assert received == [BODY]
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_keeps_pointing_at_the_file(server: MisbehavingServer, rules: FetchSettings, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    download_file(server.reply("/f", Reply(BODY)), tmp_path / "link", sha256=SHA, settings=rules)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == BODY


def test_a_user_without_a_home_needs_a_cache_only_to_download(
    server: MisbehavingServer, rules: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*_: object) -> None:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr("platformdirs.user_cache_path", nobody)
    homeless = dataclasses.replace(rules, cache_dir=FetchSettings.from_env({}).cache_dir)
    url = server.reply("/f", Reply(BODY))
    assert cached_path(url, SHA, homeless) is None
    with pytest.raises(DownloadError, match="set SEGCORE_CACHE"):
        download_file(url, settings=homeless)
    assert not server.asked


def test_an_unknown_user_in_the_name_of_the_cache_is_refused() -> None:
    with pytest.raises(UsageError, match="SEGCORE_CACHE='~no-such-user/cache'"):
        FetchSettings.from_env({"SEGCORE_CACHE": "~no-such-user/cache"})
