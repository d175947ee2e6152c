"""Pictures of a run: read only from the directory of its run file, and only up to a size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segcore.core.errors import ImageError, RecordError
from segcore.core.image_files import load_indexed_png, open_image
from segcore.core.labels import ClassMap
from segcore.core.records import AccuracyRecord, Run

MAX_PIXELS = 100_000_000
"""Larger pictures are refused, so that a run file cannot exhaust the memory of its reader."""


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
    except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL byte, a loop of links
        problem = f"is not a usable path ({error})"
    raise RecordError(f"{run.path.name}: picture {relative!r} {problem}")


def load_photo(run: Run, relative: str) -> npt.NDArray[np.uint8]:
    """Return a photo as uint8 RGB (H, W, 3).

    Raises:
        RecordError: it is missing, unreadable, too large or outside the run's directory.
    """
    with _reading(run, relative) as path, open_image(path, ("JPEG", "PNG"), MAX_PIXELS) as image:
        return np.array(image.convert("RGB"))


def load_indices(run: Run, relative: str) -> ClassMap:
    """Return a class map or margin map, uint8 or uint16 (H, W).

    Raises:
        RecordError: as `load_photo`, or the picture is not an indexed PNG.
    """
    with _reading(run, relative) as path:
        return load_indexed_png(path, MAX_PIXELS)


def load_margins(run: Run, accuracy: AccuracyRecord) -> ClassMap | None:
    """Return the margin map of an item, None if it has none; raise as `load_indices`."""
    return load_indices(run, accuracy.margin_map) if accuracy.margin_map else None


@contextmanager
def _reading(run: Run, relative: str) -> Iterator[Path]:
    try:
        yield picture_path(run, relative)
    except ImageError as error:
        raise RecordError(f"{run.path.name}: picture {relative!r} cannot be read: {error}") from None
