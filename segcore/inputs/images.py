"""Load photos as uint8 RGB arrays from every file that Pillow can read.

Colours are those of ``PIL.Image.open(path).convert("RGB")``: transparency is dropped, colour profiles are ignored. Two
things differ: the EXIF orientation is applied, and greyscale of more than 8 bits is scaled, where ``convert`` clips it.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from segcore.core.errors import DatasetError, ImageError, NotInstalledError, nearest_hint
from segcore.core.image_files import PHOTO_FORMATS, exif_orientation, image_errors, load_indices, open_image
from segcore.core.labels import ClassMap

Pixels = npt.NDArray[np.uint8]
Pair = tuple[Pixels, ClassMap]
"""Photo, uint8 RGB (H, W, 3), and class mask (H, W): indices of a label set, and its `ignore` where none is scored."""

MaskReader = Callable[[Path], tuple[ClassMap, int]]
"""Returns the class indices in a file, (H, W), as stored, and its EXIF orientation; can be pickled."""

_Array = TypeVar("_Array", bound=npt.NDArray[Any])

OWN_PHOTOS = Path(__file__).parent / "photos"
RESOURCE_PREFIXES = ("segcore:", "skimage:")
RESOURCE_SUFFIXES = (".jpg", ".png")


def as_rgb_array(image: str | Path | Image.Image | npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return a photo as RGB, uint8, shape (H, W, 3), upright; the first frame or page if there are several.

    ``image`` is a path, the name of a package resource (``segcore:chelsea.png``), a PIL image or a uint8 array of shape
    (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). A fourth channel is dropped; an RGB array is not copied. Greyscale of 16
    bits is divided by 257; of 32 bits and floating point is taken as [0, 1] (float only), [0, 255] or [0, 65535],
    whichever is the smallest that holds all values, and otherwise stretched from its minimum to its maximum.

    Raises:
        ImageError: the file is missing, empty, truncated, too large (a decompression bomb) or not a photo; the array
            has another dtype or shape.
        NotInstalledError: the package that contains the resource is not installed.
    """
    if isinstance(image, (str, Path, Image.Image)):
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
    """Return what `as_rgb_array` returns as a decoded PIL image of mode RGB, which can be resized without a copy."""
    if isinstance(image, Image.Image):
        with image_errors("PIL image"):
            return _rgb_image(image)
    if not isinstance(image, (str, Path)):
        return Image.fromarray(as_rgb_array(image))
    if isinstance(image, str) and "://" in image:
        raise ImageError(f"{image}: is a URL, wanted a path; download it first with segcore.download_file")
    is_resource = isinstance(image, str) and image.startswith(RESOURCE_PREFIXES)
    with open_image(resource_path(str(image)) if is_resource else Path(image)) as file:
        return _rgb_image(file)


def load_pair(photo: Path, mask: Path, upright: bool = False, read_mask: MaskReader = load_indices) -> Pair:
    """Return a photo and its class mask, so that they lie on each other; `upright` turns both upright in any case.

    If EXIF turns the photo by 90 degrees, the size of the mask says whether it lies on the photo as stored or upright.

    Raises:
        ImageError: one of the files cannot be read.
        DatasetError: photo and mask differ in size, or the mask has the size of the photo both as stored and upright.
    """
    pixels, orientation = load_stored(photo)
    labels, own = read_mask(mask)
    if own != 1:
        pixels, labels, orientation = turned(pixels, orientation), turned(labels, own), 1
    if lies_upright(mask, pixels, orientation, labels.shape):
        return turned(pixels, orientation), labels
    if orientation != 1 and turned(labels, orientation).shape == labels.shape:
        raise DatasetError(
            f"{mask}: was drawn on {photo.name} as stored or upright, which the size does not tell; turn the photo as "
            f"the mask needs it, and save it without its EXIF orientation, {orientation}"
        )
    return (turned(pixels, orientation), turned(labels, orientation)) if upright else (pixels, labels)


def lies_upright(labels: object, photo: Pixels, orientation: int, size: tuple[int, ...]) -> bool:
    """Return whether labels of a size (height, width) lie on the photo turned upright, rather than on it as stored.

    They lie on it as stored unless only the upright photo has their size; DatasetError if neither has.
    """
    stored = photo.shape[:2]
    sizes = (stored, stored[::-1]) if orientation >= _SIDEWAYS else (stored,)
    if size not in sizes:
        found = " as stored or ".join(f"{width}x{height}" for height, width in sizes)
        turn = f" turned by EXIF orientation {orientation}" if len(sizes) > 1 else ""
        raise DatasetError(
            f"{labels}: the photo is {found} pixels{turn}, its mask {size[1]!s:.9}x{size[0]!s:.9}: "
            "they must be of one size"
        )
    return size != stored


def load_stored(photo: Path) -> tuple[Pixels, int]:
    """Return a photo as `as_rgb_array` does, but as stored, not upright; and its EXIF orientation."""
    with open_image(photo) as image:
        orientation = exif_orientation(image)
        pixels = np.array(_rgb_image(image, upright=False))
        if image.format == "TIFF":  # which Pillow turns upright while it decodes
            pixels = turned(pixels, {6: 8, 8: 6}.get(orientation, orientation))
    return pixels, orientation


_SIDEWAYS = 5
"""The first of the EXIF orientations that exchange height and width."""


def turned(pixels: _Array, orientation: int) -> _Array:
    """Return stored pixels, (H, W) or (H, W, 3), turned upright according to their EXIF orientation."""
    if orientation >= _SIDEWAYS:
        pixels = pixels.swapaxes(0, 1)
    rows, columns = (-1 if orientation in flipped else 1 for flipped in ((3, 4, 7, 8), (2, 3, 6, 7)))
    return np.ascontiguousarray(pixels[::rows, ::columns])  # type: ignore[return-value]  # of the same type


def find_photos(locations: Iterable[str]) -> tuple[str, ...]:
    """Return the photos at locations, in that order, by name within each, each once; ImageError if one has none.

    Locations are files, package resources (``segcore:chelsea.png``), directories (for the photos directly inside) and
    glob patterns (``photos/**/*.jpg``).
    """
    return tuple(dict.fromkeys(photo for location in locations for photo in _photos_at(location)))


def _photos_at(location: str) -> list[str]:
    path = Path(location)
    if location.startswith(RESOURCE_PREFIXES):
        return [str(resource_path(location))]
    if os.path.isfile(location):  # noqa: PTH113 - Path.is_file() raises if the name is too long
        return [location]
    is_directory = os.path.isdir(location)  # noqa: PTH112
    inside = path.iterdir() if is_directory else map(Path, glob.glob(location, recursive=True))  # noqa: PTH207
    found = sorted(str(file) for file in inside if is_photo(file))
    if not found:
        why = "no photo in it" if is_directory else "there is no such file, directory or photo that fits the pattern"
        raise ImageError(f"{location}: {why}; formats: {', '.join(PHOTO_FORMATS)}")
    return found


def is_photo(file: Path) -> bool:
    """Return whether a file in a directory is taken for a photo: by its ending, and because it is not hidden."""
    return file.suffix.lower() in _photo_suffixes() and not file.name.startswith(".") and file.is_file()


@cache
def _photo_suffixes() -> frozenset[str]:
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in PHOTO_FORMATS)


def resource_path(name: str) -> Path:
    """Return the path of ``segcore:NAME``, one of segcore's photos, or ``skimage:NAME``, one of scikit-image's.

    Raises:
        NotInstalledError: scikit-image is not installed.
        ImageError: there is no such photo; the message lists the available ones.
    """
    package, _, file = name.partition(":")
    if package + ":" not in RESOURCE_PREFIXES:
        raise ImageError(f"{name!r} is not a package resource: wanted {' or '.join(RESOURCE_PREFIXES)} and its name")
    directory = OWN_PHOTOS
    if package == "skimage":
        spec = find_spec("skimage")  # not imported: its loaders download what is not bundled
        if spec is None or spec.origin is None:
            raise NotInstalledError(f"{name!r}: scikit-image is not installed; pip install 'segcore[photos]'")
        directory = Path(spec.origin).parent / "data"
    photos = {path.name: path for path in sorted(directory.iterdir()) if path.suffix in RESOURCE_SUFFIXES}
    if file not in photos:
        hint = nearest_hint(file, photos)
        raise ImageError(f"{name!r}: {package} has no such photo{hint}; it has {', '.join(photos)}")
    return photos[file]


def _rgb_image(image: Image.Image, upright: bool = True) -> Image.Image:
    if 0 in image.size:
        raise ImageError(f"has no pixels (size {image.width} x {image.height})")
    if upright and exif_orientation(image) != 1:
        image = ImageOps.exif_transpose(image)  # would copy an upright image
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
