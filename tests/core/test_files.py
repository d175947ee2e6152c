from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from segcore.core.errors import OutputError
from segcore.core.files import write_file


def test_the_whole_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    for data in (b"a longer first version", b"second"):
        write_file(path, data)
        assert path.read_bytes() == data
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    assert path.stat().st_mode == plain.stat().st_mode
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("name", ["x" * 255, "猫" * 85, "a" + "猫" * 84])
def test_a_name_may_have_255_bytes(tmp_path: Path, name: str) -> None:
    write_file(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_link_keeps_its_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    write_file(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"x"


def test_a_fifo_is_written_through(tmp_path: Path) -> None:
    fifo, received = tmp_path / "fifo", list[bytes]()
    os.mkfifo(fifo)
    reader = threading.Thread(target=lambda: received.append(fifo.read_bytes()))
    reader.start()
    write_file(fifo, b"through")
    reader.join()
    assert received == [b"through"]
    assert fifo.is_fifo()


def test_the_null_device_stays_a_device() -> None:
    write_file(Path(os.devnull), b"x")
    assert Path(os.devnull).is_char_device()


def test_a_redirected_stream_is_added_to(tmp_path: Path) -> None:
    script = "from pathlib import Path; from segcore.core.files import write_file as w; w(Path('/dev/stdout'), b'1');"
    out = tmp_path / "out"
    with out.open("wb") as stream:
        subprocess.run([sys.executable, "-c", f"{script} print(2)"], stdout=stream, check=True)
    assert out.read_bytes() == b"12\n"


STREAMS = ["/dev/stdout", "/dev/stderr", "/proc/self/fd/1", "/proc/self/fd/2", "link"]


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_that_is_redirected_to_a_file_is_written_in_turn(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    script = (
        "import sys; from pathlib import Path; from segcore.core.files import write_file, is_replaced\n"
        "print(1); print(1, file=sys.stderr)\n"
        "assert not is_replaced(Path(sys.argv[1])); write_file(Path(sys.argv[1]), b'2')"
    )
    streams = [tmp_path / "out", tmp_path / "err"]
    with streams[0].open("wb") as out, streams[1].open("wb") as err:
        subprocess.run([sys.executable, "-c", script, name], stdout=out, stderr=err, check=True, cwd=tmp_path)
    assert sorted(path.read_bytes() for path in streams) == [b"1\n", b"1\n2"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS, errno.EBUSY])
def test_a_file_in_a_directory_that_takes_no_other_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A single file that is mounted into a container: nothing can be renamed to it, or created beside it."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("segcore.core.files._rename", refuse)
    (tmp_path / "mounted").write_bytes(b"before")
    write_file(tmp_path / "mounted", b"now")
    assert (tmp_path / "mounted").read_bytes() == b"now"
    with pytest.raises(OutputError, match=os.strerror(code)):
        write_file(tmp_path / "new", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["mounted"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("loop", "Too many levels"),
        ("directory", "Is a directory"),
        ("file/below", "Not a directory|File exists"),
        ("/dev/full", "No space left"),
        ("/proc/nowhere/x", "No such file"),
    ],
)
def test_what_cannot_be_written_is_named(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "directory").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError, match=rf"{name}: cannot be written: ({reason})"):
        write_file(tmp_path / name, b"x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["directory", "file", "loop"]


WRITER = """
import itertools, sys
from pathlib import Path
from segcore.core.files import write_file
for turn in itertools.count():
    write_file(Path(sys.argv[1]), bytes([turn % 256]) * 300_000)
    print(turn, flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="uses O_TMPFILE")
def test_a_killed_writer_leaves_a_whole_file_and_nothing_else(tmp_path: Path) -> None:
    moments, path = random.Random(0), tmp_path / "directory" / "file"
    for _ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout
        writer.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.1))
        writer.kill()
        last = int((b"0\n" + writer.communicate()[0]).split()[-1])
        found = path.read_bytes()
        assert found in (bytes([last % 256]) * 300_000, bytes([(last + 1) % 256]) * 300_000)
    # Between naming the new file and replacing the old one there are some microseconds.
    assert len(list(path.parent.iterdir())) <= 2
