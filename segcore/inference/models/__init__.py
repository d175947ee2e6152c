"""Models by name: where their weights come from, loading them, and what a forward pass costs.

Weights are ``pretrained`` (torchvision's ``DEFAULT``, or the file shipped for ``embedded``), ``random`` (seeded: for
latency only) or the path of a checkpoint. None of them ever falls back to another.

torchvision, which takes as long to import as torch, is imported for its own models alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segcore.core.errors import ModelError, nearest_hint
from segcore.core.labels import VOC, LabelSet
from segcore.core.model_spec import ModelSpec, Source
from segcore.core.records import WeightsRecord
from segcore.inference import catalog, embedded
from segcore.inference.catalog import EMBEDDED as EMBEDDED
from segcore.inference.catalog import LISTED, LISTED_SIZE, Listed, hash_prefix
from segcore.inference.models import checkpoint
from segcore.inference.process_state import alone, seeded
from segcore.inputs.download import FetchSettings, download_file
from segcore.inputs.model_files import is_path, spec_of_path

IN_MEMORY = WeightsRecord(kind="checkpoint", name="in memory", sha256="")
"""Weights of a network that was passed in."""
NETWORK = ModelSpec("network", Source("module", ""))
"""What a network that was passed in takes and returns."""


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode on the CPU, without its auxiliary head."""

    name: str
    module: nn.Module
    weights: WeightsRecord
    """Without a sha256 for a network that was passed in: it is hashed when someone asks."""
    labels: LabelSet = VOC
    spec: ModelSpec = NETWORK


@cache
def model_names() -> tuple[str, ...]:
    """Return every model name: ``embedded``, ``fcn_resnet101``, then torchvision's other segmentation builders."""
    if catalog.is_checked():
        return tuple(LISTED)
    from torchvision.models import list_models, segmentation

    others = sorted(set(list_models(module=segmentation)) - {"fcn_resnet101"})
    return (EMBEDDED, "fcn_resnet101", *others)


def check_name(name: str) -> str:
    """Return the name if there is such a model.

    Raises:
        ModelError: there is none; the message names the nearest.
    """
    if name not in model_names():
        hint = nearest_hint(name, model_names())
        raise ModelError(f"unknown model {name!r}{hint}; known: {', '.join(model_names())}")
    return name


def build(name: str, device: str = "cpu", classes: int = len(VOC)) -> nn.Module:
    """Return the network with random weights, without its auxiliary head; on ``meta`` it takes no memory."""
    builder: Callable[..., nn.Module] = embedded.EmbeddedNet
    options: dict[str, Any] = {}
    if check_name(name) != EMBEDDED:
        from torchvision.models import get_model_builder

        builder = get_model_builder(name)
        options = {"weights": None, "weights_backbone": None, "num_classes": classes}
        if not name.startswith("lraspp"):  # the only builder without an auxiliary head
            options["aux_loss"] = False
    with alone(), torch.device(device):  # the first weights are random ones
        return builder(**options)


def _damp_residuals(network: nn.Module) -> None:
    """Scale what each block of a ResNet adds: untrained, 33 of them in a row leave the range of fp16."""
    from torchvision.models.resnet import Bottleneck

    for module in network.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.25)


def built_in(name: str) -> ModelSpec:
    """Return the description of a built-in model."""
    return ModelSpec(name, Source("embedded" if name == EMBEDDED else "torchvision", name), VOC)


def is_built_in(spec: ModelSpec) -> bool:
    """Return whether a model needs no file."""
    return spec.file is None and spec.name == spec.source.location and spec.name in model_names()


def load(
    model: str | ModelSpec,
    weights: str | Path = "pretrained",
    settings: FetchSettings | None = None,
    labels: LabelSet | None = None,
) -> LoadedModel:
    """Return a model with its weights.

    Args:
        model: one of `model_names`, what a model file says, or the path of one or of a model that describes itself.
        weights: ``pretrained``, ``random`` or the path of a checkpoint (``.pth``, ``.pt`` or ``.safetensors``).
        settings: cache, mirrors and time-outs of the download; from the environment if None.
        labels: the classes that the weights were trained for; VOC if None.

    Raises:
        ModelError: the name is unknown, the checkpoint does not fit, or the model's weights are of other classes.
        DownloadError: pretrained weights are not on this machine and could not be fetched.
    """
    if isinstance(model, ModelSpec) and is_built_in(model):
        labels, model = labels or model.labels, model.name
    if isinstance(model, ModelSpec) or (model not in model_names() and is_path(model)):
        from segcore.inference.models.sources import open_source  # which builds on this module

        spec = model if isinstance(model, ModelSpec) else spec_of_path(Path(model))
        return open_source(spec, weights, settings, labels)
    name, weights, labels = check_name(model), str(weights), labels or VOC
    _check_labels(name, weights, labels)
    if name == EMBEDDED and weights == "pretrained":
        module: nn.Module = embedded.load_embedded()
        own, sha256 = embedded.WEIGHTS_PATH.name, embedded.WEIGHTS_SHA256
        record = WeightsRecord(kind="pretrained", name=own, sha256=sha256)
    elif weights == "random":
        with seeded(checkpoint.RANDOM_SEED):
            module = build(name, classes=len(labels))
        if name != EMBEDDED:
            _damp_residuals(module)
        record = checkpoint.random_record(module)
    else:
        path = fetch_weights(name, settings) if weights == "pretrained" else Path(weights)
        module = build(name, classes=len(labels))
        record = checkpoint.load_into(module, path, name, labels)
        if weights == "pretrained":
            record = record.model_copy(update={"kind": "pretrained", "name": str(_default_weights(name))})
    return LoadedModel(name, module.eval(), record, labels, replace(built_in(name), labels=labels))


def _check_labels(name: str, weights: str, labels: LabelSet) -> None:
    """Refuse classes that a model with such weights cannot have."""
    if weights == "pretrained" and labels.names != VOC.names:
        raise ModelError(
            f"the pretrained weights of {name} are for the classes of {VOC.name}, wanted those of {labels.name}: "
            "name a checkpoint that was trained for them"
        )
    if name == EMBEDDED and len(labels) != len(VOC):
        raise ModelError(
            f"{EMBEDDED} tells {len(VOC)} classes apart, {labels.name} has {len(labels)}: choose another model"
        )


def _default_weights(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name).DEFAULT


def listed(name: str) -> Listed:
    """Return what torchvision says of a model's default weights; its cost only if that is known without counting."""
    if name == EMBEDDED:
        return LISTED[EMBEDDED]
    default = _default_weights(name)
    known = LISTED.get(name)
    parameters, cost = (known.parameters, known.gmacs) if known else (0, 0.0)
    published = default.meta["_metrics"]["COCO-val2017-VOC-labels"]
    return Listed(parameters, cost, str(default), default.url, default.meta["_file_size"], dict(published))


def fetch_weights(name: str, settings: FetchSettings | None = None) -> Path:
    """Return the path of the pretrained weights, downloading them if they are not on this machine.

    Raises:
        DownloadError: they could not be fetched.
    """
    known = listed(check_name(name))
    if (path := catalog.weights_path(known, settings)) is not None:
        return path
    assert known.url is not None  # what ships in the package has a path
    return download_file(known.url, sha256=hash_prefix(known.url), settings=settings)


def counted_models() -> dict[str, Listed]:
    """Return every model with its cost, which is counted; that takes seconds."""
    return {
        name: replace(listed(name), parameters=parameter_count(name), gmacs=gmacs(name, LISTED_SIZE, LISTED_SIZE))
        for name in model_names()
    }


def parameter_count(name: str) -> int:
    """Return the number of parameters, without the auxiliary head."""
    return sum(parameter.numel() for parameter in build(name, "meta").parameters())


def gmacs(name: str, height: int, width: int, batch: int = 1, classes: int = len(VOC)) -> float:
    """Return giga multiply-accumulates of one forward pass: half of what torch's own FLOP counter counts.

    Convolutions and matrix products count; element-wise work, normalisation and interpolation do not.
    """
    return _count(name, height, width, classes)[0] / 2e9 * batch


def gbytes(name: str, height: int, width: int, batch: int = 1, classes: int = len(VOC)) -> float:
    """Return the least gigabytes that the convolutions of one float32 forward pass move.

    Each reads its input and its weights and writes its output once; fusing it with the next operator saves some of
    that, and other operators are left out. GMACs over this are the arithmetic intensity of a roofline (Williams,
    Waterman and Patterson 2009, CACM 52:65).
    """
    _, activations, weights = _count(name, height, width, classes)
    return 4 * (batch * activations + weights) / 1e9


@cache
def _count(name: str, height: int, width: int, classes: int) -> tuple[int, int, int]:
    """Return, for one photo, FLOPs, and how many numbers of activations and of weights the convolutions move."""
    module = build(name, "meta", classes).eval()
    activations, weights = 0, 0

    def count(convolution: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal activations, weights
        activations += inputs[0].numel() + output.numel()
        weights += sum(parameter.numel() for parameter in convolution.parameters())

    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    counter = FlopCounterMode(display=False)
    with alone(), counter, torch.inference_mode():  # the counter hooks into every network
        module(torch.empty(1, 3, height, width, device="meta"))
    return counter.get_total_flops(), activations, weights
