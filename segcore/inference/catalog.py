"""What is known of the built-in models without torch, whose import takes seconds: for `segcore models`."""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from segcore.inputs.download import FetchSettings, cached_path, verify

EMBEDDED: Final = "embedded"
WEIGHTS_PATH: Final = Path(__file__).parent / "embedded" / "embedded.safetensors"
"""The weights of `EMBEDDED`, which ship in the package."""
LISTED_SIZE: Final = 520
"""Side of the square photo that costs are of, as in torchvision's own tables."""
CHECKED: Final = (0, 29)
"""Latest version of torchvision that `LISTED` was compared with; those before have the same models and weights."""


@dataclass(frozen=True)
class Listed:
    """What a model costs, and which pretrained weights it has by default."""

    parameters: int
    """Without the auxiliary head."""
    gmacs: float
    """Of one photo of `LISTED_SIZE`."""
    weights: str
    url: str | None
    """None for weights that ship in the package."""
    size_mib: float
    """Of the file with the weights."""
    published: dict[str, float]
    """Published figures by name (torchvision: ``miou``, ``pixel_acc``), if any."""


def _torchvision(
    parameters: int, gmacs: float, weights: str, file: str, size_mib: float, miou: float, pixel_acc: float
) -> Listed:
    url = f"https://download.pytorch.org/models/{file}.pth"
    published = {"miou": miou, "pixel_acc": pixel_acc}
    return Listed(parameters, gmacs, f"{weights}_Weights.COCO_WITH_VOC_LABELS_V1", url, size_mib, published)


# fmt: off
LISTED: Final = {
    EMBEDDED: Listed(4951665, 1.3035888, WEIGHTS_PATH.name, None, 9.461, {}),
    "fcn_resnet101": _torchvision(
        51949141, 222.7468672, "FCN_ResNet101", "fcn_resnet101_coco-7ecb50ca", 207.711, 63.7, 91.9),
    "deeplabv3_mobilenet_v3_large": _torchvision(
        11025477, 10.436350688, "DeepLabV3_MobileNet_V3_Large", "deeplabv3_mobilenet_v3_large-fc3c493d",
        42.301, 60.3, 91.2),
    "deeplabv3_resnet101": _torchvision(
        58630997, 248.752300288, "DeepLabV3_ResNet101", "deeplabv3_resnet101_coco-586e9e4e", 233.217, 67.4, 92.4),
    "deeplabv3_resnet50": _torchvision(
        39638869, 168.731205888, "DeepLabV3_ResNet50", "deeplabv3_resnet50_coco-cd0a2569", 160.515, 66.4, 92.4),
    "fcn_resnet50": _torchvision(
        32957013, 142.7257728, "FCN_ResNet50", "fcn_resnet50_coco-1167a1af", 135.009, 60.5, 91.4),
    "lraspp_mobilenet_v3_large": _torchvision(
        3221538, 2.086219688, "LRASPP_MobileNet_V3_Large", "lraspp_mobilenet_v3_large-d234d4ea", 12.49, 57.9, 91.2),
}
# fmt: on
"""In the order in which models are listed."""


def listed_models() -> dict[str, Listed]:
    """Return every built-in model by name; torchvision is imported only if it is newer than `CHECKED`."""
    if is_checked():
        return LISTED
    from segcore.inference.models import counted_models

    return counted_models()


def is_checked() -> bool:
    """Return whether the installed torchvision has the models of `LISTED` and no others."""
    found = re.match(r"(\d+)\.(\d+)", importlib.metadata.version("torchvision"))
    return found is not None and (int(found[1]), int(found[2])) <= CHECKED


def hash_prefix(url: str) -> str:
    """Return the first hex digits of the sha256 of a file of torchvision's: ``fcn_resnet101_coco-7ecb50ca.pth``."""
    return Path(url).stem.rpartition("-")[2]


def weights_path(model: Listed, settings: FetchSettings | None = None) -> Path | None:
    """Return the verified file of a model's pretrained weights; None if it is not on this machine."""
    if model.url is None:
        return WEIGHTS_PATH
    prefix = hash_prefix(model.url)
    in_torch_hub = torch_hub() / "checkpoints" / Path(model.url).name
    return in_torch_hub if verify(in_torch_hub, prefix) else cached_path(model.url, sha256=prefix, settings=settings)


def torch_hub() -> Path:
    """Return torch's own directory of downloads."""
    if "torch" in sys.modules:  # a program can have set another one
        import torch

        return Path(torch.hub.get_dir())
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub"
