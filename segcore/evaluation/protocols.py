"""Scoring protocols: what a figure of accuracy over a dataset was computed from.

The same predictions give figures that differ by several points of mIoU from one protocol to another, so every figure
carries the name of its protocol, and figures of different protocols are never compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from segcore.core.errors import UsageError, nearest_hint
from segcore.core.labels import LabelSet
from segcore.evaluation.metrics import ignored

Scale = Literal["photo", "model"]


@dataclass(frozen=True)
class ScoringProtocol:
    """A method of turning predictions into figures."""

    name: str
    steps: str
    """What is done, with a gap for the pixels that are ignored."""
    scale: Scale = "photo"
    """Score at the photo's own size, or at the size the model saw with the target resized to it."""
    per_image: bool = False
    """Average the figures of the images; otherwise compute them from one confusion matrix over all images."""
    size: int | None = None
    """Shorter side at model scale that the protocol requires, if any."""

    def description(self, labels: LabelSet) -> str:
        """Return what is stored in records: figures with different descriptions are not comparable."""
        return self.steps.format(ignored=ignored(labels))


_ALL = (
    ScoringProtocol(
        "voc-original",
        "logits interpolated to the photo's own size, {ignored}, one confusion matrix, mean over classes present",
    ),
    ScoringProtocol(
        # pytorch/vision references/segmentation: presets.py (RandomResize of both, the mask by nearest), train.py
        "torchvision-references",
        "shorter side 520, target resized by nearest, {ignored}, one confusion matrix, mean over classes present",
        scale="model",
        size=520,
    ),
    ScoringProtocol(
        "per-image",
        "logits interpolated to the photo's own size, {ignored}, mean over images of each image's figures",
        per_image=True,
    ),
)

PROTOCOLS: dict[str, ScoringProtocol] = {protocol.name: protocol for protocol in _ALL}


def choose(names: Sequence[str], size: int) -> tuple[ScoringProtocol, ...]:
    """Return the protocols with these names (of `PROTOCOLS`), without duplicates, in the order given.

    Raises:
        UsageError: a name is unknown, a protocol requires another `size` (shorter side, pixels), or there is no name.
    """
    chosen = []
    for name in dict.fromkeys(names):
        if name not in PROTOCOLS:
            raise UsageError(f"unknown protocol {name!r}{nearest_hint(name, PROTOCOLS)}; known: {', '.join(PROTOCOLS)}")
        protocol = PROTOCOLS[name]
        if protocol.size not in (None, size):
            raise UsageError(f"protocol {name} is defined at size {protocol.size}, not {size}; choose that size")
        chosen.append(protocol)
    if not chosen:
        raise UsageError(f"no protocol given; choose from {', '.join(PROTOCOLS)}")
    return tuple(chosen)
