"""Drift: which pixels changed their class since the baseline, and how much of that is mere numeric noise.

Two runs of the same network on different kernels differ in the last bits of their logits, which turns the argmax
where two classes are all but equal. Such a pixel had a small margin (top-1 minus top-2 logit) in *both* runs; a pixel
that changed although one of them was sure is a real change.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcore.core.records import MARGIN_PNG_STEP, AccuracyRecord, Benchmark, Run

NOISE_MARGIN = 0.125
"""Logits. Float32 kernels of different libraries differ by some 1e-4 of the largest logit (about 20), bfloat16 ones by
up to a hundred times that; four steps of the stored margin are well above the one and at the order of the other."""

Gray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Drift:
    """Shares of all pixels of the photo, 0 to 1; numeric and real sum to changed."""

    changed: float
    numeric: float
    real: float


def pixel_drift(old: Gray, new: Gray, old_margin: Gray | None, new_margin: Gray | None) -> Drift:
    """Return how two class maps differ.

    Args:
        old: classes of the baseline, uint8 (H, W).
        new: classes now, of the same shape.
        old_margin: logit margins in steps of `MARGIN_PNG_STEP`, uint8 (h, w) at model scale; None where not stored.
        new_margin: the same for now. Without both, every change counts as real.

    Raises:
        ValueError: the class maps have different shapes.
    """
    if old.shape != new.shape:
        raise ValueError(f"the class map was {old.shape[1]}x{old.shape[0]} pixels, is {new.shape[1]}x{new.shape[0]}")
    differs = old != new
    changed = float(differs.mean())
    numeric = 0.0
    if changed and old_margin is not None and new_margin is not None:
        highest = np.maximum(_at(old_margin, old.shape), _at(new_margin, old.shape))
        numeric = float((differs & (highest < NOISE_MARGIN / MARGIN_PNG_STEP)).mean())
    return Drift(changed, numeric, changed - numeric)


def run_drift(baseline: Run, current: Run) -> dict[str, Drift | str]:
    """Return the drift of every item of both runs whose class map the baseline has stored, by `BenchmarkRecord.key`.

    Where it cannot be known, a string says why.
    """
    now = {benchmark.info.key: benchmark for benchmark in current.benchmarks}
    found: dict[str, Drift | str] = {}
    for before in baseline.benchmarks:
        key, after = before.info.key, now.get(before.info.key)
        if after is not None and before.info.accuracy and before.info.accuracy.class_map:
            found[key] = _item_drift(baseline, before, current, after)
    return found


def _item_drift(baseline: Run, before: Benchmark, current: Run, after: Benchmark) -> Drift | str:
    old, new = before.info.accuracy, after.info.accuracy
    if old is None or new is None or old.class_map is None or new.class_map is None:
        return "the baseline stored a class map, the current run did not"
    try:
        return pixel_drift(
            _read(baseline.path.parent / old.class_map),
            _read(current.path.parent / new.class_map),
            _margin(baseline, old),
            _margin(current, new),
        )
    except (OSError, ValueError) as error:
        return f"the class maps cannot be compared: {error}; keep the PNG files beside the run file"


def _margin(run: Run, accuracy: AccuracyRecord) -> Gray | None:
    return _read(run.path.parent / accuracy.margin_map) if accuracy.margin_map else None


def _read(path: Path) -> Gray:
    with Image.open(path) as image:
        if image.mode not in ("P", "L"):
            raise ValueError(f"{path}: wanted an indexed or greyscale PNG, found mode {image.mode}")
        return np.asarray(image, dtype=np.uint8)


def _at(margin: Gray, shape: tuple[int, ...]) -> Gray:
    """Enlarge a margin map to a photo's shape, each pixel taking the nearest value."""
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(margin).resize(size, Image.Resampling.NEAREST), dtype=np.uint8)
