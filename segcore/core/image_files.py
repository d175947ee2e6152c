"""Open image files, and read and write indexed PNGs; whatever Pillow raises becomes one `ImageError`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from segcore.core.errors import ImageError
from segcore.core.files import find_file, write_file
from segcore.core.labels import VOC, ClassMap, LabelSet, voc_colormap
from segcore.core.quiet import quiet
from segcore.core.system import explain

PHOTO_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow reads more formats, but some of them run other programs (EPS) or do not hold photographs."""


@contextlib.contextmanager
def open_image(
    path: Path, formats: tuple[str, ...] | None = None, max_pixels: int | None = None
) -> Iterator[Image.Image]:
    """Yield the image in a file, its pixels not decoded yet; any exception in the body becomes an ImageError.

    `formats` are the only decoders that are tried, for files from strangers; None means any of `PHOTO_FORMATS`.
    `max_pixels` limits width times height.
    """
    with image_errors(path):
        path = find_file(path)
        if not path.exists():
            raise ImageError("there is no such file")
        if not path.is_file():
            raise ImageError(f"is {'a directory' if path.is_dir() else 'not a regular file'}: wanted an image file")
        if path.stat().st_size == 0:
            raise ImageError("is empty (0 bytes)")
        try:
            image = Image.open(path, formats=formats)
        except UnidentifiedImageError:
            wanted = " or ".join(formats) if formats else "a known format"
            with path.open("rb") as file:
                raise ImageError(f"not an image of {wanted}: begins with {file.read(24)!r}") from None
        with image:
            if formats is None and image.format not in PHOTO_FORMATS:
                raise ImageError(f"{image.format} is not read: wanted one of {', '.join(PHOTO_FORMATS)}")
            if max_pixels is not None and image.width * image.height > max_pixels:
                raise ImageError(f"has {image.width} x {image.height} pixels: wanted at most {max_pixels:,} pixels")
            yield image


@contextlib.contextmanager
def image_errors(name: object) -> Iterator[None]:
    """Turn every exception in the body into an `ImageError` that names the image."""
    try:
        with quiet():  # Pillow warns of odd metadata, and of large images at half the size that it refuses
            yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large to be a photo, perhaps a decompression bomb: {error}") from error
    except Exception as error:  # Pillow's plugins raise almost anything on malformed bytes
        raise ImageError(f"{name}: cannot be decoded: {explain(error) or error or type(error).__name__}") from error


def exif_orientation(image: Image.Image) -> int:
    """Return how an image must be turned to be upright: 1 (not at all) to 8, as in EXIF."""
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    return int(orientation) if orientation in range(1, 9) else 1


def load_indexed_png(path: str | Path, max_pixels: int | None = None) -> ClassMap:
    """Return the indices in a PNG as `load_indices` does, without the orientation."""
    return load_indices(path, max_pixels)[0]


def load_indices(path: str | Path, max_pixels: int | None = None) -> tuple[ClassMap, int]:
    """Return the indices in a paletted or greyscale PNG, uint8 or uint16 (H, W), as stored, and its `exif_orientation`.

    ImageError for colours and lossy formats, which hold no indices, and for grey of fewer bits, which Pillow scales.
    """
    with open_image(Path(path), ("PNG",), max_pixels) as image:
        packed = image.mode == "L" and any(tile.args != "L" for tile in getattr(image, "tile", ()))
        if image.mode not in {"P", "L", "I;16"} or packed:
            found = f"mode {image.mode}" + (" with less than 8 bits" if packed else "")
            raise ImageError(f"wanted a paletted PNG of indices, or one in 8 or 16 bits of grey, found {found}")
        indices = np.array(image)
        narrow = indices.dtype == np.uint16 and indices.max() < 256
        return indices.astype(np.uint8) if narrow else indices, exif_orientation(image)


def save_indexed_png(class_map: ClassMap, path: str | Path, labels: LabelSet = VOC) -> None:
    """Write a class map atomically as a PNG: uint8 (H, W) with a palette, uint16 (H, W) in 16 bits of grey.

    The palette has the colours of `labels`, white for its `ignore`, and those of VOC for other values.
    """
    if class_map.dtype not in (np.uint8, np.uint16) or class_map.ndim != 2 or class_map.size == 0:
        raise ImageError(f"class map of {class_map.dtype} {class_map.shape}: wanted uint8 or uint16 of shape (H, W)")
    image = Image.fromarray(class_map)
    if class_map.dtype == np.uint8:
        palette = voc_colormap(256)
        palette[: len(labels)] = labels.palette[:256]
        if labels.ignore is not None and labels.ignore < 256:
            palette[labels.ignore] = 255
        image.putpalette(palette.tobytes())  # changes mode L to P and keeps the indices
    save_png(image, path)


def save_png(image: Image.Image, path: str | Path) -> None:
    """Write an image atomically as a PNG; OutputError if that fails."""
    write_file(Path(path), png_bytes(image))


def png_bytes(image: Image.Image) -> bytes:
    """Return an image as the bytes of a PNG file."""
    data = io.BytesIO()
    image.save(data, format="PNG")
    return data.getvalue()
