"""Networks without their last step.

Every segmentation network here ends by enlarging its logits 4 or 8 times to the size of the input, bilinearly. Left
to the network, that makes 16 to 64 times the numbers, which an argmax then throws away again;
`segcore.inference.decode` does both at once, and no runtime has to hand the large logits over.
"""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models.segmentation import FCN, LRASPP, DeepLabV3

from segcore.core.errors import ModelError
from segcore.core.labels import NUM_CLASSES


class BackboneAndHead(nn.Module):
    """Backbone and classifier of one of torchvision's networks: (B, 3, H, W) to logits at an eighth of that."""

    def __init__(self, network: FCN | DeepLabV3 | LRASPP) -> None:
        super().__init__()
        self.backbone = network.backbone
        self.classifier = network.classifier
        self._takes_all = isinstance(network, LRASPP)  # its head wants two feature maps, the others' ``out`` alone

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the network enlarges at its end."""
        features = self.backbone(x)
        logits: torch.Tensor = self.classifier(features if self._takes_all else features["out"])
        return logits


class EmbeddedLogits(nn.Module):
    """A network that offers its logits before the enlargement by itself, as `embedded` does."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the network enlarges at its end."""
        logits: torch.Tensor = self.network.logits(x)  # type: ignore[operator]  # a Module's attributes are untyped
        return logits


class PassThrough(nn.Module):
    """Any other network, as it is."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, H, W), whether the network returns them alone or under ``"out"``.

        Raises:
            ModelError: it returns something else.
        """
        output = self.network(x)
        logits = output["out"] if isinstance(output, dict) else output
        wanted = (x.shape[0], NUM_CLASSES, *x.shape[-2:])
        if not isinstance(logits, torch.Tensor) or tuple(logits.shape) != wanted:
            found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ModelError(f"the network returned {found} for an input of {tuple(x.shape)}, wanted logits {wanted}")
        return logits


def without_upsampling(network: nn.Module) -> nn.Module:
    """Return the network without its last enlargement where it is known to have one, sharing its weights."""
    from segcore.inference.embedded.net import EmbeddedNet

    # Exactly these types: a subclass may do something else at its end.
    if type(network) in (FCN, DeepLabV3, LRASPP):
        return BackboneAndHead(network).eval()
    return (EmbeddedLogits(network) if type(network) is EmbeddedNet else PassThrough(network)).eval()
