"""What items need before they can run: photos, weights, loaded models; and why some of it cannot be had."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch

from segcore.core.errors import DownloadError, NotInstalledError, SegcoreError
from segcore.inference import models
from segcore.inference.pipeline import Segmenter
from segcore.inference.preprocess import CALIBRATION_PHOTOS, Photo
from segcore.inputs.cases import Case, resolve_image, resolve_mask
from segcore.inputs.download import FetchSettings
from segcore.plugin.plan import PlanItem


class Resources:
    """Photos and weights are looked for once each, and the network is asked only here."""

    def __init__(self, settings: FetchSettings, calibration: Sequence[Photo] = CALIBRATION_PHOTOS) -> None:
        self.settings = settings
        self.calibration = calibration
        self.random_models: dict[str, str] = {}
        """Reason by model of why it runs on random weights."""
        self._files: dict[tuple[str, str], Path | DownloadError] = {}
        self._weights: dict[str, str] = {}
        self._loaded: tuple[tuple[object, ...], Segmenter] | None = None
        self._threads = torch.get_num_threads()

    def why_not(self, item: PlanItem) -> SegcoreError | None:
        """Return why an item cannot run and what to do about it, or None."""
        if item.case.skip_reason:
            return SegcoreError(item.case.skip_reason)
        self._settle_weights(item)
        if item.kind == "accuracy" and item.model in self.random_models:
            reason = self.random_models[item.model]
            return SegcoreError(f"{item.model} has random weights, which say nothing of accuracy: {reason}")
        try:
            self.photo(item.case)
            if item.kind == "accuracy":
                self.mask(item.case)
        except (DownloadError, NotInstalledError) as error:
            return error
        return None

    def _settle_weights(self, item: PlanItem) -> None:
        if item.model in self._weights:
            return
        self._weights[item.model] = "pretrained" if item.weights == "auto" else item.weights
        if item.weights == "random":
            self.random_models[item.model] = "asked for with --segcore-weights random"
        elif item.weights == "auto":
            try:
                models.fetch_weights(item.model, self.settings)
            except DownloadError as error:
                self._weights[item.model] = "random"
                self.random_models[item.model] = f"{error}; mend it with: segcore fetch --model {item.model}"

    def photo(self, case: Case) -> Path:
        """Return the photo of a case.

        Raises:
            DownloadError, CaseError, ImageError: it cannot be had.
        """
        return self._once(case.name, "photo", lambda: resolve_image(case, self.settings))

    def mask(self, case: Case) -> Path | None:
        """Return the ground-truth mask of a case, None if it has none; raises like `photo`."""
        if case.expect.ground_truth is None:
            return None
        return self._once(case.name, "mask", lambda: resolve_mask(case, self.settings))

    def _once(self, case: str, what: str, find: Callable[[], Path | None]) -> Path:
        if (case, what) not in self._files:
            try:
                found = find()
            except DownloadError as error:
                self._files[case, what] = error
            else:
                assert found is not None
                self._files[case, what] = found
        file = self._files[case, what]
        if isinstance(file, DownloadError):
            raise file
        return file

    def segmenter(self, item: PlanItem) -> Segmenter:
        """Return the item's model, torch set to the item's threads, which every runtime takes over.

        The model before is let go of: items come in an order that loads each one once.

        Raises:
            SegcoreError: it cannot be loaded.
        """
        if self._loaded is None or self._loaded[0] != item.model_key:
            self.release()
            torch.set_num_threads(item.threads or self._threads)
            segmenter = Segmenter(
                item.model,
                device=item.device,
                weights=self._weights[item.model],
                runtime=item.runtime,
                precision=item.precision,
                calibration=self.calibration,
                settings=self.settings,
            )
            self._loaded = (item.model_key, segmenter)
        return self._loaded[1]

    def release(self) -> None:
        """Let go of the loaded model, and set torch's threads back."""
        self._loaded = None
        torch.set_num_threads(self._threads)
        gc.collect()


@cache
def gmacs_per_pixel(model: str) -> float:
    """Return giga multiply-accumulates per pixel at model scale, for forecasts: exact counts depend on rounding."""
    return models.gmacs(model, 256, 256) / 256**2
