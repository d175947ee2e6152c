"""What items need before they can run: photos, weights and loaded models; and why some of it is not available."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from segcore.core.errors import DatasetError, DownloadError, ImageError, NotInstalledError, SegcoreError
from segcore.core.image_files import load_indexed_png
from segcore.core.labels import LabelSet
from segcore.core.model_spec import OWN_RUNTIMES, ModelSpec
from segcore.inference import models
from segcore.inference.devices import Device
from segcore.inference.models import built_in
from segcore.inference.models.sources import find_model, weights_of
from segcore.inference.pipeline import Segmenter
from segcore.inference.preprocess import CALIBRATION_PHOTOS, Photo
from segcore.inference.runtimes import why_not
from segcore.inference.runtimes.artifacts import built_here_s
from segcore.inputs.cases import Case, reason_against, resolve_image, resolve_mask
from segcore.inputs.datasets.label_map import by_name
from segcore.inputs.download import FetchSettings
from segcore.inputs.model_files import DIRECTORY, open_model_files
from segcore.plugin.plan import PlanItem

_P = TypeVar("_P")


class Resources:
    """Find each photo and each model's weights once, and keep the last model loaded."""

    def __init__(self, settings: FetchSettings, calibration: Sequence[Photo] = CALIBRATION_PHOTOS) -> None:
        self.settings = settings
        self.calibration = calibration
        self.random_models: dict[str, str] = {}
        """Why a model runs on random weights, by its name."""
        self._files: dict[object, Any] = {}
        self._weights: dict[str, str] = {}
        self._loaded: tuple[tuple[object, ...], Segmenter] | None = None
        self._load_s: float | None = None
        self._reference: tuple[tuple[object, ...], Segmenter] | None = None
        self._threads = torch.get_num_threads()

    def why_not(self, item: PlanItem) -> SegcoreError | None:
        """Return why an item cannot run and what to do about it, or None."""
        if item.case.skip_reason:
            return SegcoreError(item.case.skip_reason)
        if reason := _why_not_there(item):
            return SegcoreError(f"{item.model} does not run on {item.device}: {reason}")
        if item.model not in self._weights:
            self._weights[item.model] = self._choose_weights(item)
        if item.kind == "accuracy" and item.model in self.random_models:
            reason = self.random_models[item.model]
            return SegcoreError(f"{item.model} has random weights, which say nothing of accuracy: {reason}")
        try:
            self.photo(item.case)
            if item.kind == "accuracy":
                self.mask(item.case)
        except (DownloadError, NotInstalledError) as error:
            return error
        labels = (item.spec or built_in(item.model)).labels if item.kind == "accuracy" else None
        return self.why_not_judged(item, labels) if labels else None

    def why_not_judged(self, item: PlanItem, labels: LabelSet) -> SegcoreError | None:
        """Return why a model with these labels cannot be held against a case, or None."""
        reason = reason_against(item.case, labels)
        mask, drawn = self.mask(item.case), item.case.mask_labels
        if not reason and mask and drawn and drawn.digest != labels.digest:
            try:
                by_name(load_indexed_png(mask), drawn, labels)
            except DatasetError as error:
                reason = str(error)
            except ImageError:  # an error of the item, not a reason to skip it
                return None
        return SegcoreError(f"{item.model} cannot be held against this case: {reason}") if reason else None

    def _choose_weights(self, item: PlanItem) -> str:
        if item.weights == "random":
            self.random_models[item.model] = "requested by --segcore-weights random"
        if item.weights != "auto":
            return item.weights
        try:
            weights_of(item.spec or built_in(item.model), self.settings)
        except DownloadError as error:
            self.random_models[item.model] = f"{error}; to download them: segcore fetch --model {item.model}"
            return "random"
        return "pretrained"

    def photo(self, case: Case) -> Path:
        """Return the photo of a case; raise CaseError, DownloadError, ImageError or NotInstalledError without one."""
        return self._once(resolve_image, case)

    def mask(self, case: Case) -> Path | None:
        """Return the ground-truth mask of a case, None if it has none; raises like `photo`."""
        return self._once(resolve_mask, case)

    def _once(self, find: Callable[[Case, FetchSettings], _P], case: Case) -> _P:
        key = (find, case.name)
        if key not in self._files:
            try:
                self._files[key] = find(case, self.settings)
            except DownloadError as error:
                self._files[key] = error
        file: _P | DownloadError = self._files[key]
        if isinstance(file, DownloadError):
            raise file
        return file

    def segmenter(self, item: PlanItem) -> Segmenter:
        """Return the item's model, with torch set to the item's threads; the previous model is released."""
        if self._loaded is None or self._loaded[0] != item.model_key:
            self.release()
            torch.set_num_threads(item.threads or self._threads)
            start, built_s = time.perf_counter(), built_here_s()
            segmenter = Segmenter(
                item.spec or item.model,
                device=item.device,
                weights=self._weights[item.model],
                runtime=item.runtime,
                precision=item.precision,
                calibration=self.calibration,
                settings=self.settings,
            )
            self._loaded = (item.model_key, segmenter)
            self._load_s = time.perf_counter() - start - (built_here_s() - built_s)
        return self._loaded[1]

    def cold_start_s(self, photo: Path, size: int) -> float | None:
        """Return the seconds of loading the model, without building cached artifacts, and of its first call.

        None but the first time, and if the call fails, which the item will find as well.
        """
        load_s, self._load_s = self._load_s, None
        if load_s is None or self._loaded is None:
            return None
        segmenter, start = self._loaded[1], time.perf_counter()
        with contextlib.suppress(Exception):
            segmenter.run([photo], size=size)
            return round(load_s + time.perf_counter() - start, 6)
        return None

    def reference(self, spec: ModelSpec, device: str) -> Segmenter:
        """Return the model that a model file names as its reference, looked up beside that file; the last is kept."""
        assert spec.reference is not None
        directory = spec.file.parent if spec.file else Path(DIRECTORY)
        key = (directory, spec.reference, device)
        if self._reference is None or self._reference[0] != key:
            found = find_model(spec.reference, open_model_files(directory))
            self._reference = key, Segmenter(found, device=device, settings=self.settings)
        return self._reference[1]

    def release(self) -> None:
        """Release the loaded models and restore torch's threads."""
        self._loaded = self._reference = None
        torch.set_num_threads(self._threads)
        gc.collect()
        torch.cuda.empty_cache()  # for further processes; does nothing without CUDA


TYPICAL_MODEL = "deeplabv3_mobilenet_v3_large"
"""Its cost is the forecast for models of files, whose own is not known before they are loaded."""


def _why_not_there(item: PlanItem) -> str | None:
    """Return why a file or program, which has a runtime of its own, does not run on this device, but on the CPU."""
    kind = item.spec.source.kind if item.spec else "module"
    if item.device == "cpu" or item.runtime != OWN_RUNTIMES.get(kind):
        return None
    on_cpu, there = (why_not(item.runtime, Device(name), item.precision, kind) for name in ("cpu", item.device))
    return there if on_cpu is None else None


@cache
def gmacs_per_pixel(model: str) -> float:
    """Return approximate giga multiply-accumulates per pixel at model scale, for forecasts."""
    return models.gmacs(model if model in models.model_names() else TYPICAL_MODEL, 256, 256) / 256**2
