"""Speed of two Ray actors of one thread relative to one, alternated on this machine.

    python bench/performance/ray_scaling.py VOC2012 --size 256 --images 256 --rounds 3

The start of actors (importing torch, loading weights) and their last chunks are left out: images are counted while
every actor has work.
"""

from __future__ import annotations

import os
import statistics
import time
from functools import partial
from pathlib import Path

import click
import ray

from segcore import Segmenter, evaluate, open_dataset
from segcore.evaluation.ray_engine import RayEngine

CHUNK = 16
"""Images that an actor scores at a time."""


def images_per_second(root: Path, size: int, images: int, actors: int) -> float:
    """Return the rate of a number of actors, without the first two and the last chunk of each."""
    make = partial(Segmenter, "embedded", device="cpu", size=size)
    at: list[float] = []
    evaluate(
        make(),
        open_dataset("voc", root).first(images),
        engine=RayEngine(make, actors=actors),
        progress=lambda *_: at.append(time.perf_counter()),
    )
    begin, end = 2 * CHUNK * actors, images - CHUNK * actors - 1
    return (end - begin) / (at[end] - at[begin])


@click.command()
@click.argument("root", type=click.Path(path_type=Path, exists=True))
@click.option("--size", default=256, show_default=True, help="Shorter side at model scale.")
@click.option("--images", default=256, show_default=True, type=click.IntRange(8 * CHUNK), help="Of the split val.")
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(1))
def main(root: Path, size: int, images: int, rounds: int) -> None:
    """Print the rates of one and of two actors, and their ratio, round by round."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}  # by default actors have niceness 15
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ratios = []
    for _ in range(rounds):
        one, two = (images_per_second(root, size, images, actors) for actors in (1, 2))
        ratios.append(two / one)
        click.echo(f"one actor {one:.2f} images/s, two {two:.2f}, ratio {two / one:.2f}")
    click.echo(f"median ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
