"""Protocols: what exactly a figure of accuracy over a dataset was computed from. Every figure carries the name of one.

The same predictions give different figures under different protocols (by several points of mIoU), so those of one
protocol say nothing about those of another, and a comparison between them is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from segcore.core.errors import UsageError, nearest_hint


@dataclass(frozen=True)
class Protocol:
    """One way of turning predictions into figures."""

    name: str
    description: str
    """What a record carries: different descriptions are not comparable."""
    at_model_scale: bool = False
    """Score at the size the model saw, the target resized to it; else at the photo's own size."""
    per_image: bool = False
    """Mean over images of each image's figures; else the figures of one confusion matrix over all images."""
    size: int | None = None
    """The shorter side at model scale that the protocol demands, if any."""


_ALL = (
    Protocol(
        "voc-original",
        "logits interpolated to the photo's own size, 255 ignored, one confusion matrix, mean over classes present",
    ),
    Protocol(
        # pytorch/vision references/segmentation: presets.py (RandomResize of both, the mask by nearest), train.py
        "torchvision-references",
        "shorter side 520, target resized by nearest, 255 ignored, one confusion matrix, mean over classes present",
        at_model_scale=True,
        size=520,
    ),
    Protocol(
        "per-image",
        "logits interpolated to the photo's own size, 255 ignored, mean over images of each image's figures",
        per_image=True,
    ),
)

PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}


def choose(names: Sequence[str], size: int) -> tuple[Protocol, ...]:
    """Return the protocols of these names, each once, in the order given.

    Args:
        names: of `PROTOCOLS`.
        size: shorter side of what the model sees, pixels.

    Raises:
        UsageError: there is none of that name, or it demands another size.
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
        raise UsageError(f"no protocol to score by; choose from {', '.join(PROTOCOLS)}")
    return tuple(chosen)
