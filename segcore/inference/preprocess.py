"""Preprocessing: the recipe of torchvision's tutorials, to the bit.

Shorter side to `size` (bilinear with antialias on 8-bit values), scale to [0, 1], normalise with the ImageNet mean and
standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from segcore.core.errors import ImageError, UsageError
from segcore.core.system import available_memory
from segcore.inference.decode import RgbImage
from segcore.inputs.images import as_rgb_image, find_photos

Photo = str | Path | Image.Image | npt.NDArray[np.generic]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PREPROCESS = "shorter side bilinear antialias uint8, [0, 1], ImageNet mean and std"
"""Name of the convention; a change of the numbers that reach the model needs a new name."""
SMALLER = "choose a smaller size or crop it"
MAX_MODEL_PIXELS = 1 << 25
"""Limit per photo at model scale: for a strip of 1 x 10000 at 640, the logits alone would take gigabytes."""
LARGE_PIXELS = 1 << 22
"""Photos above this at model scale take long and much memory: eight times as many pixels as usual."""
BYTES_PER_PIXEL = 128
"""Least memory of a forward pass for each pixel at model scale: input, logits, classes, and a narrow network.
`embedded` takes 130 at 1024 x 1024, `lraspp_mobilenet_v3_large` 240, the ResNets 570."""
CALIBRATION_PHOTOS = tuple(
    f"skimage:{name}"
    for name in ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
)
"""Default calibration photos for int8: those of scikit-image that show objects."""
CALIBRATION_SIZES = (224, 320, 448)
"""Shorter sides of each calibration photo; a mirrored copy is added at the last but one. On six other photos `embedded`
in int8 then differs from fp32, where that was sure, in 1.7 % of the pixels; with 320 alone in 3.0 %, with 50 VOC photos
in 0.8 %."""


def check_size(size: int) -> int:
    """Return the shorter side at model scale if it is valid.

    Raises:
        UsageError: it is less than 1.
    """
    if size < 1:
        raise UsageError(f"size is the shorter side in pixels, at least 1; found {size}")
    return size


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Return (height, width) with the shorter side at `size`, the longer one truncated as torchvision does."""
    short, long = min(height, width), max(height, width)
    scaled = int(size * long / short)
    return (size, scaled) if height <= width else (scaled, size)


def check_memory(batch: tuple[int, ...]) -> None:
    """Raise ImageError if a large batch (B, 3, h, w) cannot fit into the memory that is left.

    The system may end a process without a word that uses more than there is.
    """
    count, _, height, width = batch
    needed = count * height * width * BYTES_PER_PIXEL
    if needed > LARGE_PIXELS * BYTES_PER_PIXEL and needed > (left := available_memory()):
        raise ImageError(
            f"{count} photo{'s' * (count > 1)} of {width}x{height} pixels at model scale: needs {needed / 1e9:.1f} GB "
            f"of memory or more, found {left / 1e9:.1f} GB; {SMALLER}"
        )


def _normalised() -> npt.NDArray[np.float32]:
    """Return the normalised value of each 8-bit value per channel, float32 (3, 256), with torchvision's arithmetic."""
    mean, std = (torch.tensor(values).view(3, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return np.asarray(torch.arange(256, dtype=torch.float32).div(255).sub(mean).div(std).numpy())


_NORMALISED = _normalised()


def preprocess(photo: RgbImage | Image.Image, size: int) -> torch.Tensor:
    """Return the tensor for the model: uint8 RGB (H, W, 3), or such an image, to float32 (3, h, w), min(h, w) = size.

    Raises:
        ImageError: the photo is so elongated that it would not fit in memory at model scale.
        UsageError: the size is less than 1.
    """
    image = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
    height, width = resized_shape(image.height, image.width, check_size(size))
    if height * width > MAX_MODEL_PIXELS:
        raise ImageError(
            f"a photo of {image.width}x{image.height} pixels would be {width}x{height} with its shorter side at "
            f"{size}: over the limit of {MAX_MODEL_PIXELS} pixels; {SMALLER}"
        )
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    planes = np.empty((3, height, width), dtype=np.float32)
    for channel, values in enumerate(_NORMALISED):
        # All indices are below 256; "clip" lets numpy write to `out` without a copy.
        np.take(values, pixels[:, :, channel], out=planes[channel], mode="clip")
    return torch.from_numpy(planes)


def calibration_photos(paths: Sequence[str], precisions: Sequence[str] = ("int8",)) -> tuple[Photo, ...]:
    """Return the photos at paths that a user named (`segcore.inputs.images.find_photos`), else `CALIBRATION_PHOTOS`.

    Raises:
        UsageError: paths are named, but none of the precisions is int8, the only one that is calibrated.
        ImageError: there is no photo at one of them.
    """
    if paths and "int8" not in precisions:
        raise UsageError(
            f"photos to calibrate on ({paths[0]}) are for precision int8 alone, found {', '.join(precisions)}"
        )
    return find_photos(paths) if paths else CALIBRATION_PHOTOS


def calibration_tensors(photos: Sequence[Photo]) -> list[torch.Tensor]:
    """Return the inputs that int8 is calibrated on: each photo at several sizes and mirrored, float32 (1, 3, h, w)."""
    tensors = []
    for image in map(as_rgb_image, photos):
        tensors += [preprocess(image, size)[None] for size in CALIBRATION_SIZES]
        tensors.append(tensors[-2].flip(-1).contiguous())
    return tensors
