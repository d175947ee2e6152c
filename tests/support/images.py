"""Small images of every mode and format, and PNGs with headers that Pillow would not write."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

H, W = 6, 8
RAMP = np.arange(H * W, dtype=np.uint8).reshape(H, W) * 5
RGB = np.stack([RAMP, 255 - RAMP, RAMP // 2], axis=2)
GREY = np.stack([RAMP] * 3, axis=2)
MASK = np.arange(H * W, dtype=np.uint8).reshape(H, W) % 21


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def photo(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(RGB).convert(mode)


def with_alpha(mode: str) -> Image.Image:
    image = photo().convert(mode)
    image.putalpha(Image.fromarray(np.where(RAMP > 99, 0, 255).astype(np.uint8)))
    return image


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """Write a PNG by hand (RFC 2083): for headers that Pillow would not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def encoded(format_: str, image: Image.Image | None = None) -> bytes:
    data = io.BytesIO()
    (image or photo()).save(data, format=format_)
    return data.getvalue()
