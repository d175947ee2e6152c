"""Networks that code builds: torchvision's, and those of a function in the user's own package."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import nn

from segcore.core.errors import ModelError, nearest_hint
from segcore.core.labels import VOC, LabelSet, numbered
from segcore.core.model_spec import ModelSpec
from segcore.core.text import first_line
from segcore.inference import models
from segcore.inference.models import checkpoint
from segcore.inference.models.sources import Opened, load_weights, own_weights
from segcore.inference.process_state import seeded
from segcore.inputs.download import FetchSettings


def open_network(spec: ModelSpec, weights: str, settings: FetchSettings | None) -> Opened:
    """Return a network with weights, its record, and the spec with what became known."""
    path = None
    if weights != "random":
        path = own_weights(spec, settings) if weights == "pretrained" else Path(weights)
    if spec.source.kind == "torchvision":
        return _torchvision(spec, weights, path, settings)
    with seeded(checkpoint.RANDOM_SEED):
        module = _call(spec)
    return module, load_weights(module, spec, weights, path, spec.source.location), spec


def _torchvision(spec: ModelSpec, weights: str, path: Path | None, settings: FetchSettings | None) -> Opened:
    name = spec.source.location
    known = [each for each in models.model_names() if each != models.EMBEDDED]
    if name not in known:
        hint = nearest_hint(name, known)
        raise ModelError(f"{spec.file}: torchvision has no model {name!r}{hint}; it has {', '.join(known)}")
    if path is None and weights != "random" and spec.labels is not None and spec.labels.names != VOC.names:
        raise ModelError(
            f"{spec.file}: torchvision's weights of {name} are for the classes of voc, "
            f"wanted those of {spec.labels.name}: add `weights:`, or run with random ones"
        )
    if path is not None and spec.labels is None:
        labels = _labels_of(path, name)
        assumed = f"labels: {path.name} has {len(labels)} classes, named as in {labels.name}"
        spec = replace(spec, labels=labels, assumptions=(*spec.assumptions, assumed))
    loaded = models.load(name, path or weights, settings, spec.labels)
    return loaded.module, loaded.weights, replace(spec, labels=loaded.labels)


def _labels_of(path: Path, name: str) -> LabelSet:
    """Return the labels that a checkpoint's own number of classes suggests."""
    most = 8 * sum(parameter.nbytes for parameter in models.build(name, "meta").parameters())
    state = checkpoint.read_state(path, max(most, 1 << 26))
    heads = [tensor for key, tensor in state.items() if key.startswith("classifier.") and key.endswith("weight")]
    count = len(heads[-1]) if heads else len(VOC)
    return VOC if count == len(VOC) else numbered(count)


def _call(spec: ModelSpec) -> nn.Module:
    """Return what the factory returns.

    Raises:
        ModelError: it cannot be imported, fails, or returns no network.
    """
    where, what = spec.file or "model", spec.source.location
    factory = _factory(spec)
    try:
        module = factory(**dict(spec.source.keywords))
    except Exception as error:  # a stranger's code
        raise ModelError(f"{where}: {what} failed: {type(error).__name__}: {first_line(error)[:300]}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{where}: {what} returned {type(module).__name__}, wanted a torch.nn.Module")
    return module


def _factory(spec: ModelSpec) -> Callable[..., object]:
    where = spec.file or "model"
    package, _, name = spec.source.location.partition(":")
    said = set(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    first = max((n for n, directory in enumerate(sys.path, 1) if directory in said), default=0)
    for directory in (str(spec.root), str(Path.cwd())):
        if directory not in sys.path:  # before what is installed, but after PYTHONPATH: the code of an arm is there
            sys.path.insert(first, directory)
    try:
        module = importlib.import_module(package)
    except Exception as error:  # a stranger's code
        hint = f"; looked in {spec.root} and the installed packages" if isinstance(error, ModuleNotFoundError) else ""
        kind = type(error).__name__
        raise ModelError(
            f"{where}: python: importing {package} failed: {kind}: {first_line(error)[:300]}{hint}"
        ) from error
    factory: object = getattr(module, name, None)
    if not callable(factory):
        hint = nearest_hint(name, [each for each in vars(module) if not each.startswith("_")])
        raise ModelError(f"{where}: python: {package} has no function or class {name!r}{hint}")
    return factory
