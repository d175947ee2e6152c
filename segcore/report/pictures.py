"""Pictures of a page: made small, and turned into data URIs."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcore.core.labels import VOC, LabelSet
from segcore.results.pictures import Colours, Indices

_EDGE = 254
"""Value of the white line around each region; unused by label sets of fewer classes, whose void is 255."""
_EDGE_COLOUR = (255, 255, 255)
_CHANGED_COLOUR = (255, 64, 160)
"""In no palette of segcore's own."""


def fitted(width: int, height: int, side: int) -> tuple[int, int]:
    """Return width and height with the longer side at most `side`, aspect kept, at least one pixel each."""
    scale = min(1.0, side / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def photo_uri(photo: Colours, size: tuple[int, int]) -> str:
    """Return a photo as a JPEG data URI of (width, height) pixels."""
    buffer = io.BytesIO()
    Image.fromarray(photo).resize(size, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=78, optimize=True)
    return _uri("image/jpeg", buffer)


def mask_uri(class_map: Indices, size: tuple[int, int], labels: LabelSet = VOC) -> str:
    """Return a class map as a PNG data URI, background transparent, regions outlined in white."""
    small = np.array(Image.fromarray(class_map).resize(size, Image.Resampling.NEAREST))
    edge = np.zeros(small.shape, dtype=bool)
    edge[:, 1:] |= small[:, 1:] != small[:, :-1]
    edge[1:] |= small[1:] != small[:-1]
    if len(labels) > _EDGE or labels.ignore == _EDGE or small.itemsize > 1:
        return _coloured(small, edge, labels)
    small[edge] = _EDGE
    colours = [tuple(colour) for colour in labels.lookup.tolist()]
    colours[_EDGE] = _EDGE_COLOUR
    return _paletted(small, colours[:256], labels.background)


def _coloured(class_map: Indices, edge: npt.NDArray[np.bool_], labels: LabelSet) -> str:
    """Return the picture of a class map whose values leave none for the line, with a colour of each pixel's own."""
    colours = np.full((*class_map.shape, 4), 255, dtype=np.uint8)
    colours[..., :3] = labels.lookup.take(class_map, axis=0, mode="clip")
    colours[edge, :3] = _EDGE_COLOUR
    if labels.background is not None:
        colours[(class_map == labels.background) & ~edge, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, "PNG", optimize=True)
    return _uri("image/png", buffer)


def changed_uri(changed: npt.NDArray[np.bool_], size: tuple[int, int]) -> str:
    """Return the changed pixels as a PNG data URI, the rest transparent; a single pixel stays visible."""
    mask = Image.fromarray(changed.astype(np.uint8) * 255)
    small = np.asarray(mask.resize(size, Image.Resampling.BOX)) > 0
    return _paletted(small.astype(np.uint8), [(0, 0, 0), _CHANGED_COLOUR], 0)


def _paletted(indices: Indices, colours: list[tuple[int, ...]], clear: int | None) -> str:
    image = Image.fromarray(indices)
    image.putpalette([channel for colour in colours for channel in colour])
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, **({} if clear is None else {"transparency": clear}))
    return _uri("image/png", buffer)


def _uri(media: str, buffer: io.BytesIO) -> str:
    return f"data:{media};base64,{base64.b64encode(buffer.getvalue()).decode()}"
