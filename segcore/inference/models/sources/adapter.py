"""A network of a stranger behind the interface that runtimes know: (B, C, H, W) to a tensor (B, classes, h, w)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from segcore.core.errors import ModelError
from segcore.core.model_spec import OWN_RUNTIMES, InputSpec, ModelSpec, OutputSpec


class Adapter(nn.Module):
    """Gives a network the layout and type that it wants, and takes the output that counts."""

    def __init__(self, network: nn.Module, given: InputSpec, returned: OutputSpec) -> None:
        super().__init__()
        self.network = network
        self._nhwc_in, self._nhwc_out = given.layout == "nhwc", returned.layout == "nhwc"
        self._bytes = given.dtype == "uint8"
        self._name = returned.name

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output, a tensor, with the classes in dimension 1.

        Raises:
            ModelError: there is no output of that name, or several and no name.
        """
        x = x.to(torch.uint8) if self._bytes else x
        found = pick(self.network(x.permute(0, 2, 3, 1) if self._nhwc_in else x), self._name)
        return found.permute(0, 3, 1, 2) if self._nhwc_out and found.dim() == 4 else found


def is_needed(spec: ModelSpec) -> bool:
    """Return whether a network needs an `Adapter`: torchvision's, those that are the same, and files do not."""
    if spec.source.kind in OWN_RUNTIMES:
        return False
    own = spec.source.kind == "torchvision"
    default = spec.input.layout == spec.output.layout == "nchw" and spec.input.dtype != "uint8"
    return not (own and default and spec.output.name is None)


def pick(output: object, name: str | None) -> torch.Tensor:
    """Return a tensor of what a network returned: by name or number, else ``out``, ``logits`` or the only one.

    Raises:
        ModelError: there is no such tensor; the message lists the names.
    """
    if isinstance(output, torch.Tensor):
        return output
    named: dict[str, object] = {}
    if isinstance(output, Mapping):
        named = {str(key): value for key, value in output.items()}
    elif isinstance(output, tuple | list):
        named = {str(index): value for index, value in enumerate(output)}
    tensors = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    wanted = [name] if name is not None else ["out", "logits", *(tensors if len(tensors) == 1 else ())]
    for key in wanted:
        if key in tensors:
            return tensors[key]
    found = ", ".join(tensors) or type(output).__name__
    hint = "choose one by `output: {name: ...}`" if tensors else "wanted a tensor, or a dict or tuple of tensors"
    raise ModelError(f"the network returned no tensor {name or 'out'!r}, found {found}; {hint}")
