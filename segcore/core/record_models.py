"""What a run file says of models: weights, labels and model files."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from segcore.core.errors import UsageError
from segcore.core.labels import LabelSet
from segcore.core.record_fields import Count, PositiveCount, Record, Text

WeightsKind = Literal["pretrained", "random", "checkpoint"]


class WeightsRecord(Record):
    """The weights of a model: kind, name (enum, file name or seed) and the SHA-256 of their file or state."""

    kind: WeightsKind
    name: Text
    sha256: Text

    @property
    def warning(self) -> str:
        """Suffix of the model's name in tables if the weights are random, else an empty string."""
        return " (random weights)" if self.kind == "random" else ""


class LabelsRef(Record):
    """Which label set an item has; `RunRecord.labels` has its classes."""

    name: Text
    classes: PositiveCount
    sha256: Text
    """`segcore.core.labels.LabelSet.digest`: of what figures depend on."""

    @classmethod
    def of(cls, labels: LabelSet) -> Self:
        """Return the reference to a label set."""
        return cls(name=labels.name, classes=len(labels), sha256=labels.digest)

    def __str__(self) -> str:
        """Return for example ``voc (21 classes, sha256 c602f59c0b5e)``."""
        return f"{self.name} ({self.classes} classes, sha256 {self.sha256[:12]})"


class LabelsRecord(Record):
    """A label set: see `segcore.core.labels.LabelSet`."""

    name: Text
    names: tuple[Text, ...]
    colors: tuple[Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")], ...]
    """``#rrggbb`` of each class."""
    background: Count | None = None
    ignore: Count | None = None

    @classmethod
    def of(cls, labels: LabelSet) -> Self:
        """Return the record of a label set."""
        colors = tuple("#{:02x}{:02x}{:02x}".format(*color) for color in labels.colors)
        kept = {"background": labels.background, "ignore": labels.ignore}
        return cls(name=labels.name, names=labels.names, colors=colors, **kept)

    @cached_property
    def labels(self) -> LabelSet:
        """The label set, without aliases."""
        colors = tuple((*bytes.fromhex(color[1:]),) for color in self.colors)
        return LabelSet(self.name, self.names, colors, {}, self.background, self.ignore)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            _ = self.labels
        except UsageError as error:
            raise PydanticCustomError("labels", "{problem}", {"problem": str(error)}) from None
        return self


class ModelFileRecord(Record):
    """The model file behind a model, or the file that describes itself."""

    file: Text
    sha256: Text
    """`ModelSpec.digest`."""
    source: Text
    assumptions: tuple[Text, ...] = ()
    """What nobody has said of the model and was assumed."""
