"""Find a model by name, and open what its file names: a network, weights, labels, and how it wants its input.

Each file has ``open_network(spec, weights, settings)`` for some kinds of sources, and builds on this one.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from torch import nn

from segcore.core.errors import ModelError, UsageError
from segcore.core.files import sha256_file
from segcore.core.labels import VOC, LabelSet, numbered
from segcore.core.model_spec import ModelSpec
from segcore.core.records import WeightsRecord
from segcore.core.text import first_line
from segcore.inference import models
from segcore.inference.geometry import frame_of
from segcore.inference.models import LoadedModel, checkpoint
from segcore.inference.models.sources.adapter import Adapter, is_needed, pick
from segcore.inputs.download import FetchSettings, download_file
from segcore.inputs.hugging_face import describe_directory
from segcore.inputs.model_files import ModelFiles
from segcore.inputs.self_description import FILE_KINDS, read_header
from segcore.inputs.self_description import describe as describe_header

Opened = tuple[nn.Module, WeightsRecord, ModelSpec]
"""A network with its weights, their record, and the spec with what became known."""

HOMES: dict[str, str] = {
    "torchvision": "builders",
    "python": "builders",
    "transformers": "hugging_face",
    "exported": "torch_files",
    "torchscript": "torch_files",
    **dict.fromkeys((*FILE_KINDS, "command"), "own_runtime"),
}
"""File of this package for each kind of source."""
PROBE_SIDE = 64
"""Height and width of the photo that a network's classes are counted on."""


def find_model(name: str, files: ModelFiles) -> ModelSpec:
    """Return the model that a user's name or path means, with what its own files say.

    Raises:
        ModelError: there is none, or its files cannot be read.
        UsageError: a model file has the name of a built-in model.
    """
    if name in models.model_names():
        if name in files.names:
            raise UsageError(f"{files.directory}: a model file is named {name}, as a built-in model is: rename it")
        return models.built_in(name)
    return describe(files.find(name, models.model_names()))


def open_source(
    spec: ModelSpec,
    weights: str | Path = "pretrained",
    settings: FetchSettings | None = None,
    labels: LabelSet | None = None,
) -> LoadedModel:
    """Return the model that a model file describes; arguments as those of `segcore.inference.models.load`.

    Raises:
        ModelError: it cannot be imported, read or built, or its weights do not fit.
        DownloadError: its weights are not on this machine and could not be fetched.
        NotInstalledError: a package that it needs is missing.
    """
    spec = replace(spec, labels=labels or spec.labels)
    module, record, spec = _home(spec.source.kind).open_network(spec, str(weights), settings)
    network = Adapter(module, spec.input, spec.output) if is_needed(spec) else module
    network = network.eval()
    if spec.labels is None:
        spec = with_counted_labels(spec, network)
    assert spec.labels is not None  # see with_counted_labels
    return LoadedModel(spec.name, network, record, spec.labels, spec)


def _home(kind: str) -> ModuleType:
    return importlib.import_module(f"{__name__}.{HOMES[kind]}")


def describe(spec: ModelSpec) -> ModelSpec:
    """Return the spec with what the model's own files say, without loading its weights where that is possible.

    Raises:
        ModelError: they cannot be read.
    """
    kind = spec.source.kind
    if kind in FILE_KINDS:
        return spec.completed(describe_header(read_header(spec), spec))
    if kind == "transformers":
        return spec.completed(describe_directory(Path(spec.source.location)))
    if kind == "command":
        return spec.completed(_home(kind).PHOTOS_AND_MASKS)
    if kind == "exported":
        found: ModelSpec = _home(kind).open_network(spec, "pretrained", None)[2]
        return found
    return spec


def weights_of(spec: ModelSpec, settings: FetchSettings | None = None) -> Path | None:
    """Return the file of a model's weights, which is downloaded if it is not here; None if the source is the file.

    Raises:
        DownloadError: it could not be fetched.
        ModelError: there is no such file.
    """
    if spec.source.weights is None and spec.source.kind in ("torchvision", "embedded"):
        return models.fetch_weights(spec.source.location, settings)
    return own_weights(spec, settings)


def own_weights(spec: ModelSpec, settings: FetchSettings | None) -> Path | None:
    """Return the path of the weights that a model file names, which are downloaded if necessary; None if it names none.

    Raises:
        DownloadError: they cannot be fetched.
        ModelError: there is no such file, or it has another sha256.
    """
    place, digest = spec.source.weights, spec.source.sha256
    if place is None:
        return None
    if "://" in place:
        return download_file(place, sha256=digest, settings=settings)
    path = Path(place)
    if not path.is_file():
        raise ModelError(f"{spec.file}: weights: there is no file {path}")
    if digest is not None and (found := sha256_file(path)) != digest:
        raise ModelError(f"{spec.file}: weights: {path} has sha256 {found}, wanted {digest}: it was changed")
    return path


def load_weights(module: nn.Module, spec: ModelSpec, weights: str, path: Path | None, own: str) -> WeightsRecord:
    """Load the checkpoint at a path, if there is one, into a network, and return the record of its weights.

    Without one they are ``random`` or those that the network has by itself, whose name is `own`.

    Raises:
        ModelError: the checkpoint does not fit.
    """
    if path is not None:
        return checkpoint.load_into(module, path, spec.name, spec.labels or VOC)
    if weights == "random":
        return checkpoint.random_record(module)
    return WeightsRecord(kind="checkpoint", name=own, sha256=checkpoint.state_sha256(module))


def file_of(spec: ModelSpec, weights: str) -> Path:
    """Return the path of a source that is a file or directory with weights of its own.

    Raises:
        ModelError: there is none, or other weights were asked for.
    """
    path = Path(spec.source.location)
    if not path.exists():
        raise ModelError(f"{spec.file or 'model'}: source: {spec.source.kind}: there is no {path}")
    if not (path.is_file() or path.is_dir()):
        raise ModelError(f"{spec.file or 'model'}: source: {spec.source.kind}: {path} is not a regular file")
    if weights != "pretrained":
        raise ModelError(f"{path} holds its weights, so they cannot be {weights}; omit the weights")
    return path


def with_counted_labels(spec: ModelSpec, network: nn.Module) -> ModelSpec:
    """Return the spec with numbered classes, as many as a network has channels.

    Raises:
        ModelError: they cannot be counted.
    """
    if spec.output.kind == "classes":
        raise ModelError(f"{spec.name} returns class maps, from which classes cannot be counted: name its labels")
    frame = frame_of(spec.input, PROBE_SIDE, PROBE_SIDE, PROBE_SIDE)
    shape = (1, spec.input.channels, *frame.input)
    try:
        with torch.inference_mode():
            output = network(torch.zeros(shape))
    except Exception as error:  # anything that a stranger's code raises
        reason = f"{type(error).__name__}: {first_line(error)[:300]}"
        raise ModelError(
            f"{spec.name}: its classes cannot be counted on an input {shape}: {reason}; name its labels"
        ) from error
    output = pick(output, None)
    if output.dim() != 4:
        found = tuple(output.shape)
        raise ModelError(f"{spec.name} returned {found} for an input {shape}, wanted (1, classes, height, width)")
    channels = output.shape[1]
    count = channels + (spec.output.kind == "sigmoid" or channels == 1)  # one channel tells two classes apart
    assumed = f"labels: nothing names the {count} classes, so they are class 0 to class {count - 1}"
    return replace(spec, labels=numbered(count), assumptions=(*spec.assumptions, assumed))
