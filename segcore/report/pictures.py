"""Pictures named in a run file: read only from the directory of the run, made small, and turned into data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcore.core.errors import ImageError, RecordError
from segcore.core.image_files import load_indexed_png, open_image
from segcore.core.labels import voc_colormap
from segcore.core.records import Run

Indices = npt.NDArray[np.uint8]
Colours = npt.NDArray[np.uint8]

MAX_PIXELS = 100_000_000
"""Larger pictures are refused, so that a run file cannot exhaust the memory of its reader."""
_PALETTE = voc_colormap(256)
_EDGE = 254
"""Index of the white line around each region; unused by VOC, whose void border is 255."""
_CHANGED_COLOUR = (255, 64, 160)
"""Not in the VOC palette."""


def picture_path(run: Run, relative: str) -> Path:
    """Return the path of a picture of a run.

    Raises:
        RecordError: it is missing, or outside the directory of the run file, perhaps through a symbolic link.
    """
    home = run.path.parent.resolve()
    try:
        path = (home / relative).resolve()
        if not path.is_relative_to(home):
            problem = "lies outside the run's directory and is not shown"
        elif not path.is_file():
            problem = "is missing; keep the folder beside the run file"
        else:
            return path
    except (OSError, ValueError) as error:  # a NUL byte, a name too long, a loop of links
        problem = f"is not a usable path ({error})"
    raise RecordError(f"{run.path.name}: picture {relative!r} {problem}")


def load_photo(run: Run, relative: str) -> Colours:
    """Return a photo as uint8 RGB (H, W, 3).

    Raises:
        RecordError: it is missing, unreadable, too large or outside the run's directory.
    """
    with _reading(run, relative) as path, open_image(path, ("JPEG", "PNG"), MAX_PIXELS) as image:
        return np.array(image.convert("RGB"))


def load_indices(run: Run, relative: str) -> Indices:
    """Return a class map or margin map as uint8 (H, W).

    Raises:
        RecordError: as `load_photo`, or the picture is not an indexed PNG.
    """
    with _reading(run, relative) as path:
        return load_indexed_png(path, MAX_PIXELS)


@contextmanager
def _reading(run: Run, relative: str) -> Iterator[Path]:
    try:
        yield picture_path(run, relative)
    except ImageError as error:
        raise RecordError(f"{run.path.name}: picture {relative!r} cannot be read: {error}") from None


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
