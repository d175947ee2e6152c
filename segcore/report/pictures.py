"""Pictures that a run file names: opened only inside the run's own directory, made small, and turned into data URIs."""

from __future__ import annotations

import base64
import io
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
"""More is refused: a run file must not be able to fill the memory of who reads it."""
_PALETTE = voc_colormap(256)
_EDGE = 254
"""Index of the line around each region, white; VOC's classes and 255, its void border, leave it free."""
_CHANGED_COLOUR = (255, 64, 160)
"""Not in the VOC palette."""


def picture_path(run: Run, relative: str) -> Path:
    """Return where a picture of a run lies.

    Raises:
        RecordError: it is not there, or it lies outside the directory of the run file, also by a symbolic link.
    """
    home = run.path.parent.resolve()
    try:
        path = (home / relative).resolve()
        inside = path.is_relative_to(home)
        there = inside and path.is_file()
    except (OSError, ValueError) as error:  # a NUL byte, a name too long, a loop of links
        raise RecordError(f"{run.path.name}: picture {relative!r}: not a usable path ({error})") from None
    if not inside:
        raise RecordError(f"{run.path.name}: picture {relative!r} lies outside the run's directory and is not shown")
    if not there:
        raise RecordError(f"{run.path.name}: picture {relative!r} is missing; keep the folder beside the run file")
    return path


def load_photo(run: Run, relative: str) -> Colours:
    """Return a photo as uint8 RGB (H, W, 3).

    Raises:
        RecordError: it is missing, unreadable, too large or outside the run's directory.
    """
    path = picture_path(run, relative)
    try:
        with open_image(path, ("JPEG", "PNG"), MAX_PIXELS) as image:
            return np.array(image.convert("RGB"))
    except ImageError as error:
        raise RecordError(f"{run.path.name}: picture {relative!r} cannot be read: {error}") from None


def load_indices(run: Run, relative: str) -> Indices:
    """Return a class map or margin map as uint8 (H, W).

    Raises:
        RecordError: as `load_photo`, or the picture is not an indexed PNG.
    """
    path = picture_path(run, relative)
    try:
        return load_indexed_png(path, MAX_PIXELS)
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
    """Return a class map as a paletted PNG data URI, background transparent, regions lined with white."""
    small = np.array(Image.fromarray(class_map).resize(size, Image.Resampling.NEAREST))
    edge = np.zeros(small.shape, dtype=bool)
    edge[:, 1:] |= small[:, 1:] != small[:, :-1]
    edge[1:] |= small[1:] != small[:-1]
    small[edge] = _EDGE
    colours = [tuple(colour) for colour in _PALETTE.tolist()]
    colours[_EDGE] = (255, 255, 255)
    return _paletted(small, colours)


def changed_uri(changed: npt.NDArray[np.bool_], size: tuple[int, int]) -> str:
    """Return the changed pixels as a PNG data URI, the rest transparent; a lone pixel stays visible when made small."""
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
