"""The pipeline: photo in, class map out, with the time of each stage.

Preprocessing is the recipe of torchvision's tutorials, to the bit: shorter side to `size` (bilinear with antialias on
8-bit values), scale to [0, 1], normalise with the ImageNet mean and standard deviation.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from segcore.core.errors import DeviceError, ImageError, UsageError
from segcore.core.labels import NUM_CLASSES, VOC_CLASSES
from segcore.core.records import WeightsRecord
from segcore.inference import models
from segcore.inference.decode import (
    ClassMap,
    RgbImage,
    blend,
    enlarge,
    enlarged_classes,
    margin_map,
    palette_lookup,
    upsample_class_map,
)
from segcore.inference.devices import Device, TorchDevice, open_device
from segcore.inference.models.checkpoint import state_sha256
from segcore.inference.runtimes import Profilable, ProfiledSession, Session, open_session
from segcore.inputs.download import FetchSettings
from segcore.inputs.images import as_rgb_image, find_photos

Photo = str | Path | Image.Image | npt.NDArray[np.generic]

STAGES = ("decode", "preprocess", "transfer", "forward", "postprocess", "colorize")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
PREPROCESS = "shorter side bilinear antialias uint8, [0, 1], ImageNet mean and std"
"""Name of the convention; it changes whenever the numbers that reach the model would."""
CALIBRATION_PHOTOS = tuple(
    f"skimage:{name}"
    for name in (
        "astronaut.png",
        "camera.png",
        "chelsea.png",
        "coffee.png",
        "motorcycle_left.png",
        "rocket.jpg",
    )
)
"""Photos that int8 is calibrated on where the user names none: those of scikit-image that show things."""
CALIBRATION_SIZES = (224, 320, 448)
"""Shorter sides at which each of them is seen, and mirrored at one. On six other photos `embedded` in int8 then
differs from fp32, where that was sure, in 1.7 % of the pixels; with 320 alone in 3.0, with 50 VOC photos in 0.8 %."""
MAX_BATCH = 8
"""Photos of a list that are held as tensors and logits at one time."""
MAX_MODEL_PIXELS = 1 << 25
"""Of one photo at model scale: beyond this (a strip of 1 x 10000 at 640, say) logits alone would take gigabytes."""


def resized_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Return (height, width) with the shorter side at `size`, the longer one truncated as torchvision does."""
    short, long = min(height, width), max(height, width)
    scaled = int(size * long / short)
    return (size, scaled) if height <= width else (scaled, size)


def _normalised() -> npt.NDArray[np.float32]:
    """What each of the 256 values of a channel becomes, float32 (3, 256), with the arithmetic of torchvision."""
    mean, std = (torch.tensor(values).view(3, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return np.asarray(torch.arange(256, dtype=torch.float32).div(255).sub(mean).div(std).numpy())


_NORMALISED = _normalised()


def preprocess(photo: RgbImage | Image.Image, size: int) -> torch.Tensor:
    """Return the tensor for the model: uint8 RGB (H, W, 3), or such an image, to float32 (3, h, w), min(h, w) = size.

    Raises:
        ImageError: the photo is so elongated that it would not fit in memory at model scale.
    """
    image = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
    height, width = resized_shape(image.height, image.width, size)
    if height * width > MAX_MODEL_PIXELS:
        raise ImageError(
            f"a photo of {image.width}x{image.height} pixels would be {width}x{height} with its shorter side at "
            f"{size}: over the limit of {MAX_MODEL_PIXELS} pixels; choose a smaller size or crop it"
        )
    pixels = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
    planes = np.empty((3, height, width), dtype=np.float32)
    for channel, values in enumerate(_NORMALISED):
        # All indices are below 256; "clip" lets numpy write to `out` without a copy.
        np.take(values, pixels[:, :, channel], out=planes[channel], mode="clip")
    return torch.from_numpy(planes)


def calibration_photos(places: Sequence[str], precisions: Sequence[str] = ("int8",)) -> tuple[Photo, ...]:
    """Return the photos at places that a user named (`segcore.inputs.images.find_photos`), else `CALIBRATION_PHOTOS`.

    Raises:
        UsageError: places are named, but none of the precisions is int8, which alone is calibrated.
        ImageError: there is no photo at one of them.
    """
    if places and "int8" not in precisions:
        raise UsageError(
            f"photos to calibrate on ({places[0]}) are for precision int8 alone, found {', '.join(precisions)}"
        )
    return find_photos(places) if places else CALIBRATION_PHOTOS


def calibration_tensors(photos: Sequence[Photo]) -> list[torch.Tensor]:
    """Return what int8 takes its ranges from: each photo at several sizes and mirrored, float32 (1, 3, h, w)."""
    tensors = []
    for image in map(as_rgb_image, photos):
        tensors += [preprocess(image, size)[None] for size in CALIBRATION_SIZES]
        tensors.append(tensors[-2].flip(-1).contiguous())
    return tensors


class StageTimer:
    """Seconds per stage, the device waited for on both sides of every stage."""

    def __init__(self, device: Device, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._clock = clock

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body and add it to the stage's total."""
        self._device.synchronize()
        start = self._clock()
        yield
        self._device.synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + (self._clock() - start) / 1e9


@dataclass(frozen=True, eq=False)
class SegmentationResult:
    """What a model saw in one photo."""

    source: RgbImage | Image.Image = field(repr=False)
    """The photo as it was read: uint8 RGB (H, W, 3), or an image of mode RGB."""
    model_class_map: ClassMap = field(repr=False)
    """Classes at model scale, uint8 (h, w)."""
    model_color_mask: RgbImage = field(repr=False)
    """VOC colours at model scale, uint8 RGB (h, w, 3): the mask of the tutorial recipe."""
    timings: dict[str, float]
    """Seconds per stage; an equal share of the batch where photos ran together."""
    input_shape: tuple[int, int, int, int]
    """(B, 3, h, w) of the batch that the photo was in."""
    margins: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """Top-1 minus top-2 logit at model scale, float32 (h, w), where it was asked for."""
    _logits: list[torch.Tensor] = field(default_factory=list, repr=False)
    # At the network's own scale. Emptied by class_map: most callers of a batch want only the map.

    @cached_property
    def photo(self) -> RgbImage:
        """The photo as it was read, uint8 RGB (H, W, 3)."""
        return np.array(self.source)

    @cached_property
    def class_map(self) -> ClassMap:
        """Classes at the photo's own resolution, uint8 (H, W): logits interpolated bilinearly, then argmax."""
        height, width = self.photo.shape[:2]
        full = enlarge(self._logits.pop()[None], *self.model_class_map.shape)[0]
        return upsample_class_map(full, height, width)

    @cached_property
    def fractions(self) -> dict[str, float]:
        """Share of the photo's pixels per class found, largest first; they sum to 1."""
        counts = np.bincount(self.class_map.ravel(), minlength=NUM_CLASSES)
        order = sorted(np.flatnonzero(counts), key=lambda index: (-counts[index], index))
        return {VOC_CLASSES[index]: float(counts[index] / self.class_map.size) for index in order}

    @property
    def dominant(self) -> str:
        """The class with most pixels other than background; ``background`` where there is no other."""
        return next((name for name in self.fractions if name != VOC_CLASSES[0]), VOC_CLASSES[0])

    def colorize(self) -> RgbImage:
        """Return the VOC colours at the photo's own resolution, uint8 RGB (H, W, 3)."""
        return palette_lookup(self.class_map)

    def overlay(self, alpha: float = 0.5) -> RgbImage:
        """Return the photo with its classes painted over it, uint8 RGB (H, W, 3); alpha is their opacity."""
        return blend(self.photo, self.class_map, alpha)


class Segmenter:
    """A model that stays loaded: call it with a photo, or with a list of them.

    Args:
        model: a name of `segcore.inference.models.model_names`, or any network that maps (B, 3, H, W) to logits
            (B, 21, H, W).
        device: ``auto`` (CUDA, else MPS, else CPU), ``cuda``, ``cuda:1``, ``mps``, ``cpu``, or a `Device`.
        size: shorter side at model scale, pixels.
        weights: ``pretrained``, ``random`` (seeded; for latency only) or the path of a checkpoint.
        runtime: how the model is executed.
        precision: of the arithmetic: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        calibration: photos that int8 takes its ranges from.
        settings: cache, mirrors and time-outs of downloads; from the environment when None.

    Raises:
        ModelError, DeviceError, DownloadError, UsageError: each says what to do about it.
    """

    def __init__(
        self,
        model: str | nn.Module = "fcn_resnet101",
        *,
        device: str | torch.device | Device = "auto",
        size: int = 640,
        weights: str | Path = "pretrained",
        runtime: str = "torch",
        precision: str = "fp32",
        calibration: Sequence[Photo] = CALIBRATION_PHOTOS,
        settings: FetchSettings | None = None,
    ) -> None:
        if size < 1:
            raise UsageError(f"size is the shorter side in pixels, at least 1; found {size}")
        self.device: Device = open_device(device) if isinstance(device, str | torch.device) else device
        self.size = size
        self.runtime = runtime
        self.precision = precision
        if isinstance(model, str):
            loaded = models.load(model, weights, settings)
            self.model_name, self.model = loaded.name, loaded.module
            self.weights = loaded.weights  # takes the place of the cached property
        else:
            self.model_name, self.model = type(model).__name__, model
        self._calibrated: dict[str, str] = {}
        self._session: Session = open_session(
            runtime,
            self.model,
            self.device,
            precision,
            settings=settings,
            calibration=lambda: self._calibrate(calibration),
        )

    def _calibrate(self, photos: Sequence[Photo]) -> list[torch.Tensor]:
        """Return what int8 takes its ranges from, and remember which photos they were unless they are the default."""
        tensors = calibration_tensors(photos)
        if photos is not CALIBRATION_PHOTOS:
            digest = hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()
            self._calibrated = {"calibration": f"{len(photos)} photos, sha256 {digest[:12]}"}
        return tensors

    @cached_property
    def weights(self) -> WeightsRecord:
        """Which weights ran; of a network that came without a name, its state is hashed when first asked for."""
        return WeightsRecord(kind="checkpoint", name="in memory", sha256=state_sha256(self.model))

    @property
    def runtime_options(self) -> dict[str, str]:
        """Settings of the runtime, as they are recorded."""
        return {**self._session.options, **self._calibrated}

    @property
    def build_seconds(self) -> float:
        """What exporting, quantising and compiling have taken so far; 0.0 where all of it was in the cache."""
        return self._session.build_s

    @contextmanager
    def profiled(self) -> Iterator[ProfiledSession]:
        """Run every forward pass under the runtime's profiler, which this yields, while the body lasts.

        Raises:
            DeviceError: the runtime has none.
        """
        plain = self._session
        if not isinstance(plain, Profilable):
            raise DeviceError(f"runtime {self.runtime} has no profiler of its own")
        self._session = session = plain.profiled()
        try:
            yield session
        finally:
            self._session = plain

    def prepare(self, photo: RgbImage | Image.Image) -> torch.Tensor:
        """Return what the model sees of a photo: uint8 RGB (H, W, 3) to float32 (3, h, w) with min(h, w) = size."""
        return preprocess(photo, self.size)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, h, w), finished, on the device, for a batch (B, 3, h, w) from anywhere."""
        logits = enlarge(self._session.forward(self.device.put(batch)), *batch.shape[-2:])
        self.device.synchronize()
        return logits

    @overload
    def __call__(self, image: Photo) -> SegmentationResult: ...  # type: ignore[overload-overlap]  # str is a Sequence
    @overload
    def __call__(self, image: Sequence[Photo]) -> list[SegmentationResult]: ...
    def __call__(self, image: Photo | Sequence[Photo]) -> SegmentationResult | list[SegmentationResult]:
        """Segment a photo (path, PIL image or uint8 array), or a list of them, those of one shape together.

        Raises:
            ImageError: a photo cannot be read.
        """
        if isinstance(image, str | Path | Image.Image | np.ndarray):
            return self.run([image])[0]
        results = []
        for start in range(0, len(image), MAX_BATCH):
            for result in self.run(image[start : start + MAX_BATCH]):
                _ = result.class_map  # lets go of the logits
                results.append(result)
        return results

    def run(
        self, photos: Sequence[Photo], timer: StageTimer | None = None, *, margins: bool = False
    ) -> list[SegmentationResult]:
        """Segment photos, those of one shape at model scale as one batch, and time the stages.

        Args:
            photos: at least one path, PIL image or uint8 array.
            timer: collects the seconds of each stage over all photos; one of its own when None.
            margins: also keep the logit margins.
        """
        timer = timer or StageTimer(self.device)
        with timer.stage("decode"):
            images = [as_rgb_image(photo) for photo in photos]
        with timer.stage("preprocess"):
            tensors = [preprocess(image, self.size) for image in images]
        groups: dict[torch.Size, list[int]] = {}
        for index, tensor in enumerate(tensors):
            groups.setdefault(tensor.shape, []).append(index)
        found: dict[int, tuple[torch.Tensor, ClassMap, RgbImage, tuple[int, int, int, int]]] = {}
        for indices in groups.values():
            batch = torch.stack([tensors[i] for i in indices]) if len(indices) > 1 else tensors[indices[0]][None]
            logits, classes, colors = self._run_batch(batch, timer)
            for row, index in enumerate(indices):
                shape = (len(indices), 3, *tensors[index].shape[-2:])
                found[index] = (logits[row], classes[row], colors[row], shape)
        shares = {name: seconds / len(photos) for name, seconds in timer.seconds.items()}
        return [
            SegmentationResult(
                images[i],
                classes,
                colors,
                shares,
                shape,
                margin_map(enlarge(logits[None], *shape[-2:])[0]) if margins else None,
                [logits],
            )
            for i, (logits, classes, colors, shape) in sorted(found.items())
        ]

    def _run_batch(self, batch: torch.Tensor, timer: StageTimer) -> tuple[torch.Tensor, list[ClassMap], list[RgbImage]]:
        with timer.stage("transfer"):
            batch = self.device.put(batch)
        with timer.stage("forward"):
            logits = self._session.forward(batch)
        with timer.stage("postprocess"):
            classes = list(enlarged_classes(logits, *batch.shape[-2:]).cpu().numpy())
        with timer.stage("colorize"):
            colors = [palette_lookup(class_map) for class_map in classes]
        return logits, classes, colors


def segment_image(model: Segmenter | nn.Module, image_path: Photo, size: int = 640) -> RgbImage:
    """Return the recipe's colour mask at model scale, uint8 RGB (h, w, 3).

    Args:
        model: a `Segmenter`, whose own size is used, or any network, which runs where its parameters are.
        image_path: path, PIL image or uint8 array.
        size: shorter side at model scale, for a plain network.
    """
    if not isinstance(model, Segmenter):
        parameter = next(model.parameters(), None)
        device = TorchDevice(str(parameter.device) if parameter is not None else "cpu")
        model = Segmenter(model, device=device, size=size)
    return model.run([image_path])[0].model_color_mask
