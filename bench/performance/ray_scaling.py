"""Speed of two Ray actors of one thread relative to one, alternated on this machine.

    python bench/performance/ray_scaling.py VOC_ROOT [SIZE [IMAGES [ROUNDS]]]

The start of actors (importing torch, loading weights) is left out: the clock runs while every actor has work.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from functools import partial

import ray

from segcore import Segmenter, open_dataset
from segcore.evaluation.ray_engine import RayEngine
from segcore.evaluation.scoring import ScoringTask

MARGIN = 3
"""Chunks per actor left out at the start, while other actors may still be starting."""


def images_per_second(root: str, size: int, images: int, actors: int) -> float:
    dataset = open_dataset("voc", root).first(images)
    engine = RayEngine(partial(Segmenter, "embedded", device="cpu", size=size), actors=actors)
    task = ScoringTask(dataset, ("photo",), workers=1)
    at = []
    for _ in engine(task, [tuple(range(start, min(start + 4, images))) for start in range(0, images, 4)]):
        at.append(time.perf_counter())
    begin, end = 4 * MARGIN * actors, images - 4 * actors - 1
    return (end - begin) / (at[end] - at[begin])


if __name__ == "__main__":
    root, size, images, rounds = sys.argv[1], *(int(text) for text in (*sys.argv[2:], "256", "100", "3")[:3])
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # 15 by default: last in the queue
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ratios = []
    for _ in range(rounds):
        one, two = (images_per_second(root, size, images, actors) for actors in (1, 2))
        ratios.append(two / one)
        print(f"one worker {one:.2f} images/s, two {two:.2f}, ratio {two / one:.2f}", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
