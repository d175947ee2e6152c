"""Time to add a 500x375 image to the confusion matrix, relative to torchmetrics, alternated.

python -m bench.performance.scoring_speed [ROUNDS]
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torchmetrics.classification import MulticlassConfusionMatrix

from segcore.core.labels import IGNORE_INDEX, NUM_CLASSES
from segcore.evaluation.metrics import ClassMap, confusion_matrix
from tests.support.pairs import make_mask


def theirs(checked: bool) -> Callable[[ClassMap, ClassMap], object]:
    metric = MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=IGNORE_INDEX, validate_args=checked)
    return lambda target, prediction: metric.update(torch.from_numpy(prediction), torch.from_numpy(target))


def masked_bincount(target: ClassMap, prediction: ClassMap) -> object:
    scored = target != IGNORE_INDEX
    return np.bincount(NUM_CLASSES * target[scored].astype(np.int64) + prediction[scored], minlength=NUM_CLASSES**2)


def make_pair(seed: int) -> tuple[ClassMap, ClassMap]:
    """Return a mask and a prediction with ragged outlines and specks, in about 2,200 runs of equal pairs.

    DeepLabV3 on photos of VOC val of that size makes 660 to 6,600 runs, 2,100 in the median.
    """
    rng = np.random.default_rng(seed)
    target = make_mask(rng, 375, 500)
    waver = np.clip(np.arange(500) + rng.integers(-3, 4, (375, 1)), 0, 499)
    prediction = np.take_along_axis(target, waver, axis=1)
    prediction[prediction == IGNORE_INDEX] = 0
    prediction.flat[rng.integers(0, prediction.size, 400)] = 15
    return target, prediction


if __name__ == "__main__":
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    methods = {
        "segcore": confusion_matrix,
        "numpy, masked bincount": masked_bincount,
        "torchmetrics, unchecked": theirs(False),
        "torchmetrics, checked": theirs(True),
    }
    torch.set_num_threads(1)  # more of them make torchmetrics slower
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for number in range(rounds):
        pair = make_pair(number)
        for name, method in methods.items():
            start = time.perf_counter()
            method(*pair)
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        ratio = statistics.median(other / own for other, own in zip(taken, seconds["segcore"], strict=True))
        print(f"{name:26} {statistics.median(taken) * 1e3:7.3f} ms, {ratio:5.1f} times ours")
