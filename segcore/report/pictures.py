"""Pictures made small: of a page, as data URIs, and of a terminal, as coloured characters."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text

from segcore.core.labels import VOC, ClassMap, LabelSet

_CHANGED_COLOUR = (255, 64, 160)
"""In no palette of segcore's own."""
MAX_ROWS = 14
"""Most lines of a picture in a terminal."""


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Return width and height with the longer side at most `side`, aspect kept, at least one pixel each."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def photo_uri(photo: npt.NDArray[np.uint8], size: tuple[int, int]) -> str:
    """Return a photo, RGB (H, W, 3), as a JPEG data URI of (width, height) pixels."""
    return _uri(Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS), "JPEG", quality=78)


def mask_uri(class_map: ClassMap, size: tuple[int, int], labels: LabelSet = VOC) -> str:
    """Return a class map as a PNG data URI, background transparent, regions outlined in white."""
    small = np.array(Image.fromarray(class_map).resize(size, Image.Resampling.NEAREST))
    edge = np.zeros(small.shape, dtype=bool)
    edge[:, 1:] |= small[:, 1:] != small[:, :-1]
    edge[1:] |= small[1:] != small[:-1]
    pixels = np.full((*small.shape, 4), 255, dtype=np.uint8)
    pixels[..., :3] = labels.lookup.take(small, axis=0, mode="clip")
    if labels.background is not None:
        pixels[small == labels.background, 3] = 0
    pixels[edge] = 255
    return _uri(Image.fromarray(pixels), "PNG")


def changed_uri(changed: npt.NDArray[np.bool_], size: tuple[int, int]) -> str:
    """Return the changed pixels as a PNG data URI, the rest transparent; a single pixel stays visible."""
    small = np.asarray(Image.fromarray(changed.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)) > 0
    pixels = np.zeros((*small.shape, 4), dtype=np.uint8)
    pixels[small] = (*_CHANGED_COLOUR, 255)
    return _uri(Image.fromarray(pixels), "PNG")


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, optimize=True, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def half_blocks(picture: npt.NDArray[np.uint8], columns: int, smooth: bool = True) -> Text:
    """Return a picture, uint8 RGB (H, W, 3), as lines of at most `columns` half blocks: two pixels per character.

    `smooth` averages when scaling down (photos); else the nearest pixel is taken (masks).
    """
    height, width = picture.shape[:2]
    scale = min(1.0, 2 * MAX_ROWS / height)
    small, tall = fitted(round(width * scale) or 1, round(height * scale) or 1, columns)
    method = Image.Resampling.BOX if smooth else Image.Resampling.NEAREST
    pixels = np.asarray(Image.fromarray(picture).resize((small, tall + tall % 2), method))
    art = Text(no_wrap=True, end="")
    for y in range(0, len(pixels), 2):
        if y:
            art.append("\n")
        for top, bottom in zip(pixels[y].tolist(), pixels[y + 1].tolist(), strict=True):
            art.append("▀", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
    return art
