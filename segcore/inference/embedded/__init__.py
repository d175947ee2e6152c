"""The embedded model: a small network, trained on PASCAL VOC 2012, whose weights ship inside the package.

See `docs/embedded-model.md` for its accuracy and limits.
"""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load

from segcore.core.errors import ModelError
from segcore.inference.catalog import WEIGHTS_PATH
from segcore.inference.embedded.net import EmbeddedNet

__all__ = ["WEIGHTS_PATH", "WEIGHTS_SHA256", "EmbeddedNet", "load_embedded"]

WEIGHTS_SHA256: Final = "4cbf7888a7f8335dddc9d89b78b3da6f2c25f8725b5435ddd884fb7a4914de2c"


def load_embedded(path: Path = WEIGHTS_PATH, digest: str = WEIGHTS_SHA256) -> EmbeddedNet:
    """Return the network in evaluation mode, float32, with the weights of a safetensors file in half precision.

    Raises:
        ModelError: the file is missing, or has another sha256.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read the embedded weights {path}: {error.strerror}; install segcore again") from error
    found = sha256(content).hexdigest()
    if found != digest:
        raise ModelError(
            f"the embedded weights {path} were changed: expected sha256 {digest}, found {found}; install segcore again"
        )
    with torch.device("meta"):
        net = EmbeddedNet()
    net.load_state_dict({name: t.float() for name, t in load(content).items()}, assign=True)
    return net.eval()
