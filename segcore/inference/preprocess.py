"""Preprocessing: a photo becomes the model's input, as its `InputSpec` says.

The default is the recipe of torchvision's tutorials, to the bit: shorter side to `size` (bilinear with antialias on
8-bit values), scale to [0, 1], normalise with the ImageNet mean and standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from segcore.core.errors import ImageError, UsageError
from segcore.core.lazy import Lazy
from segcore.core.model_spec import IMAGENET_MEAN as IMAGENET_MEAN  # for importers of this module
from segcore.core.model_spec import IMAGENET_STD as IMAGENET_STD
from segcore.core.model_spec import InputSpec
from segcore.core.system import available_memory
from segcore.inference.decode import RgbImage
from segcore.inference.geometry import Frame, frame_of
from segcore.inference.geometry import check_size as check_size  # for importers of this module
from segcore.inference.geometry import resized_shape as resized_shape
from segcore.inference.strips import in_strips, resized
from segcore.inputs.images import as_rgb_image, find_photos

Photo = str | Path | Image.Image | npt.NDArray[np.generic]

PREPROCESS = "shorter side bilinear antialias uint8, [0, 1], ImageNet mean and std"
"""Name of the convention; a change of the numbers that reach the model needs a new name."""
SMALLER = "choose a smaller size or crop it"
MAX_MODEL_PIXELS = 1 << 25
"""Limit per photo at model scale: for a strip of 1 x 10000 at 640, the logits alone would take gigabytes."""
MAX_ENLARGED_PIXELS = 1 << 24
"""Limit for photos that have fewer pixels themselves: strips, of which more pixels tell nothing more."""
LARGE_PIXELS = 1 << 22
"""Photos above this at model scale take long and much memory: eight times as many pixels as usual."""
BYTES_PER_PIXEL = 256
"""Memory of a large forward pass for each pixel at model scale, from below. `embedded` takes 130 at 1024 x 1024 and 360
at 32000 x 320, `lraspp_mobilenet_v3_large` 240 and the ResNets 570 at 1024 x 1024."""
CALIBRATION_PHOTOS = tuple(
    f"skimage:{name}"
    for name in ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "rocket.jpg")
)
"""Default calibration photos for int8: those of scikit-image that show objects."""
CALIBRATION_SIZES = (160, 224, 256)
"""Shorter sides of each calibration photo; a mirrored copy is added at the last but one. Several are better than one.
With 224, 320 and 448 `embedded` in int8 is no better, but takes 220 MB more: NNCF holds a photo's activations twice."""


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


class InputTransform:
    """What makes the model's input of a photo, as an `InputSpec` says.

    All arithmetic on values is a table of 256 entries for each channel.
    """

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self._tables = _tables(spec)
        if spec.resizer == "torchvision":
            import torchvision  # noqa: F401  # its import takes as long as torch's, and is not to count as a first call's
        self._order = (2, 1, 0) if spec.colour == "bgr" else tuple(range(spec.channels))

    def frame(self, height: int, width: int, size: int) -> Frame:
        """Return where a photo of (height, width) lies in the input; raise like `__call__`."""
        frame = frame_of(self.spec, height, width, size)
        rows, columns = frame.input
        limit = MAX_MODEL_PIXELS if rows * columns <= height * width else MAX_ENLARGED_PIXELS
        if rows * columns > limit:
            what = f"with its {self.spec.resize.kind} side at {size}" if self.spec.own_size is None else "as input"
            raise ImageError(
                f"a photo of {width}x{height} pixels would be {columns}x{rows} {what}: "
                f"over the limit of {limit} pixels; {SMALLER}"
            )
        return frame

    def __call__(self, photo: RgbImage | Image.Image, size: int) -> torch.Tensor:
        """Return the tensor for the model: uint8 RGB (H, W, 3), or such an image, to (C, h, w) of the spec's type.

        Its memory is laid out as the spec says: with ``nhwc``, ``tensor.permute(1, 2, 0)`` is contiguous.

        Raises:
            ImageError: the photo would not fit in memory at model scale.
            UsageError: the size is less than 1.
        """
        image = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
        frame = self.frame(image.height, image.width, size)
        if self.spec.colour == "grey":
            image = image.convert("L")
        pixels = self._resized(image, frame.content)
        pixels = self._padded(pixels, frame) if frame.padded else pixels
        return torch.from_numpy(self._planes(pixels))

    def _resized(self, image: Image.Image, shape: tuple[int, int]) -> RgbImage:
        """Return the image at (h, w), uint8 (h, w, C)."""
        height, width = shape
        spec = self.spec
        if spec.resizer == "torchvision":
            return _by_torchvision(np.asarray(image), shape, spec)
        if spec.antialias or spec.interpolation == "nearest":
            pixels = resized(image, (width, height), Image.Resampling[spec.interpolation.upper()])
        else:
            pixels = _without_antialias(np.asarray(image), shape, spec.interpolation)
        return pixels if pixels.ndim == 3 else pixels[:, :, None]

    def _padded(self, pixels: RgbImage, frame: Frame) -> RgbImage:
        fill = Image.new("RGB", (1, 1), self.spec.fill)
        color = np.asarray(fill.convert("L") if self.spec.colour == "grey" else fill).reshape(-1)
        padded = np.empty((*frame.input, pixels.shape[2]), dtype=np.uint8)
        padded[:] = color
        (height, width), top, left = frame.content, frame.top, frame.left
        padded[top : top + height, left : left + width] = pixels
        return padded

    def _planes(self, pixels: RgbImage) -> npt.NDArray[np.generic]:
        """Return the values (C, H, W) of 8-bit pixels (H, W, C)."""
        height, width, channels = pixels.shape
        tables = self._tables
        if self.spec.layout == "nhwc":
            planes = np.empty((height, width, channels), dtype=tables.dtype).transpose(2, 0, 1)
            for channel, source in enumerate(self._order):
                planes[channel] = tables[channel][pixels[:, :, source]]
            return planes
        planes = np.empty((channels, height, width), dtype=tables.dtype)

        def fill(top: int, bottom: int) -> None:
            for channel, source in enumerate(self._order):
                # All indices are below 256; "clip" lets numpy write to `out` without a copy.
                np.take(tables[channel], pixels[top:bottom, :, source], out=planes[channel, top:bottom], mode="clip")

        in_strips(fill, height, height * width)
        return planes


def _tables(spec: InputSpec) -> npt.NDArray[np.generic]:
    """Return the value of each 8-bit value by channel, (C, 256), with torchvision's arithmetic where that has it."""
    levels = torch.arange(256, dtype=torch.float32)
    if spec.dtype == "uint8":
        return np.tile(np.arange(256, dtype=np.uint8), (spec.channels, 1))
    scaled = levels.div(255) if spec.scale == 1 / 255 else levels.double().mul(spec.scale).float()
    mean, std = (torch.tensor(values, dtype=torch.float32).view(-1, 1) for values in (spec.mean, spec.std))
    return np.asarray(scaled.sub(mean).div(std).numpy().astype(spec.dtype))


def _by_torchvision(pixels: RgbImage, shape: tuple[int, int], spec: InputSpec) -> RgbImage:
    """Return 8-bit pixels (H, W) or (H, W, C) at (h, w), (h, w, C), as torchvision resizes tensors."""
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    planes = torch.from_numpy(np.array(pixels, ndmin=3).reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()
    mode = InterpolationMode[spec.interpolation.upper()]
    found = resize(planes, list(shape), interpolation=mode, antialias=spec.antialias)
    return np.asarray(found.permute(1, 2, 0).numpy())


def _without_antialias(pixels: RgbImage, shape: tuple[int, int], interpolation: str) -> RgbImage:
    """Return 8-bit pixels (H, W) or (H, W, C) at (h, w), interpolated between neighbours alone, and rounded."""
    planes = torch.from_numpy(np.array(pixels, ndmin=3).reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)[None].float()
    found = F.interpolate(planes, size=shape, mode=interpolation, align_corners=False)
    return np.asarray(found[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy())


_DEFAULT = InputTransform(InputSpec())


def preprocess(photo: RgbImage | Image.Image, size: int) -> torch.Tensor:
    """Return the input of torchvision's models for a photo, float32 (3, h, w), min(h, w) = size.

    Raises:
        ImageError: the photo is so elongated that it would not fit in memory at model scale.
        UsageError: the size is less than 1.
    """
    return _DEFAULT(photo, size)


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


def calibration_tensors(photos: Sequence[Photo], transform: InputTransform = _DEFAULT) -> Sequence[torch.Tensor]:
    """Return the inputs that int8 is calibrated on: each photo at several sizes and mirrored, (1, C, h, w).

    They are made when they are read: all of them together may not fit in memory.
    """
    sizes = CALIBRATION_SIZES if transform.spec.own_size is None else CALIBRATION_SIZES[-1:]

    def make(index: int) -> torch.Tensor:
        photo, variant = divmod(index, len(sizes) + 1)
        mirrored = variant == len(sizes)
        size = sizes[-min(2, len(sizes))] if mirrored else sizes[variant]
        tensor = transform(as_rgb_image(photos[photo]), size)[None]
        return tensor.flip(-1).contiguous() if mirrored else tensor

    return Lazy(len(photos) * (len(sizes) + 1), make)
