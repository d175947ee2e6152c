"""The pipeline: photo in, class map out, with the time of each stage."""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from traceback import clear_frames
from typing import NoReturn, SupportsIndex, overload

import numpy as np
import torch
from PIL import Image
from torch import nn

from segcore.core.errors import DeviceError, ImageError
from segcore.core.labels import VOC, ClassMap, LabelSet, label_set
from segcore.core.model_spec import ModelSpec, own_runtime, own_side
from segcore.core.record_int8 import Int8Record
from segcore.core.records import WeightsRecord
from segcore.core.system import out_of_memory
from segcore.inference import models
from segcore.inference.decode import RgbImage, enlarge, enlarged_classes, margin_map, palette_lookup
from segcore.inference.devices import Device, open_device
from segcore.inference.geometry import Frame, check_size, frame_of
from segcore.inference.models import IN_MEMORY, LoadedModel
from segcore.inference.models.checkpoint import state_sha256
from segcore.inference.outputs import has_scores, read_output
from segcore.inference.preprocess import (
    CALIBRATION_PHOTOS,
    SMALLER,
    InputTransform,
    Photo,
    calibration_tensors,
    check_memory,
)
from segcore.inference.result import Placement
from segcore.inference.result import SegmentationResult as SegmentationResult  # for importers of this module
from segcore.inference.runtimes import int8_source, open_session
from segcore.inference.runtimes.int8 import Int8Source, int8_record
from segcore.inference.runtimes.program import ProgramSession
from segcore.inference.runtimes.session import Adaptive, Example, FileSession, Profilable, ProfiledSession
from segcore.inference.runtimes.upsampling import ends_in_upsampling
from segcore.inference.strips import of_each
from segcore.inputs.download import FetchSettings
from segcore.inputs.images import as_rgb_image

MAX_BATCH = 8
"""Photos of a list that are held as tensors and logits at one time."""
MOST_SETTLING_CALLS = 5
"""Calls on more shapes than a runtime compiles for never settle."""


class StageTimer:
    """Seconds per stage; the device is synchronised on both sides of every stage."""

    def __init__(self, device: Device, clock: Callable[[], int] = time.perf_counter_ns) -> None:
        self.seconds: dict[str, float] = {}
        self._device = device
        self._clock = clock
        self._last = 0.0

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the body and add it to the stage's total."""
        self._device.synchronize()
        start = self._clock()
        yield
        self._device.synchronize()
        self._last = (self._clock() - start) / 1e9
        self.seconds[name] = self.seconds.get(name, 0.0) + self._last

    def move(self, source: str, target: str, keep: float) -> None:
        """Count the seconds of the last stage, `source`, as another one's, but for those that it keeps."""
        rest = max(0.0, self._last - keep)
        self.seconds[source] -= rest
        self.seconds[target] = self.seconds.get(target, 0.0) + rest


class Segmenter:
    """A loaded model: call it with a photo, or with a list of them.

    A network that is passed in is never changed: the segmenter runs a copy in evaluation mode, which shares the
    parameters where device, precision and memory layout allow. Make a new segmenter after training it further.

    Threads may share a segmenter: decoding and colouring run beside each other, and so do networks in torch and
    onnxruntime; those in other runtimes take turns. While a network is exported, compiled or built, others wait.
    Processes cannot share one: it can neither be pickled nor deep-copied, but its results can.

    Args:
        model: a name of `segcore.inference.models.model_names`, the path of a model file or of a model that describes
            itself, what a model file says, a model that is loaded, or any network that maps (B, 3, H, W) to logits
            (B, classes, H, W).
        device: ``auto`` (CUDA, else MPS, else CPU), ``cuda``, ``cuda:1``, ``mps``, ``cpu``, or a `Device`.
        size: shorter side at model scale, pixels, of runs that name no other; ignored by a model of one size.
        weights: ``pretrained`` (of a model file: its own), ``random`` (seeded; for latency only) or the path of a
            checkpoint.
        runtime: a name of `segcore.inference.runtimes.RUNTIMES`; if None, that of the model's file, and torch for
            everything else.
        precision: of the arithmetic: ``fp32``, ``bf16``, ``fp16`` or ``int8``.
        calibration: photos that int8 takes its ranges from.
        settings: cache, mirrors and time-outs of downloads; from the environment if None.
        labels: the classes, or a name of `segcore.core.labels.LABEL_SETS`. If None, those of the model, and VOC for a
            network that is passed in.

    Raises:
        ModelError, DeviceError, DownloadError, UsageError: each says what to do about it.
    """

    def __init__(
        self,
        model: str | ModelSpec | LoadedModel | nn.Module = "fcn_resnet101",
        *,
        device: str | torch.device | Device = "auto",
        size: int = 640,
        weights: str | Path = "pretrained",
        runtime: str | None = None,
        precision: str = "fp32",
        calibration: Sequence[Photo] = CALIBRATION_PHOTOS,
        settings: FetchSettings | None = None,
        labels: LabelSet | str | None = None,
    ) -> None:
        self.device: Device = open_device(device) if isinstance(device, str | torch.device) else device
        self.precision = precision
        labels = label_set(labels) if isinstance(labels, str) else labels
        if isinstance(model, nn.Module):
            self.loaded = LoadedModel(type(model).__name__, model, IN_MEMORY, labels or VOC)
        else:
            self.loaded = model if isinstance(model, LoadedModel) else models.load(model, weights, settings, labels)
        self.model_name, self.model, self.labels = self.loaded.name, self.loaded.module, self.loaded.labels
        self.spec = self.loaded.spec
        self.runtime = runtime or own_runtime(self.spec.source.kind)
        self.transform = InputTransform(self.spec.input)
        self.size = own_side(self.spec.input) or check_size(size)
        self._whole = not ends_in_upsampling(self.model)
        self._calibrated: dict[str, str] = {}
        self._settings = settings
        self._session = open_session(
            self.runtime,
            self.model,
            self.device,
            precision,
            settings=settings,
            calibration=lambda: self._calibrate(calibration),
            example=self._example(),
        )

    def __copy__(self) -> Segmenter:
        copied = object.__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"a Segmenter can be neither pickled nor deep-copied: {self.runtime} runs its network here, on "
            f"{self.device.name}. Share it among threads, make one in each process, or pickle its results"
        )

    def _example(self) -> Example:
        """Return an input that the network takes: of its own size, if it has one."""
        one_size = len(self.spec.input.own_size or ()) == 2
        _, _, height, width = Example().shape
        frame = frame_of(self.spec.input, height, width, min(height, width))
        return Example((2, self.spec.input.channels, *frame.input), one_size)

    def _calibrate(self, photos: Sequence[Photo]) -> Sequence[torch.Tensor]:
        """Return the inputs that int8 is calibrated on; photos of the user's are added to the options."""
        tensors = calibration_tensors(photos, self.transform)
        if photos is not CALIBRATION_PHOTOS:
            digest = hashlib.sha256()
            for tensor in tensors:
                digest.update(tensor.numpy().tobytes())
            self._calibrated = {"calibration": f"{len(photos)} photos, sha256 {digest.hexdigest()[:12]}"}
        return tensors

    @cached_property
    def weights(self) -> WeightsRecord:
        """The weights that run; the state of a network that was passed in is hashed on first access."""
        weights = self.loaded.weights
        return weights if weights.sha256 else weights.model_copy(update={"sha256": state_sha256(self.model)})

    @property
    def runtime_options(self) -> dict[str, str]:
        """Settings of the runtime, as recorded."""
        return {**self._session.options, **self._calibrated}

    @property
    def build_seconds(self) -> float:
        """Seconds of exporting, quantising and compiling so far; 0.0 if all of it was in the cache."""
        return self._session.build_s

    @property
    def artifact(self) -> Path | None:
        """The file that the runtime loaded, such as an ONNX file; None for torch, which runs the network itself."""
        return self._session.artifact

    @cached_property
    def int8_record(self) -> Int8Record | None:
        """Which layers of it `segcore quantize` keeps in fp32, and why; None if it has not run, or this is not int8."""
        return int8_record(self.artifact)

    def int8_source(self, calibration: Sequence[Photo]) -> Int8Source:
        """Return what the network is quantised from.

        Raises:
            DeviceError: it cannot be quantised.
        """
        tensors = partial(calibration_tensors, calibration, self.transform)
        return int8_source(
            self.model, self.device, settings=self._settings, calibration=tensors, example=self._example()
        )

    def on_file(self, path: Path) -> Segmenter:
        """Return a copy of this segmenter that runs another file with the same inputs and outputs.

        Raises:
            DeviceError: the runtime runs no files.
        """
        if not isinstance(self._session, FileSession):
            raise DeviceError(f"runtime {self.runtime} runs no files in int8: choose onnxruntime or openvino")
        segmenter = copy.copy(self)
        segmenter._session = self._session.on_file(path)
        return segmenter

    def settle(self, call: Callable[[], object]) -> None:
        """Repeat a call that was made before until the next runs as it does: some runtimes compile for its shape."""
        calls = 0
        while isinstance(self._session, Adaptive) and not self._session.settled and calls < MOST_SETTLING_CALLS:
            call()
            calls += 1

    @property
    def is_profilable(self) -> bool:
        """Whether the runtime has a profiler of its own."""
        return isinstance(self._session, Profilable)

    def profiled(self) -> tuple[Segmenter, ProfiledSession]:
        """Return a copy of this segmenter that runs under the runtime's own profiler, and that profiler.

        Raises:
            DeviceError: the runtime has no profiler.
        """
        if not isinstance(self._session, Profilable):
            raise DeviceError(f"runtime {self.runtime} has no profiler of its own")
        segmenter, session = copy.copy(self), self._session.profiled()
        segmenter._session = session
        return segmenter, session

    def prepare(self, photo: RgbImage | Image.Image, size: int | None = None) -> torch.Tensor:
        """Return the model's input (C, H, W) for a photo, uint8 RGB; see `InputTransform`."""
        return self.transform(photo, self.size if size is None else size)

    def place(self, photo: RgbImage | Image.Image, size: int | None = None) -> Placement:
        """Return how the logits of a photo reach it."""
        height, width = (photo.height, photo.width) if isinstance(photo, Image.Image) else photo.shape[:2]
        frame = self.transform.frame(height, width, self.size if size is None else size)
        return Placement(frame, not self._whole, self.spec.output.align_corners)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), finished, on the device, for a batch (B, C, H, W) on any device.

        They have the height and width of the batch, or those of the network's output if its model file allows others.

        Raises:
            ModelError: the network returns something else, or not finite numbers.
        """
        logits = self._logits(self.device.put(batch))
        logits = logits if self._whole else enlarge(logits, *batch.shape[-2:])
        self.device.synchronize()
        return logits

    def at_own_scale(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what `forward` does at the scale of the network's output, before its last upsampling if it has one."""
        return self._logits(self.device.put(batch))

    def _logits(self, batch: torch.Tensor) -> torch.Tensor:
        at_scale = self._whole and self.spec.source.kind == "module"
        output = self._session.forward(batch)
        return read_output(output, batch.shape, self.spec.output, self.labels, at_scale=at_scale)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # str is a Sequence
        self, image: Photo, *, size: int | None = None
    ) -> SegmentationResult: ...
    @overload
    def __call__(self, image: Sequence[Photo], *, size: int | None = None) -> list[SegmentationResult]: ...
    def __call__(
        self, image: Photo | Sequence[Photo], *, size: int | None = None
    ) -> SegmentationResult | list[SegmentationResult]:
        """Segment a photo (path, PIL image or uint8 array), or a list of them, those of one shape together.

        Results hold their class maps and no logits.

        Args:
            image: the photo or photos.
            size: shorter side at model scale, pixels; that of the segmenter if None.

        Raises:
            ImageError: a photo cannot be read, or there is not enough memory for it.
            ModelError: the network does not return logits (B, classes, H, W), or not finite numbers.
            UsageError: the size is less than 1.
        """
        if isinstance(image, str | Path | Image.Image | np.ndarray):
            return self.run([image], size=size)[0].without_logits()
        results = []
        for start in range(0, len(image), MAX_BATCH):
            results += [result.without_logits() for result in self.run(image[start : start + MAX_BATCH], size=size)]
        return results

    def run(
        self,
        photos: Sequence[Photo],
        timer: StageTimer | None = None,
        *,
        size: int | None = None,
        margins: bool = False,
    ) -> list[SegmentationResult]:
        """Segment photos, those of one shape at model scale as one batch, and time the stages.

        Results hold their logits; class maps at the photos' resolution are computed, untimed, on first access.

        Args:
            photos: at least one path, PIL image or uint8 array.
            timer: collects the seconds of each stage over all photos; a new one if None.
            size: shorter side at model scale, pixels; that of the segmenter if None.
            margins: also keep the logit margins.

        Raises:
            ImageError, ModelError, UsageError: as `__call__` does.
        """
        timer = timer or StageTimer(self.device)
        with timer.stage("decode"):
            images = _decoded(photos)
        with timer.stage("preprocess"):
            tensors = of_each(lambda image: self.prepare(image, size), images)
        places = [self.place(image, size) for image in images]
        groups: dict[torch.Size, list[int]] = {}
        for index, tensor in enumerate(tensors):
            groups.setdefault(tensor.shape, []).append(index)
        found: dict[int, SegmentationResult] = {}
        for (channels, height, width), indices in groups.items():
            batch = torch.stack([tensors[i] for i in indices]) if len(indices) > 1 else tensors[indices[0]][None]
            shape = (len(indices), channels, height, width)
            check_memory(shape)
            frames = [places[i].frame for i in indices]
            for index, logits, classes, colors in zip(indices, *self._run_batch(batch, frames, timer), strict=True):
                place = places[index]
                margin = margin_map(place.at_model_scale(logits[None])[0]) if margins and has_scores(logits) else None
                found[index] = SegmentationResult(
                    images[index], classes, colors, {}, shape, margin, logits, self.labels, place
                )
        shares = {name: seconds / len(photos) for name, seconds in timer.seconds.items()}
        return [replace(found[index], timings=dict(shares)) for index in range(len(photos))]

    def _run_batch(
        self, batch: torch.Tensor, frames: Sequence[Frame], timer: StageTimer
    ) -> tuple[torch.Tensor, list[ClassMap], list[RgbImage]]:
        try:
            return self._timed_batch(batch, frames, timer)
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            count, _, height, width = batch.shape
            what = f"{count} photo{'s' * (count > 1)} of {width}x{height} pixels at model scale"
            clear_frames(error.__traceback__)  # or whoever keeps the error keeps the batch on the device
            raise ImageError(f"out of memory with {what}; {SMALLER}") from error

    def _timed_batch(
        self, batch: torch.Tensor, frames: Sequence[Frame], timer: StageTimer
    ) -> tuple[torch.Tensor, list[ClassMap], list[RgbImage]]:
        with timer.stage("transfer"):
            batch = self.device.put(batch)
        with timer.stage("forward"):
            logits = self._logits(batch)
        own_s = self._session.own_seconds if isinstance(self._session, ProgramSession) else None
        if own_s is not None:  # the rest of the time, photo and mask went from process to process
            timer.move("forward", "transfer", keep=own_s)
        with timer.stage("postprocess"):
            align = self.spec.output.align_corners
            whole = enlarged_classes(logits, *batch.shape[-2:], align_corners=align).cpu()
            classes = [frame.cut(each).contiguous().numpy() for frame, each in zip(frames, whole, strict=True)]
        with timer.stage("colorize"):
            colors = of_each(lambda class_map: palette_lookup(class_map, self.labels), classes)
        return logits, classes, colors


def _decoded(photos: Sequence[Photo]) -> list[Image.Image]:
    if any(isinstance(photo, Image.Image) for photo in photos):  # one that is not decoded yet may be there twice
        return [as_rgb_image(photo) for photo in photos]
    return of_each(as_rgb_image, photos)


def segment_image(model: Segmenter | nn.Module, image_path: Photo, size: int | None = None) -> RgbImage:
    """Return the recipe's colour mask at model scale, uint8 RGB (h, w, 3).

    Args:
        model: a `Segmenter`, or any network, which runs on the device of its parameters.
        image_path: path, PIL image or uint8 array.
        size: shorter side at model scale; that of the segmenter if None, 640 for a network.
    """
    if not isinstance(model, Segmenter):
        parameter = next(model.parameters(), None)
        model = Segmenter(model, device=Device(str(parameter.device) if parameter is not None else "cpu"))
    return model.run([image_path], size=size)[0].model_color_mask
