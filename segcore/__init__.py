"""segcore: is this segmentation model still right, and still fast, on every device it ships to?

The public API loads on first use, so that ``import segcore`` needs neither torch nor numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from segcore.cases import Case, load_cases
    from segcore.datasets import open_dataset
    from segcore.decode import decode_segmap
    from segcore.devices import detect_device
    from segcore.errors import SegcoreError
    from segcore.evaluation import Evaluation, evaluate
    from segcore.fetch import download_file
    from segcore.pipeline import SegmentationResult, Segmenter, segment_image

_HOMES = {
    "Case": "segcore.cases",
    "Evaluation": "segcore.evaluation",
    "SegcoreError": "segcore.errors",
    "SegmentationResult": "segcore.pipeline",
    "Segmenter": "segcore.pipeline",
    "decode_segmap": "segcore.decode",
    "detect_device": "segcore.devices",
    "download_file": "segcore.fetch",
    "evaluate": "segcore.evaluation",
    "load_cases": "segcore.cases",
    "open_dataset": "segcore.datasets",
    "segment_image": "segcore.pipeline",
}

__all__ = [
    "Case",
    "Evaluation",
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
