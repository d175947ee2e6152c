"""What a run file says of accuracy: of a photo with its expectations, and of a dataset."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from segcore.core.record_fields import Amount, Count, Number, Record, Share, Text

Pixels = Annotated[int, Field(ge=0, le=10**10)]
"""Of one image; sums over images fit into 64 bits."""
ClassPixels = tuple[Pixels, Pixels, Pixels, Pixels, Pixels, Pixels]
"""Of one class in one image: pixels that are right, in the mask and predicted, and the same of bands along contours."""
MAX_COUNTED = 50_000
"""Most images whose counts are kept in a run file."""


class CheckRecord(Record):
    """Result of one expectation of a case, such as ``dominant`` or ``fraction of cat``; bounds are None for words."""

    name: Text
    wanted: Text
    found: Text
    passed: bool
    least: Number | None = None
    most: Number | None = None

    def loosens(self, before: CheckRecord) -> bool:
        """Return whether more passes here than before; also if that cannot be told, because no bounds are known."""
        if self.wanted == before.wanted:
            return False
        if {before.least, before.most} == {None} or {self.least, self.most} == {None}:
            return True
        lower = before.least is not None and (self.least is None or self.least < before.least)
        return lower or (before.most is not None and (self.most is None or self.most > before.most))


class ParityRecord(Record):
    """How the pixels and logits of a photo differ from those of the reference backend."""

    reference: Text
    unlike: Share
    """Share of the pixels at model scale whose class differs although the reference was sure of its own."""
    equal: Share
    logit_error: Amount | None = None
    """Largest difference of a logit as a share of the largest; None without logits, or if one is not finite."""


class AccuracyRecord(Record):
    """Prediction for a photo; fractions are of its pixels, paths are relative to the directory of the run file."""

    dominant: Text
    fractions: dict[Text, Share]
    checks: tuple[CheckRecord, ...] = ()
    iou: dict[Text, Share] | None = None
    miou: Share | None = None
    pixel_accuracy: Share | None = None
    parity: ParityRecord | None = None
    """None for the reference itself, and in older files."""
    metric: Text | None = None
    """Convention of the three scores above; different ones are not comparable."""
    class_map: Text | None = None
    """Indexed PNG of the class map at the photo's resolution."""
    margin_map: Text | None = None
    """Greyscale PNG of the top-1 minus top-2 logit margin at model scale; see `MARGIN_PNG_STEP`."""
    photo: Text | None = None
    overlay: Text | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Scores by the names that reports use: ``mIoU``, ``pixel accuracy``, ``IoU cat``."""
        named = {"mIoU": self.miou, "pixel accuracy": self.pixel_accuracy}
        named |= {f"IoU {name}": value for name, value in (self.iou or {}).items()}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def passed(self) -> bool:
        """Whether every expectation holds."""
        return all(check.passed for check in self.checks)


MARGIN_PNG_STEP = 1 / 32
"""Logits per grey level of a stored margin map; 255 means 255 * step or more."""


class WorstRecord(Record):
    """One of the images with the lowest scores."""

    name: Text
    miou: Share
    picture: Text | None = None
    """JPEG of photo, mask and prediction side by side; relative to the directory of the run file."""


class DatasetRecord(Record):
    """Accuracy over a dataset under one protocol: shares by name (`segcore.core.scores.score_names`) where defined."""

    name: Text
    sha256: Text
    """Of the names of the requested images, in order."""
    label_map: dict[Text, Text] = {}
    """What the dataset's classes count as: a class of the model or ``ignore``, by name, if a file says so."""
    masks: str = ""
    """Kind of the masks and their labels, if the layout of the dataset does not say them."""
    images: Count
    """Number of images that were scored."""
    failed: dict[Text, Text] = {}
    """Reason by name of the images that were not scored."""
    protocol: Text
    scores: dict[Text, Share]
    intervals: dict[Text, tuple[Share, Share]]
    """95 % confidence intervals of every score, by bootstrap over images."""
    published: dict[Text, Share] = {}
    """Scores that the publisher of the weights reports for the same dataset and protocol."""
    matrix: tuple[tuple[Count, ...], ...] | None = None
    """Pixels by target class and predicted class; None for means over images, and for more than 256 classes."""
    counts: dict[Text, dict[Text, ClassPixels]] = {}
    """By image and class, to compare runs image by image; empty for more than `MAX_COUNTED` images."""
    worst: tuple[WorstRecord, ...] = ()

    @property
    def per_image(self) -> bool:
        """Whether the scores are means over images, rather than of all pixels together."""
        return self.protocol == "per-image"

    @model_validator(mode="after")
    def _every_score_has_an_interval(self) -> Self:
        if without := [name for name in self.scores if name not in self.intervals]:
            raise PydanticCustomError("interval", "no interval for the score {name}", {"name": without[0]})
        return self
