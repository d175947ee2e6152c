"""Error rates of comparing two evaluations image by image: ``python -m tools.accuracy_simulation BEFORE AFTER``.

BEFORE and AFTER are run files of `segcore evaluate` on the same images. These images are the population, whose
difference is known; each trial draws as many of them with replacement and judges the sample, once at its end and once
with the looks of `segcore evaluate --against`. First the limit is the true difference, where errors are most frequent:
any verdict but *inconclusive* is wrong there. Then it is one point: for the same pairs, and for pairs in which a coin
decides for each image which model is the one before, so that nothing has changed.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from segcore.core.scores import MEANS, score_names, score_words
from segcore.judgement.gate.images import ERROR, decide_drop, error_at, look_sizes
from segcore.judgement.paired_accuracy import (
    MIN_CLASS_IMAGES,
    ImagePairs,
    image_pairs,
    images_by_class,
    score_changes,
    total_scores,
)
from segcore.judgement.statistics import share_interval
from segcore.results.store import load_run

JUDGED = ("miou", "pixel_accuracy", "boundary_iou")
CLASSES = "any class"


@dataclass(frozen=True)
class Rates:
    """Verdicts of one score over the trials."""

    verdicts: Counter[str]
    images: int
    """Images looked at, over all trials."""


def true_changes(pairs: ImagePairs) -> dict[str, float]:
    """Return the difference of each score over all images."""
    before, after = (total_scores(counts, per_image=pairs.per_image) for counts in (pairs.before, pairs.after))
    return dict(zip(score_names(pairs.classes), (after - before).tolist(), strict=True))


def sample(pairs: ImagePairs, size: int, rng: np.random.Generator, *, swapped: bool = False) -> ImagePairs:
    """Draw images with replacement; `swapped` exchanges before and after in half of them."""
    rows = rng.integers(0, len(pairs.names), size)
    before, after = pairs.before[rows], pairs.after[rows]
    if swapped:
        coin = (rng.random(size) < 0.5)[:, None, None]
        before, after = np.where(coin, after, before), np.where(coin, before, after)
    return replace(pairs, names=tuple(map(str, range(size))), before=before, after=after)


def verdicts(pairs: ImagePairs, error: float, allowed: Mapping[str, float]) -> dict[str, str]:
    """Return the verdict on each judged score; that on any class is the worst, of those in enough images."""
    changes, images = score_changes(pairs, error), images_by_class(pairs)
    found = {name: decide_drop(changes[name], allowed[name]) for name in JUDGED}
    classes = {
        decide_drop(change, allowed[name])
        for name, change in changes.items()
        if name not in MEANS and images[name] >= MIN_CLASS_IMAGES
    }
    passed = "pass" if classes & {"pass", "improved"} else "inconclusive"
    return {**found, CLASSES: "regressed" if "regressed" in classes else passed}


def simulate(
    draw: Callable[[], ImagePairs], allowed: Mapping[str, float], trials: int, *, looks: bool
) -> dict[str, Rates]:
    """Judge `trials` samples; return the verdicts by score."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in (*JUDGED, CLASSES)}
    images = Counter[str]()
    for _ in range(trials):
        pairs = draw()
        total = len(pairs.names)
        open_scores = set(counts)
        for size in look_sizes(total) if looks else (total,):
            part = replace(pairs, names=pairs.names[:size], before=pairs.before[:size], after=pairs.after[:size])
            now = verdicts(part, error_at(size, total) if looks else ERROR, allowed)
            for name in tuple(open_scores):
                if now[name] != "inconclusive" or size == total:
                    counts[name]["pass" if now[name] == "improved" else now[name]] += 1
                    images[name] += size
                    open_scores.remove(name)
            if not open_scores:
                break
    return {name: Rates(found, images[name]) for name, found in counts.items()}


def main() -> None:
    """Print how often each verdict is given, with its 95 % interval."""
    parser = argparse.ArgumentParser(prog="python -m tools.accuracy_simulation", description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--trials", type=int, default=500)
    parser.add_argument("--images", type=int, help="per sample (default: as many as there are)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    old, new = (load_run(path).benchmarks[0].info.dataset for path in (options.before, options.after))
    if old is None or new is None or not old.counts or old.counts.keys() != new.counts.keys():
        parser.error("wanted two runs of `segcore evaluate` on the same images")
    pairs = image_pairs(old, new)
    size, rng = options.images or len(pairs.names), np.random.default_rng(options.seed)
    truth = true_changes(pairs)
    point = dict.fromkeys(truth, 0.01)
    print(f"{options.trials} trials of {size} images, of {len(pairs.names)} images of {old.name}")
    for title, swapped, allowed in (
        ("limit at the truth", False, {name: -change for name, change in truth.items()}),
        ("limit of 1 point, real pairs", False, point),
        ("limit of 1 point, nothing changed", True, point),
    ):
        for looks in (False, True):
            rates = simulate(lambda: sample(pairs, size, rng, swapped=swapped), allowed, options.trials, looks=looks)  # noqa: B023  # called at once
            for name, found in rates.items():
                shares = (
                    f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}]"
                    for share in (share_interval(found.verdicts[v], options.trials) for v in ("pass", "regressed"))
                )
                change = "" if name == CLASSES or swapped else f" {100 * truth[name]:+.2f}"
                print(
                    f"| {title} | {'in looks' if looks else 'at the end'} | {score_words(name)}{change} | "
                    f"{' | '.join(shares)} | {found.images / options.trials:.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
