"""A public network that the embedded one may learn from: DeepLabV3-MobileNetV2, a TFLite file."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segcore.core.errors import ModelError
from segcore.core.labels import VOC
from training.data import Photo


class DeepLabTflite:
    """Photos resized to 257x257, whatever their aspect ratio, scaled to [-1, 1]; logits 257x257 of VOC's 21 classes.

    Args:
        path: of `deeplabv3_257_mv_gpu.tflite`, trained by TensorFlow's authors on COCO and PASCAL VOC.
        threads: of LiteRT.

    Raises:
        ModelError: the package `ai-edge-litert` is not installed, or the file cannot be read.
    """

    size = 257
    labels = VOC

    def __init__(self, path: Path, threads: int = 2) -> None:
        try:
            litert = import_module("ai_edge_litert.interpreter")
        except ModuleNotFoundError as error:
            raise ModelError(f"{path} needs LiteRT; pip install ai-edge-litert") from error
        try:
            self._interpreter = litert.Interpreter(model_path=str(path), num_threads=threads)
        except ValueError as error:
            raise ModelError(f"cannot read {path} as a TFLite file: {error}") from error
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def prepare(self, photo: NDArray[np.uint8]) -> Tensor:
        """Return float32 (3, 257, 257)."""
        resized = Image.fromarray(photo).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(resized, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits (B, 21, 257, 257)."""
        return torch.cat([self._run(image) for image in batch])

    def _run(self, image: Tensor) -> Tensor:
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(image.permute(1, 2, 0).numpy()[None]))
        self._interpreter.invoke()
        return torch.from_numpy(self._interpreter.get_tensor(self._output)).permute(0, 3, 1, 2)


def teacher_logits(teacher: DeepLabTflite, photos: Iterable[Photo]) -> Iterable[NDArray[np.float16]]:
    """Yield the teacher's logits for each photo, averaged with those for its mirror image: `[33, 33, 21]`.

    The network computes these; its 257x257 are upsampled from them (bilinear, corners aligned).
    """
    for photo in photos:
        image = teacher.prepare(photo.pixels)
        plain, mirrored = teacher.forward(torch.stack([image, image.flip(-1)]))[:, :, ::8, ::8]
        yield ((plain + mirrored.flip(-1)) / 2).permute(1, 2, 0).numpy().astype(np.float16)
