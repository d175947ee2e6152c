"""The program that ships: it reads a photo and writes its class map, here with nothing but the standard library.

Yours may be of any language: it gets the paths of a photo (PPM) and of the mask that it writes (PNG).
"""

import struct
import sys
import zlib
from pathlib import Path


def class_of(red: int, green: int, blue: int) -> int:
    """Return 0 for ground, 1 for sky, 2 for grass: the largest of three scores."""
    scores = (0.2 * 255, 2 * blue - red - 0.5 * green, 2 * green - red - blue)
    return scores.index(max(scores))


def read_ppm(path: Path) -> tuple[int, int, bytes]:
    """Return width, height and the RGB of all pixels."""
    magic, size, top, pixels = path.read_bytes().split(b"\n", 3)
    assert (magic, top) == (b"P6", b"255")
    width, height = map(int, size.split())
    return width, height, pixels


def write_png(path: Path, width: int, height: int, classes: bytes) -> None:
    """Write class indices as a greyscale PNG of 8 bits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + classes[y * width : (y + 1) * width] for y in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


if __name__ == "__main__":
    photo, mask = map(Path, sys.argv[1:])
    width, height, pixels = read_ppm(photo)
    triples = zip(pixels[::3], pixels[1::3], pixels[2::3], strict=True)
    write_png(mask, width, height, bytes(class_of(*triple) for triple in triples))
