"""Photos and masks as arrays: every file that Pillow can read becomes uint8 RGB, or one clear error.

Colours are those of ``PIL.Image.open(path).convert("RGB")``, which is what torchvision's recipes use: transparency is
dropped, not composited, and colour profiles are not applied. Two things differ, because the recipe gets them wrong:
the EXIF orientation is honoured, and greyscale of more than 8 bits is scaled, where ``convert`` clips it.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from segcore.core.errors import ImageError, nearest_hint
from segcore.core.files import write_file
from segcore.core.labels import IGNORE_INDEX, voc_colormap

T = TypeVar("T")

PHOTO_FORMATS = frozenset({"AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP"})
"""Pillow reads more, but some of them run other programs (EPS) or are no pictures of the world."""
RESOURCE_PREFIX = "skimage:"
RESOURCE_SUFFIXES = frozenset({".jpg", ".png"})


def load_image(source: str | Path) -> npt.NDArray[np.uint8]:
    """Return a photo as RGB, uint8, shape (H, W, 3), upright; the first frame or page where there are several.

    ``source`` is a path or the name of a package resource (``skimage:chelsea.png``). Greyscale of 16 bits is divided
    by 257; of 32 bits and floating point is taken as [0, 1] (float only), [0, 255] or [0, 65535], whichever is the
    smallest that holds all values, and else stretched from its minimum to its maximum.

    Raises:
        ImageError: the file is missing, empty, truncated, too large (a decompression bomb) or not a photo.
    """
    return np.array(as_rgb_image(source))


def as_rgb_array(image: str | Path | Image.Image | npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return a path, PIL image or uint8 array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as RGB (H, W, 3).

    A fourth channel is dropped; arrays and PIL images are taken as upright, unless the PIL image has an EXIF
    orientation. An array that is RGB already is returned as it is, not copied.

    Raises:
        ImageError: the array has another dtype or shape, or the file or image cannot be read.
    """
    if isinstance(image, (str, Path)):
        return load_image(image)
    if isinstance(image, Image.Image):
        return np.array(as_rgb_image(image))
    if not isinstance(image, np.ndarray):
        raise ImageError(f"wanted a path, PIL image or numpy array; found {type(image).__name__}")
    if image.dtype != np.uint8:
        hint = "; floats in [0, 1]: (image * 255).round().astype('uint8')" if image.dtype.kind == "f" else ""
        raise ImageError(f"array of dtype {image.dtype}: wanted uint8 with values from 0 to 255{hint}")
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)) or image.size == 0:
        hint = "; channels come last: image.transpose(1, 2, 0)" if image.ndim == 3 and image.shape[0] in (1, 3) else ""
        raise ImageError(f"array of shape {image.shape}: wanted (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}")
    planes = image[:, :, None] if image.ndim == 2 else image
    return np.ascontiguousarray(planes.repeat(3, axis=2) if planes.shape[2] == 1 else planes[:, :, :3])


def as_rgb_image(image: str | Path | Image.Image | npt.NDArray[Any]) -> Image.Image:
    """Return what `as_rgb_array` returns as a decoded PIL image of mode RGB, which a resize takes without a copy.

    Raises:
        ImageError: as `as_rgb_array`.
    """
    if not isinstance(image, (str, Path, Image.Image)):
        return Image.fromarray(as_rgb_array(image))
    if isinstance(image, Image.Image):
        with _one_error("PIL image"):
            return _rgb_image(image)
    if isinstance(image, str) and "://" in image:
        raise ImageError(f"{image}: is a URL, wanted a path; download it first with segcore.download_file")
    resource = isinstance(image, str) and image.startswith(RESOURCE_PREFIX)
    return _decode(resource_path(str(image)) if resource else Path(image), _rgb_image)


def load_mask(path: str | Path) -> npt.NDArray[np.uint8]:
    """Return the class indices of a paletted or 8-bit greyscale PNG, uint8, shape (H, W).

    Raises:
        ImageError: the file cannot be read, or is no such PNG: colours, lossy formats and packed greyscale, whose
            values Pillow scales, do not hold class indices.
    """
    return _decode(Path(path), _class_indices)


def save_indexed_png(class_map: npt.NDArray[np.uint8], path: str | Path) -> None:
    """Write class indices, uint8 (H, W), as a paletted PNG with the VOC colours, and white for 255; atomically.

    Raises:
        ImageError: ``class_map`` has another dtype or shape.
        OutputError: the file cannot be written.
    """
    if class_map.dtype != np.uint8 or class_map.ndim != 2 or class_map.size == 0:
        raise ImageError(f"class map of {class_map.dtype} {class_map.shape}: wanted uint8 of shape (H, W)")
    palette = voc_colormap(256)
    palette[IGNORE_INDEX] = 255
    picture = Image.fromarray(class_map)
    picture.putpalette(palette.tobytes())  # turns mode L into P and keeps the indices
    data = io.BytesIO()
    picture.save(data, format="PNG")
    write_file(Path(path), data.getvalue())


def find_photos(places: Iterable[str]) -> tuple[str, ...]:
    """Return the photos at places that a user named: in the order given, those of one place by name, each once.

    Args:
        places: files, package resources (``skimage:chelsea.png``), directories, of which the photos directly inside
            count, and patterns (``photos/**/*.jpg``).

    Raises:
        ImageError: there is nothing at one of the places, or no photo in it.
    """
    return tuple(dict.fromkeys(photo for place in places for photo in _photos_at(place)))


def _photos_at(place: str) -> list[str]:
    path = Path(place)
    if place.startswith(RESOURCE_PREFIX):
        return [str(resource_path(place))]
    if path.is_file():
        return [place]
    suffixes = {suffix for suffix, name in Image.registered_extensions().items() if name in PHOTO_FORMATS}
    inside = path.iterdir() if path.is_dir() else map(Path, glob.glob(place, recursive=True))  # noqa: PTH207
    found = sorted(str(file) for file in inside if file.suffix.lower() in suffixes and file.is_file())
    if not found:
        why = "no photo in it" if path.is_dir() else "there is no such file, directory or photo that fits the pattern"
        raise ImageError(f"{place}: {why}; formats: {', '.join(sorted(PHOTO_FORMATS))}")
    return found


def resource_path(name: str) -> Path:
    """Return the path of a photo that an installed package ships: ``skimage:NAME``, from scikit-image's data folder.

    Raises:
        ImageError: there is no such photo; the message lists those there are.
    """
    package, _, file = name.partition(":")
    if package + ":" != RESOURCE_PREFIX:
        raise ImageError(f"{name!r} is not a package resource: wanted {RESOURCE_PREFIX}NAME")
    spec = importlib.util.find_spec("skimage")  # not imported: its loaders would fetch what is not bundled
    if spec is None or spec.origin is None:
        raise ImageError(f"{name!r}: scikit-image is not installed; pip install scikit-image")
    found = {path.name: path for path in (Path(spec.origin).parent / "data").iterdir()}
    photos = {name: path for name, path in sorted(found.items()) if path.suffix in RESOURCE_SUFFIXES}
    if file not in photos:
        hint = nearest_hint(file, photos)
        raise ImageError(f"{name!r}: scikit-image has no such photo{hint}; it has {', '.join(photos)}")
    return photos[file]


def _rgb_image(image: Image.Image) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"has no pixels (size {image.width} x {image.height})")
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:
        image = ImageOps.exif_transpose(image)  # copies even what is upright
    if image.mode.startswith("I;16"):
        image = Image.fromarray(((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8))
    elif image.mode in {"I", "F"}:
        image = Image.fromarray(_scaled(np.asarray(image).astype(np.float64), image.mode == "F"))
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")


def _scaled(values: npt.NDArray[np.float64], fractional: bool) -> npt.NDArray[np.uint8]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ImageError("has values that are not finite")
    tops = (1.0, 255.0, 65535.0) if fractional else (255.0, 65535.0)
    top = next((top for top in tops if low >= 0 and high <= top), None)
    if top is not None:
        low, high = 0.0, top
    return ((values - low) * (255 / max(high - low, np.finfo(float).tiny))).round().astype(np.uint8)


def _class_indices(image: Image.Image) -> npt.NDArray[np.uint8]:
    # A greyscale PNG of 1, 2 or 4 bits is unpacked with its values spread over 0 to 255: no longer indices.
    packed = image.mode == "L" and any(tile.args != "L" for tile in getattr(image, "tile", ()))
    if image.format != "PNG" or image.mode not in {"P", "L"} or packed:
        found = f"{image.format} of mode {image.mode}" + (" with less than 8 bits" if packed else "")
        raise ImageError(f"not a class mask: wanted a paletted or 8-bit greyscale PNG of class indices, found {found}")
    return np.array(image)


def _decode(path: Path, convert: Callable[[Image.Image], T]) -> T:
    with _one_error(path):
        if not path.exists():
            raise ImageError("there is no such file")
        if not path.is_file():
            raise ImageError(f"is {'a directory' if path.is_dir() else 'not a regular file'}: wanted an image file")
        if path.stat().st_size == 0:
            raise ImageError("is empty (0 bytes)")
        try:
            image = Image.open(path)
        except UnidentifiedImageError:
            with path.open("rb") as file:
                raise ImageError(f"not an image of a known format: begins with {file.read(24)!r}") from None
        with image:
            if image.format not in PHOTO_FORMATS:
                raise ImageError(f"{image.format} is not read: wanted one of {', '.join(sorted(PHOTO_FORMATS))}")
            return convert(image)


@contextlib.contextmanager
def _one_error(name: object) -> Iterator[None]:
    """Turn whatever a bad image makes Pillow raise into one ImageError that names the image."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of odd metadata and, at half the size that it refuses, of bombs: neither spoils the pixels.
            warnings.simplefilter("ignore")
            yield
    except ImageError as error:
        raise ImageError(f"{name}: {error}") from error.__cause__
    except Image.DecompressionBombError as error:
        raise ImageError(f"{name}: too large to be a photo, perhaps a decompression bomb: {error}") from error
    except Exception as error:  # Pillow's plugins let anything through that a parser of broken bytes can stumble over
        raise ImageError(f"{name}: cannot be decoded: {error or type(error).__name__}") from error
