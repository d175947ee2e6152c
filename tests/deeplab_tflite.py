"""Google's DeepLabV3-MobileNetV2 (TFLite file) as a predictor: proof that evaluation is not about torch alone."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image


class DeepLabTflite:
    """Photos squeezed to 257x257, scaled to [-1, 1]; logits of 257x257 with VOC's 21 classes.

    Args:
        path: of the TFLite file.
    """

    size = 257

    def __init__(self, path: Path) -> None:
        litert = import_module("ai_edge_litert.interpreter")
        self._interpreter = litert.Interpreter(model_path=str(path), num_threads=2)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]

    def prepare(self, photo: npt.NDArray[np.uint8]) -> torch.Tensor:
        """Return float32 (3, 257, 257)."""
        squeezed = Image.fromarray(photo).resize((self.size, self.size), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.asarray(squeezed, dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, 257, 257)."""
        return torch.cat([self._run(image) for image in batch])

    def _run(self, image: torch.Tensor) -> torch.Tensor:
        self._interpreter.set_tensor(self._input, np.ascontiguousarray(image.permute(1, 2, 0).numpy()[None]))
        self._interpreter.invoke()
        return torch.from_numpy(self._interpreter.get_tensor(self._output)).permute(0, 3, 1, 2)
