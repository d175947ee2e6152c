"""An independent mIoU over VOC in twenty lines, to hold `segcore evaluate` against: nothing of segcore scores here.

python -m tests.support.crosscheck ROOT {MODEL SIZE | FILE.tflite} [LIMIT]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import transforms


def crosscheck(root: Path, names: list[str], logits_of: Callable[[Image.Image], torch.Tensor]) -> list[float]:
    """Return mIoU and pixel accuracy; `logits_of` gives (1, 21, h, w) of a photo."""
    hits, wanted, found = np.zeros(21), np.zeros(21), np.zeros(21)
    for name in names:
        photo = Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB")
        mask = np.array(Image.open(root / "SegmentationClass" / f"{name}.png"))
        with torch.inference_mode():
            full = torch.nn.functional.interpolate(logits_of(photo), mask.shape, mode="bilinear", align_corners=False)
        classes = full[0].argmax(0).numpy()
        for c in range(21):
            hits[c] += ((classes == c) & (mask == c)).sum()
            wanted[c] += (mask == c).sum()
            found[c] += ((classes == c) & (mask != 255)).sum()
    present = wanted + found > 0
    iou = hits[present] / (wanted + found - hits)[present]
    return [float(iou.mean()), float(hits.sum() / wanted.sum())]


def torch_model(module: torch.nn.Module, size: int) -> Callable[[Image.Image], torch.Tensor]:
    """The tutorials' recipe."""
    recipe = transforms.Compose(
        [
            transforms.Resize(size),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    def logits_of(photo: Image.Image) -> torch.Tensor:
        output = module(recipe(photo)[None])
        logits: torch.Tensor = output["out"] if isinstance(output, dict) else output
        return logits

    return logits_of


if __name__ == "__main__":
    from segcore import Segmenter
    from training.teacher import DeepLabTflite

    root, what, size = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 0
    listed = (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split()
    if what.endswith(".tflite"):
        deeplab = DeepLabTflite(Path(what))
        listed = listed[: size or None]
        print(crosscheck(root, listed, lambda photo: deeplab.forward(deeplab.prepare(np.array(photo))[None])))
    else:
        listed = listed[: int(sys.argv[4]) if len(sys.argv) > 4 else None]
        print(crosscheck(root, listed, torch_model(Segmenter(what, device="cpu").model, size)))
