"""Figures of the embedded model on a VOC root: `python -m training.evaluate --voc-root VOC2012`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np
from torch import nn

from segcore.core.labels import NUM_CLASSES, VOC_CLASSES
from segcore.evaluation.metrics import ConfusionMatrix, confusion_matrix, iou_per_class, mean_iou, pixel_accuracy
from segcore.inference.pipeline import Segmenter
from training.data import Photo, load_photos

ANIMALS_AND_PEOPLE: Final = ("background", "cat", "cow", "dog", "horse", "person", "sheep")
"""The classes with photos enough to be learned well."""

SIZES: Final = (320, 480, 640)
"""Shorter sides at which the network is scored."""


@dataclass(frozen=True)
class Scores:
    """What one confusion matrix says, as shares from 0 to 1; IoU is NaN for classes that were not to be seen."""

    iou: tuple[float, ...]
    mean_iou: float
    animals_and_people: float
    pixel_accuracy: float

    @classmethod
    def of(cls, matrix: ConfusionMatrix) -> Scores:
        """Derive the figures from a confusion matrix `(21, 21)`."""
        iou = iou_per_class(matrix)
        chosen = iou[[VOC_CLASSES.index(name) for name in ANIMALS_AND_PEOPLE]]
        return cls(tuple(iou.tolist()), mean_iou(matrix), float(np.nanmean(chosen)), pixel_accuracy(matrix))

    def line(self) -> str:
        """Return the figures in one line, for a log."""
        classes = " ".join(f"{name} {iou:.3f}" for name, iou in zip(VOC_CLASSES, self.iou, strict=True))
        return (
            f"7 classes {self.animals_and_people:.4f}, 21 classes {self.mean_iou:.4f}, "
            f"pixel accuracy {self.pixel_accuracy:.4f}; {classes}"
        )


def evaluate(net: nn.Module, photos: Iterable[Photo], size: int) -> Scores:
    """Score a network in evaluation mode on photos at their own resolution, in one confusion matrix."""
    segmenter = Segmenter(net, device="cpu", size=size)
    matrix = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)
    for photo in photos:
        matrix += confusion_matrix(photo.classes, segmenter(photo.pixels).class_map)
    return Scores.of(matrix)


@click.command(context_settings={"show_default": True})
@click.option(
    "--voc-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    required=True,
    help="Folder with ImageSets, JPEGImages and SegmentationClass.",
)
@click.option("--split", default="val", help="Photos to score: a list in ImageSets/Segmentation.")
@click.option("--size", "sizes", type=click.IntRange(32), multiple=True, default=SIZES, help="Shorter side, pixels.")
def main(voc_root: Path, split: str, sizes: tuple[int, ...]) -> None:
    """Score the shipped weights at the photos' own resolution and print a markdown table, in percent."""
    from segcore.inference.embedded import load_embedded
    from training.card import scores_table

    net, photos = load_embedded(), load_photos(voc_root, split)
    click.echo(scores_table({size: evaluate(net, photos, size) for size in sizes}))


if __name__ == "__main__":
    main()
