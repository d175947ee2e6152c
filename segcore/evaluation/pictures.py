"""Write pictures: class map, margins, photo and overlay of a case, and the worst images of a dataset side by side."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from segcore.core.errors import SegcoreError
from segcore.core.files import shortened, write_file
from segcore.core.image_files import save_indexed_png
from segcore.core.records import MARGIN_PNG_STEP, AccuracyRecord, WorstRecord
from segcore.core.text import bounded
from segcore.evaluation.scoring import Predictor
from segcore.inference.decode import RgbImage, blend, outlined, upsample_class_map
from segcore.inference.pipeline import SegmentationResult
from segcore.inputs.datasets import Dataset

JPEG_QUALITY = 90


def save_pictures(result: SegmentationResult, record: AccuracyRecord, directory: Path, name: str) -> AccuracyRecord:
    """Write class map, margin map (if the result has margins), photo and overlay; return the record with their names.

    These are relative to the directory, and begin with the name of the item.

    Raises:
        OutputError: a file cannot be written.
    """
    names = {"class_map": f"{name}.classes.png", "photo": f"{name}.photo.jpg", "overlay": f"{name}.overlay.jpg"}
    save_indexed_png(result.class_map, directory / names["class_map"], result.labels)
    if result.margins is not None:
        names["margin_map"] = f"{name}.margin.png"
        grey = np.clip(np.rint(result.margins / MARGIN_PNG_STEP), 0, 255).astype(np.uint8)
        _save(Image.fromarray(grey), directory / names["margin_map"], "PNG", optimize=True)
    _save(Image.fromarray(result.photo), directory / names["photo"], "JPEG", quality=JPEG_QUALITY)
    drawn = outlined(result.overlay(), result.photo, result.class_map, result.labels)
    _save(Image.fromarray(drawn), directory / names["overlay"], "JPEG", quality=JPEG_QUALITY)
    return record.model_copy(update=names)


def save_worst(
    segmenter: Predictor, dataset: Dataset, worst: tuple[WorstRecord, ...], directory: Path
) -> tuple[tuple[WorstRecord, ...], list[str]]:
    """Write photo, mask and prediction of each of the worst images to a JPEG.

    Returns the records with the path of their picture, relative to the parent of `directory`, and the reason for each
    picture that could not be written.
    """
    saved, problems = [], []
    for stale in filter(Path.is_file, directory.glob("[0-9][0-9]-*.jpg")):  # of an earlier evaluation of the same name
        try:
            stale.unlink()
        except OSError as error:
            problems.append(f"{stale}: cannot be deleted: {error.strerror}")
    indices = {bounded(name): index for index, name in enumerate(dataset.names)}  # names as records have them
    for rank, record in enumerate(worst, start=1):
        path = directory / f"{rank:02}-{shortened(Path(record.name).stem)}.jpg"
        try:
            photo, target = dataset.load(indices[record.name])
            with torch.inference_mode():
                logits = segmenter.forward(segmenter.prepare(photo)[None])[0]
            prediction = upsample_class_map(logits, *target.shape)
            painted = (blend(photo, classes, 0.7, segmenter.labels) for classes in (target, prediction))
            row = side_by_side(photo, *painted)
            _save(Image.fromarray(row), path, "JPEG")
        except SegcoreError as error:
            problems.append(str(error))
        else:
            record = record.model_copy(update={"picture": f"{directory.name}/{path.name}"})
        saved.append(record)
    return tuple(saved), problems


def side_by_side(*pictures: RgbImage) -> RgbImage:
    """Return pictures of one height, uint8 RGB (H, W, 3), in a row separated by white."""
    gap = np.full((pictures[0].shape[0], 8, 3), 255, dtype=np.uint8)
    parts = [part for picture in pictures for part in (picture, gap)]
    return np.concatenate(parts[:-1], axis=1)


def _save(image: Image.Image, path: Path, kind: str, **options: int) -> None:
    data = io.BytesIO()
    image.save(data, kind, **options)
    write_file(path, data.getvalue())
