"""Networks prepared for inference: copies in evaluation mode, without their last upsampling.

Every segmentation network here ends by upsampling its logits 4 or 8 times to the size of the input, bilinearly. Inside
the network, that makes 16 to 64 times as many numbers, most of which the argmax discards;
`segcore.inference.decode` does both at once, and no runtime has to return the large logits.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from segcore.core.errors import ModelError
from segcore.inference.decode import check_planes
from segcore.inference.embedded.net import EmbeddedNet


class BackboneAndHead(nn.Module):
    """Backbone and classifier of one of torchvision's networks: (B, 3, H, W) to logits at an eighth of that."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.classifier = network.classifier
        # The head of LRASPP takes two feature maps, those of the others ``out`` alone.
        self._takes_all = type(network).__name__ == "LRASPP"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits before the upsampling."""
        features = self.backbone(x)
        logits: torch.Tensor = self.classifier(features if self._takes_all else features["out"])
        return logits


class PassThrough(nn.Module):
    """Any other network: `embedded`, which has a method for its logits before the upsampling, or one as it is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), whether the network returns them alone or under ``"out"``.

        Raises:
            ModelError: it returns something else than a floating-point tensor of four dimensions.
        """
        if type(self.network) is EmbeddedNet:
            return self.network.logits(x)
        output = self.network(x)
        return check_planes(output.get("out", output) if isinstance(output, dict) else output, x.shape)


def ends_in_upsampling(network: nn.Module) -> bool:
    """Return whether a network is known to upsample its logits at its end."""
    return type(network) is EmbeddedNet or _is_torchvisions(network)


def _is_torchvisions(network: nn.Module) -> bool:
    kind = type(network)  # a subclass may end differently
    return kind.__module__.startswith("torchvision.models.") and kind.__name__ in ("FCN", "DeepLabV3", "LRASPP")


def without_upsampling(network: nn.Module) -> nn.Module:
    """Return an `inference_copy` of a network, without its last upsampling if it is known to have one.

    Raises:
        ModelError: the network cannot be copied.
    """
    copied = inference_copy(network)
    return (BackboneAndHead(copied) if _is_torchvisions(network) else PassThrough(copied)).eval()


def inference_copy(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode that shares the memory of its parameters.

    Moving or converting the copy gives it parameters of its own, so the original never changes: neither its modes, nor
    its devices, memory layouts, buffers and ``requires_grad``.

    Raises:
        ModelError: the network cannot be copied.
    """
    # deepcopy takes what it finds in its memo for copied: new parameters on the same storage. Tensors that are plain
    # attributes (as of the older torch.nn.utils.weight_norm) may be part of a graph, which it refuses to copy.
    memo: dict[int, object] = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
    attributes = (value for module in network.modules() for value in vars(module).values())
    memo |= {id(value): value.detach() for value in attributes if isinstance(value, torch.Tensor)}
    try:
        return copy.deepcopy(network, memo).eval()
    except Exception as error:  # whatever an attribute raises that cannot be copied or pickled
        raise ModelError(
            f"{type(network).__name__} cannot be copied: {error}; segcore runs a copy, so copy.deepcopy must work"
        ) from error
