"""The weights file that ships in the package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from segcore.core.files import write_file


def write_weights(net: nn.Module, path: Path, recipe: Mapping[str, object]) -> str:
    """Write the weights in half precision, with the recipe as metadata, and return the sha256 of the file."""
    state = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in net.state_dict().items()}
    content = save(state, metadata={"recipe": json.dumps(recipe)})
    write_file(path, content)
    return sha256(content).hexdigest()
