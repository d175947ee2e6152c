"""Drift: which pixels changed their class since the baseline, and how many of them are numeric noise.

Two runs of the same network on different kernels differ in the last bits of their logits, which changes the argmax
where two classes are all but equal. Such a pixel has a small margin (top-1 minus top-2 logit) in *both* runs; a pixel
with a large margin in one of them is a real change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from segcore.core.errors import RecordError
from segcore.core.labels import ClassMap
from segcore.core.records import MARGIN_PNG_STEP, BenchmarkRecord, Run
from segcore.results.pictures import load_indices, load_margins, picture_path

NOISE_MARGIN = 0.125
"""Logits. Float32 kernels of different libraries differ by some 1e-4 of the largest logit (about 20), bfloat16 ones by
up to a hundred times that; four steps of the stored margin are well above the former and of the order of the latter."""


@dataclass(frozen=True)
class Drift:
    """Shares of the photo's pixels, 0 to 1; numeric and real add up to changed."""

    changed: float
    numeric: float
    real: float


def pixel_drift(old: ClassMap, new: ClassMap, old_margin: ClassMap | None, new_margin: ClassMap | None) -> Drift:
    """Return how the class maps of a baseline and a current run differ: uint8 or uint16 (H, W), of one label set.

    Margins are in steps of `MARGIN_PNG_STEP`, uint8 (h, w) at model scale; without both, every change counts as real.

    Raises:
        ValueError: the class maps have different shapes.
    """
    if old.shape != new.shape:
        raise ValueError(f"the class map was {old.shape[1]}x{old.shape[0]} pixels, is {new.shape[1]}x{new.shape[0]}")
    differs = old != new
    changed = float(differs.mean())
    numeric = 0.0
    if changed and old_margin is not None and new_margin is not None:
        highest = np.maximum(_resized(old_margin, old.shape), _resized(new_margin, old.shape))
        numeric = float((differs & (highest < NOISE_MARGIN / MARGIN_PNG_STEP)).mean())
    return Drift(changed, numeric, changed - numeric)


def run_drift(baseline: Run, current: Run) -> dict[str, Drift | str]:
    """Return the drift, by `BenchmarkRecord.key`, of every item of both runs with a class map in the baseline.

    A string is the reason why the drift is unknown.
    """
    after = {benchmark.info.key: benchmark.info for benchmark in current.benchmarks}
    found: dict[str, Drift | str] = {}
    for info in (benchmark.info for benchmark in baseline.benchmarks):
        if info.accuracy and info.accuracy.class_map and info.key in after:
            found[info.key] = _item_drift(baseline, info, current, after[info.key])
    return found


def _item_drift(baseline: Run, before: BenchmarkRecord, current: Run, after: BenchmarkRecord) -> Drift | str:
    old, new = before.accuracy, after.accuracy
    if old is None or old.class_map is None or new is None or new.class_map is None:
        return "the baseline stored a class map, the current run did not"
    if before.labels.sha256 != after.labels.sha256:
        return f"the class maps are of different labels: {before.labels} and {after.labels}"
    try:
        if picture_path(baseline, old.class_map).samefile(picture_path(current, new.class_map)):
            return "the current run names the class map of the baseline as its own"
        return pixel_drift(
            load_indices(baseline, old.class_map),
            load_indices(current, new.class_map),
            load_margins(baseline, old),
            load_margins(current, new),
        )
    except (RecordError, ValueError) as error:
        return f"the class maps cannot be compared: {error}"


def _resized(margin: ClassMap, shape: tuple[int, ...]) -> ClassMap:
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(margin).resize(size, Image.Resampling.NEAREST))
