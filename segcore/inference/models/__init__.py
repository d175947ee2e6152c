"""Which models there are, where their weights come from, and loading them.

Weights are ``pretrained`` (torchvision's ``DEFAULT``, or the file shipped for ``embedded``), ``random`` (seeded: for
latency only) or the path of a checkpoint. Nothing falls back from one to another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model_builder, get_model_weights, list_models, segmentation

from segcore.core.errors import ModelError, nearest_hint
from segcore.core.labels import NUM_CLASSES
from segcore.core.records import WeightsRecord
from segcore.inference.models import checkpoint
from segcore.inputs.download import FetchSettings, cached_path, download_file, sha256_file, verify

RANDOM_SEED = 0
EMBEDDED = "embedded"


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode on the CPU, without its auxiliary head."""

    name: str
    module: nn.Module
    weights: WeightsRecord


@dataclass(frozen=True)
class WeightsStatus:
    """Where the pretrained weights of a model are, or would come from."""

    name: str
    url: str | None
    """None for weights that ship in the package."""
    path: Path | None
    """Where they lie, verified; None when they are not here."""
    size_bytes: int | None
    published: dict[str, float]
    """Published figures by name (torchvision: ``miou``, ``pixel_acc``), if any."""


@cache
def model_names() -> tuple[str, ...]:
    """Return every model name: ``embedded``, ``fcn_resnet101``, then torchvision's other segmentation builders."""
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


def build(name: str, device: str = "cpu") -> nn.Module:
    """Return the network with initial (random) weights, 21 classes, no auxiliary head; ``meta`` costs no memory."""
    builder: Callable[..., nn.Module]
    if check_name(name) == EMBEDDED:
        from segcore.inference import embedded

        builder, options = embedded.embedded, {}
    else:
        builder = get_model_builder(name)
        options = {"weights": None, "weights_backbone": None, "num_classes": NUM_CLASSES}
        if not name.startswith("lraspp"):  # the only builder without an auxiliary head
            options["aux_loss"] = False
    with torch.device(device):
        return builder(**options)


def load(name: str, weights: str | Path = "pretrained", settings: FetchSettings | None = None) -> LoadedModel:
    """Return a model with its weights.

    Args:
        name: one of `model_names`.
        weights: ``pretrained``, ``random`` or the path of a checkpoint (``.pth``, ``.pt`` or ``.safetensors``).
        settings: cache, mirrors and time-outs of the download; from the environment when None.

    Raises:
        ModelError: the name is unknown, or the checkpoint does not fit.
        DownloadError: pretrained weights are not here and could not be fetched.
    """
    check_name(name)
    if str(weights) == "random":
        return _load_random(name)
    if str(weights) == "pretrained":
        return _load_embedded() if name == EMBEDDED else _load_pretrained(name, settings)
    path = Path(weights)
    module = build(name)
    checkpoint.load_into(module, path, name)
    return LoadedModel(name, module.eval(), WeightsRecord(kind="checkpoint", name=path.name, sha256=sha256_file(path)))


def _load_random(name: str) -> LoadedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        module = build(name).eval()
    return LoadedModel(
        name, module, WeightsRecord(kind="random", name=f"seed {RANDOM_SEED}", sha256=checkpoint.state_sha256(module))
    )


def _load_embedded() -> LoadedModel:
    from segcore.inference import embedded

    info = WeightsRecord(kind="pretrained", name=embedded.WEIGHTS_PATH.name, sha256=embedded.WEIGHTS_SHA256)
    return LoadedModel(EMBEDDED, embedded.load_embedded(), info)


def _load_pretrained(name: str, settings: FetchSettings | None) -> LoadedModel:
    default = _default_weights(name)
    path = fetch_weights(name, settings)
    module = build(name)
    checkpoint.load_into(module, path, name)
    return LoadedModel(
        name, module.eval(), WeightsRecord(kind="pretrained", name=str(default), sha256=sha256_file(path))
    )


def _default_weights(name: str) -> Any:
    return get_model_weights(name).DEFAULT


def _hash_prefix(url: str) -> str:
    """Torchvision's file names end in the first hex digits of their sha256: ``fcn_resnet101_coco-7ecb50ca.pth``."""
    return Path(url).stem.rpartition("-")[2]


def _in_torch_hub(url: str) -> Path | None:
    """A file that torch.hub has already downloaded, if its bytes are right."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    return path if verify(path, _hash_prefix(url)) else None


def weights_status(name: str, settings: FetchSettings | None = None) -> WeightsStatus:
    """Say where the pretrained weights of a model are, without touching the network."""
    if check_name(name) == EMBEDDED:
        from segcore.inference import embedded

        path = embedded.WEIGHTS_PATH
        return WeightsStatus(path.name, None, path, path.stat().st_size, {})
    default = _default_weights(name)
    url = default.url
    found = _in_torch_hub(url) or cached_path(url, sha256=_hash_prefix(url), settings=settings)
    published = default.meta["_metrics"]["COCO-val2017-VOC-labels"]
    size = found.stat().st_size if found else round(default.meta["_file_size"] * (1 << 20))
    return WeightsStatus(str(default), url, found, size, dict(published))


def fetch_weights(name: str, settings: FetchSettings | None = None) -> Path:
    """Return the path of the pretrained weights, downloading them if they are not here.

    Raises:
        DownloadError: they could not be fetched.
    """
    status = weights_status(name, settings)
    if status.path is not None:
        return status.path
    assert status.url is not None  # what ships in the package has a path
    return download_file(status.url, sha256=_hash_prefix(status.url), settings=settings)


@cache
def parameter_count(name: str) -> int:
    """Return the number of parameters, without the auxiliary head."""
    return sum(parameter.numel() for parameter in build(name, "meta").parameters())


@cache
def gmacs(name: str, height: int, width: int, batch: int = 1) -> float:
    """Return giga multiply-accumulates of one forward pass: half of what torch's own FLOP counter counts.

    Convolutions and matrix products count; element-wise work, normalisation and interpolation do not.
    """
    module = build(name, "meta").eval()
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        module(torch.empty(batch, 3, height, width, device="meta"))
    return counter.get_total_flops() / 2e9


@cache
def gbytes(name: str, height: int, width: int, batch: int = 1) -> float:
    """Return the gigabytes that the convolutions of one float32 forward pass move at least.

    Each reads its input and its weights and writes its output once; fusing it with what follows saves some of that, and
    whatever is no convolution is left out. GMACs over this are the arithmetic intensity of a roofline (Williams,
    Waterman and Patterson 2009, CACM 52:65).
    """
    module = build(name, "meta").eval()
    numbers = 0

    def count(convolution: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal numbers
        weights = sum(parameter.numel() for parameter in convolution.parameters())
        numbers += inputs[0].numel() + weights + output.numel()

    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    with torch.inference_mode():
        module(torch.empty(batch, 3, height, width, device="meta"))
    return 4 * numbers / 1e9
