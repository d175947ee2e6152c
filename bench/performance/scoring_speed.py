"""Time from one image of 500x375 to its confusion matrix, beside numpy's and torchmetrics', alternated.

python bench/performance/scoring_speed.py --rounds 100
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import click
import numpy as np
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from segcore.core.labels import IGNORE_INDEX, NUM_CLASSES, ClassMap
from segcore.evaluation.metrics import confusion_matrix

HEIGHT, WIDTH = 375, 500


def torchmetrics_matrix(checked: bool) -> Callable[[ClassMap, ClassMap], object]:
    """Return torchmetrics' function, with or without its checks of the arguments."""
    metric = MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=IGNORE_INDEX, validate_args=checked)
    return lambda target, prediction: metric.update(torch.from_numpy(prediction), torch.from_numpy(target))


def masked_bincount(target: ClassMap, prediction: ClassMap) -> object:
    """Return the matrix by numpy's bincount of the scored pixels."""
    scored = target != IGNORE_INDEX
    return np.bincount(NUM_CLASSES * target[scored].astype(np.int64) + prediction[scored], minlength=NUM_CLASSES**2)


def make_pair(seed: int) -> tuple[ClassMap, ClassMap]:
    """Return a mask of three rimmed rectangles and a prediction with wavering outlines and specks.

    They have about 2,200 runs of equal pairs; DeepLabV3 on photos of VOC val of that size makes 660 to 6,600 runs,
    2,100 in the median.
    """
    rng = np.random.default_rng(seed)
    target = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(3):
        top, left = rng.integers(0, HEIGHT - 8), rng.integers(0, WIDTH - 8)
        bottom, right = top + rng.integers(6, HEIGHT), left + rng.integers(6, WIDTH)
        target[top:bottom, left:right] = IGNORE_INDEX
        target[top + 1 : bottom - 1, left + 1 : right - 1] = rng.integers(1, NUM_CLASSES)
    waver = np.clip(np.arange(WIDTH) + rng.integers(-3, 4, (HEIGHT, 1)), 0, WIDTH - 1)
    prediction = np.take_along_axis(target, waver, axis=1)
    prediction[prediction == IGNORE_INDEX] = 0
    prediction.flat[rng.integers(0, prediction.size, 400)] = 15
    return target, prediction


@click.command()
@click.option("--rounds", default=100, show_default=True, type=click.IntRange(1))
def main(rounds: int) -> None:
    """Print the median time of each method and its ratio to segcore's."""
    methods = {
        "segcore": confusion_matrix,
        "numpy, masked bincount": masked_bincount,
        "torchmetrics, unchecked": torchmetrics_matrix(False),
        "torchmetrics, checked": torchmetrics_matrix(True),
    }
    torch.set_num_threads(1)  # torchmetrics is slower with more
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for seed in range(rounds):
        pair = make_pair(seed)
        for name, method in methods.items():
            start = time.perf_counter()
            method(*pair)
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        ratio = statistics.median(other / own for other, own in zip(taken, seconds["segcore"], strict=True))
        click.echo(f"{name:26} {statistics.median(taken) * 1e3:7.3f} ms, {ratio:5.1f} times segcore's")


if __name__ == "__main__":
    main()
