"""What items need before they can run: photos, weights, loaded models; and why some of it cannot be had."""

from __future__ import annotations

import gc
from functools import cache
from pathlib import Path

from segcore import models
from segcore.cases import Case, resolve_image
from segcore.errors import DownloadError
from segcore.fetch import FetchSettings
from segcore.pipeline import Segmenter
from segcore.plugin.plan import PlanItem


class Supplies:
    """Photos and weights are looked for once each, and the network is asked only here."""

    def __init__(self, settings: FetchSettings) -> None:
        self.settings = settings
        self.random_models: dict[str, str] = {}
        """Reason by model of why it runs on random weights."""
        self._photos: dict[str, Path | DownloadError] = {}
        self._weights: dict[str, str] = {}
        self._loaded: tuple[tuple[str, ...], Segmenter] | None = None

    def why_not(self, item: PlanItem) -> str:
        """Return why an item cannot run, with what would mend it; an empty string if it can."""
        if item.case.skip_reason:
            return item.case.skip_reason
        self._settle_weights(item)
        if item.kind == "accuracy" and item.model in self.random_models:
            return f"{item.model} has random weights, which say nothing of accuracy: {self.random_models[item.model]}"
        photo = self._find_photo(item.case)
        return str(photo) if isinstance(photo, DownloadError) else ""

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

    def _find_photo(self, case: Case) -> Path | DownloadError:
        if case.name not in self._photos:
            try:
                self._photos[case.name] = resolve_image(case, self.settings)
            except DownloadError as error:
                self._photos[case.name] = error
        return self._photos[case.name]

    def photo(self, case: Case) -> Path:
        """Return the photo of a case for which `why_not` found nothing."""
        photo = self._find_photo(case)
        if isinstance(photo, DownloadError):
            raise photo
        return photo

    def segmenter(self, item: PlanItem) -> Segmenter:
        """Return the item's model at the item's size.

        The model before is let go of: items come in an order that loads each one once.

        Raises:
            SegcoreError: it cannot be loaded.
        """
        if self._loaded is None or self._loaded[0] != item.model_key:
            self.release()
            segmenter = Segmenter(
                item.model,
                device=item.device,
                weights=self._weights[item.model],
                runtime=item.runtime,
                precision=item.precision,
                settings=self.settings,
            )
            self._loaded = (item.model_key, segmenter)
        self._loaded[1].size = item.size
        return self._loaded[1]

    def release(self) -> None:
        """Let go of the loaded model."""
        self._loaded = None
        gc.collect()


@cache
def gmacs_per_pixel(model: str) -> float:
    """Return giga multiply-accumulates per pixel at model scale, for forecasts: exact counts depend on rounding."""
    return models.gmacs(model, 256, 256) / 256**2
