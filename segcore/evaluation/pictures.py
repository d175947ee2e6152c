"""The worst images side by side: photo, mask and prediction, so that a person can look at failures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segcore.core.files import write_file
from segcore.core.records import WorstRecord
from segcore.evaluation.scoring import Predictor
from segcore.inference.decode import RgbImage, blend, upsample_class_map
from segcore.inputs.datasets import Dataset


def save_worst(
    segmenter: Predictor, dataset: Dataset, worst: tuple[WorstRecord, ...], directory: Path
) -> tuple[WorstRecord, ...]:
    """Write one JPEG for each of the worst images and return the records that name them.

    Raises:
        SegcoreError: a photo that could be read before no longer can.
        OutputError: a picture cannot be written.
    """
    saved = []
    for stale in directory.glob("[0-9][0-9]-*.jpg"):  # of an earlier evaluation of the same name
        stale.unlink()
    for rank, record in enumerate(worst, start=1):
        photo, target = dataset.load(dataset.names.index(record.name))
        with torch.inference_mode():
            logits = segmenter.forward(segmenter.prepare(photo)[None])[0]
        prediction = upsample_class_map(logits, *target.shape)
        path = directory / f"{rank:02}-{Path(record.name).stem}.jpg"
        buffer = io.BytesIO()
        Image.fromarray(beside(photo, blend(photo, target, 0.7), blend(photo, prediction, 0.7))).save(buffer, "JPEG")
        write_file(path, buffer.getvalue())
        saved.append(record.model_copy(update={"picture": path.name}))
    return tuple(saved)


def beside(*pictures: RgbImage) -> RgbImage:
    """Return pictures of one height, uint8 RGB (H, W, 3), in a row with white between them."""
    gap = np.full((pictures[0].shape[0], 8, 3), 255, dtype=np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)
