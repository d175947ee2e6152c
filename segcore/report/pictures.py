"""Pictures of a page: made small, and turned into data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcore.core.labels import voc_colormap
from segcore.results.pictures import Colours, Indices

_PALETTE = voc_colormap(256)
_EDGE = 254
"""Index of the white line around each region; unused by VOC, whose void border is 255."""
_CHANGED_COLOUR = (255, 64, 160)
"""Not in the VOC palette."""


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Return width and height with the longer side at most `side`, aspect kept, at least one pixel each."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def photo_uri(photo: Colours, size: tuple[int, int]) -> str:
    """Return a photo as a JPEG data URI of (width, height) pixels."""
    buffer = io.BytesIO()
    Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=78, optimize=True)
    return _uri("image/jpeg", buffer)


def mask_uri(class_map: Indices, size: tuple[int, int]) -> str:
    """Return a class map as a paletted PNG data URI, background transparent, regions outlined in white."""
    small = np.array(Image.fromarray(class_map).resize(size, Image.Resampling.NEAREST))
    edge = np.zeros(small.shape, dtype=bool)
    edge[:, 1:] |= small[:, 1:] != small[:, :-1]
    edge[1:] |= small[1:] != small[:-1]
    small[edge] = _EDGE
    colours = [tuple(colour) for colour in _PALETTE.tolist()]
    colours[_EDGE] = (255, 255, 255)
    return _paletted(small, colours)


def changed_uri(changed: npt.NDArray[np.bool_], size: tuple[int, int]) -> str:
    """Return the changed pixels as a PNG data URI, the rest transparent; a single pixel stays visible."""
    mask = Image.fromarray(changed.astype(np.uint8) * 255)
    small = np.asarray(mask.resize(size, Image.Resampling.BOX)) > 0
    return _paletted(small.astype(np.uint8), [(0, 0, 0), _CHANGED_COLOUR])


def _paletted(indices: Indices, colours: list[tuple[int, ...]]) -> str:
    image = Image.fromarray(indices)
    image.putpalette([channel for colour in colours for channel in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=0, optimize=True)
    return _uri("image/png", buffer)


def _uri(media: str, buffer: io.BytesIO) -> str:
    return f"data:{media};base64,{base64.b64encode(buffer.getvalue()).decode()}"
