"""segcore: is this segmentation model still right, and still fast, on every device it ships to?

The public API loads on first use, so that ``import segcore`` needs neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from segcore.core.errors import SegcoreError
    from segcore.core.labels import LabelSet
    from segcore.evaluation.datasets import Evaluation, evaluate
    from segcore.inference.decode import decode_segmap
    from segcore.inference.devices import detect_device
    from segcore.inference.pipeline import SegmentationResult, Segmenter, segment_image
    from segcore.inputs.cases import Case, load_cases
    from segcore.inputs.datasets import open_dataset
    from segcore.inputs.download import download_file

_HOMES = {
    "Case": "segcore.inputs.cases",
    "Evaluation": "segcore.evaluation.datasets",
    "LabelSet": "segcore.core.labels",
    "SegcoreError": "segcore.core.errors",
    "SegmentationResult": "segcore.inference.pipeline",
    "Segmenter": "segcore.inference.pipeline",
    "decode_segmap": "segcore.inference.decode",
    "detect_device": "segcore.inference.devices",
    "download_file": "segcore.inputs.download",
    "evaluate": "segcore.evaluation.datasets",
    "load_cases": "segcore.inputs.cases",
    "open_dataset": "segcore.inputs.datasets",
    "segment_image": "segcore.inference.pipeline",
}

__all__ = [
    "Case",
    "Evaluation",
    "LabelSet",
    "SegcoreError",
    "SegmentationResult",
    "Segmenter",
    "__version__",
    "decode_segmap",
    "detect_device",
    "download_file",
    "evaluate",
    "load_cases",
    "open_dataset",
    "segment_image",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'segcore' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
