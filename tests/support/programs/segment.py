"""A program that segments photos with nothing but the standard library: bright pixels are class 1, others 0.

``segment.py HOW PHOTO MASK`` or ``segment.py serve HOW``: HOW says how it misbehaves, if at all.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path


def read_ppm(path: str) -> tuple[int, int, bytes]:
    with Path(path).open("rb") as file:
        assert file.readline() == b"P6\n"
        width, height = map(int, file.readline().split())
        assert file.readline() == b"255\n"
        return width, height, file.read()


def write_png(path: str, width: int, height: int, grey: bytes, colour: int = 0, bits: int = 8) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    step = len(grey) // height
    rows = b"".join(b"\0" + grey[y * step : (y + 1) * step] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")
    Path(path).write_bytes(data)


def segment(photo: str, mask: str, how: str = "") -> None:
    width, height, rgb = read_ppm(photo)
    classes = bytes(1 if r > 127 else 0 for r in rgb[::3])
    if how == "wrong-size":
        width, classes = width // 2, classes[: width // 2 * height]
    if how == "unknown-id":
        classes = bytes([7, 255]) + classes[2:]
    if how == "colour":
        write_png(mask, width, height, rgb, colour=2)
    elif how == "deep":
        write_png(mask, width, height, b"".join(bytes([0, c]) for c in classes), bits=16)
    else:
        write_png(mask, width, height, classes)


def flood(stream: int) -> None:
    while True:
        os.write(stream, b"x" * 65536)


def leave_child(setsid: bool = False) -> None:
    code = "import time; time.sleep(60)"
    subprocess.Popen([sys.executable, "-I", "-S", "-c", code, str(Path.cwd())], start_new_session=setsid)


def fail(how: str, mask: str) -> None:
    """Do what needs no photo."""
    match how:
        case "hang":
            time.sleep(60)
        case "closed-output":
            os.close(1)
            os.close(2)
            time.sleep(60)
        case "crash":
            sys.stderr.write("no such layer\n")
            sys.exit(3)
        case "killed":
            os.abort()
        case "flood" | "endless-line":
            flood(1)
        case "flood-errors":
            flood(2)
        case "no-mask":
            sys.exit(0)
        case "not-a-png":
            Path(mask).write_text("mask", encoding="ascii")
            sys.exit(0)
        case "empty":
            Path(mask).touch()
            sys.exit(0)
        case "fifo":
            os.mkfifo(mask)
            sys.exit(0)
        case "half-line" | "half-line-crash":
            sys.stdout.write(mask[:8])
            sys.stdout.flush()
            fail("hang" if how == "half-line" else "crash", mask)


def once(how: str, photo: str, mask: str) -> None:
    fail(how, mask)
    segment(photo, mask, how)
    if how == "crash-after":
        sys.exit(1)
    if how == "leave-child":
        leave_child()
    if how == "leave-daemon":
        leave_child(setsid=True)


def serve(how: str) -> None:
    """Answer lines; misbehave from the second photo on, so that the first shows that the program works."""
    for number, line in enumerate(sys.stdin):
        photo = line.rstrip("\n")
        mask = photo + "-mask.png"
        bad = how if number else ""
        fail(bad, mask)
        segment(photo, mask, bad)
        if bad == "again":  # written for the second photo alone, where nobody removes it
            mask = os.environ["KEPT_MASK"]
            if number == 1:
                segment(photo, mask)
        answers = {
            "two-lines": f"{mask}\n{mask}\n",
            "missing": f"{mask}.png\n",
            "chatter": "done\n",
            "empty-line": "\n",
            "too-many-ms": f"{mask} 99999\n",
            "crlf": f"{mask}\r\n",
            "old": f"{os.environ.get('KEPT_MASK')}\n",
        }
        sys.stdout.write(answers.get(bad, f"{mask} 0.01\n" if how == "own-time" else f"{mask}\n"))
        sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        once(*sys.argv[1:])
