"""Generated datasets with the layout of real ones, small enough to be scored in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn

from segcore.core.labels import IGNORE_INDEX, NUM_CLASSES, VOC_PALETTE, voc_colormap
from segcore.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD

ByteMap = npt.NDArray[np.uint8]


def make_mask(rng: np.random.Generator, height: int, width: int) -> ByteMap:
    """A few rectangles of classes on background, each with a rim of 255."""
    mask = np.zeros((height, width), dtype=np.uint8)
    for _ in range(3):
        top, left = rng.integers(0, height - 8), rng.integers(0, width - 8)
        bottom, right = top + rng.integers(6, height), left + rng.integers(6, width)
        mask[top:bottom, left:right] = IGNORE_INDEX
        mask[top + 1 : bottom - 1, left + 1 : right - 1] = rng.integers(1, NUM_CLASSES)
    return mask


def save_mask(mask: ByteMap, path: Path) -> None:
    picture = Image.fromarray(mask)
    picture.putpalette(voc_colormap().tobytes())
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def make_voc(root: Path, count: int, split: str = "val") -> list[str]:
    """Photos of noise in the colours of their masks, of three shapes; returns their names."""
    rng = np.random.default_rng(0)
    names = [f"2007_{number:06}" for number in range(count)]
    (root / "JPEGImages").mkdir(parents=True)
    for number, name in enumerate(names):
        height, width = ((40, 60), (48, 36), (40, 60), (33, 50))[number % 4]
        mask = make_mask(rng, height, width)
        noisy = voc_colormap()[mask] + rng.integers(0, 60, (height, width, 3))
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        save_mask(mask, root / "SegmentationClass" / f"{name}.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
    return names


def make_coco(root: Path) -> dict[str, ByteMap]:
    """Two images of 30x40 and one of nothing wanted; returns the mask that each should have, drawn by hand."""
    square = [[5.0, 5.0, 15.0, 5.0, 15.0, 15.0, 5.0, 15.0]]
    shifted = [[10.0, 10.0, 25.0, 10.0, 25.0, 20.0, 10.0, 20.0]]
    crowd = {"counts": [0, 30, 30 * 39], "size": [30, 40]}  # the first column, run lengths down the columns
    annotations = [
        (1, 17, square, 0),
        (1, 1, shifted, 0),
        (1, 1, crowd, 1),
        (2, 18, square, 0),
        (2, 18, shifted, 0),
        (2, 13, [[0.0, 0.0, 40.0, 0.0, 40.0, 30.0, 0.0, 30.0]], 0),  # a stop sign: no class of VOC
        (3, 13, square, 0),
    ]
    document = {
        "images": [{"id": i, "file_name": f"{i:012}.jpg", "height": 30, "width": 40} for i in (3, 1, 2)],
        "categories": [
            {"id": 1, "name": "person"},
            {"id": 13, "name": "stop sign"},
            {"id": 17, "name": "cat"},
            {"id": 18, "name": "dog"},
        ],
        "annotations": [
            {
                "id": n,
                "image_id": image,
                "category_id": category,
                "segmentation": drawn,
                "iscrowd": crowd_flag,
                "area": 1,
            }
            for n, (image, category, drawn, crowd_flag) in enumerate(annotations)
        ],
    }
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_val2017.json").write_text(json.dumps(document))
    (root / "val2017").mkdir()
    for image in (1, 2, 3):
        Image.new("RGB", (40, 30), (image * 50, 0, 0)).save(root / "val2017" / f"{image:012}.jpg")
    cat, dogs, nothing = (np.zeros((30, 40), dtype=np.uint8) for _ in range(3))
    cat[5:15, 5:15], cat[10:20, 10:25], cat[10:15, 10:15], cat[:, 0] = 8, 15, 255, 15
    dogs[5:15, 5:15], dogs[10:20, 10:25], dogs[10:15, 10:15] = 12, 12, 255
    return {"000000000001.jpg": cat, "000000000002.jpg": dogs, "000000000003.jpg": nothing}


TRAIN_IDS = dict(zip([7, 8, *range(11, 14), 17, *range(19, 29), *range(31, 34)], range(19), strict=True))
"""Of Cityscapes, by id: the classes that are scored, as published."""


def make_cityscapes(root: Path) -> dict[str, ByteMap]:
    """Three pairs of two cities; returns masks of label ids with every id there is, and 255, by name."""
    rng = np.random.default_rng(0)
    masks = {}
    for name in ("aachen/aachen_000000_000019", "aachen/aachen_000001_000019", "bonn/bonn_000000_000019"):
        ids = np.append(np.arange(34, dtype=np.uint8), np.uint8(255))
        masks[name] = np.kron(rng.choice(ids, (7, 9)), np.ones((5, 6), dtype=np.uint8))
        photo = Path(f"{root / 'leftImg8bit' / 'val' / name}_leftImg8bit.png")
        mask = Path(f"{root / 'gtFine' / 'val' / name}_gtFine_labelIds.png")
        for path, pixels in ((photo, rng.integers(0, 256, (35, 54, 3), dtype=np.uint8)), (mask, masks[name])):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    return masks


class PaletteNet(nn.Module):
    """Sees in each pixel the class whose VOC colour is nearest."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        pixels = (x * std + mean) * 255
        colours = torch.tensor(VOC_PALETTE, dtype=torch.float32).view(1, NUM_CLASSES, 3, 1, 1)
        return -((pixels[:, None] - colours) ** 2).sum(dim=2)
