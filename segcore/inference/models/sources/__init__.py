"""Open what a model file names: a network with its weights, its labels, and how it wants its input.

Each file has ``open_network(spec, weights, settings)`` for one or two kinds of sources. It is imported on use, because
its packages may not be installed.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from segcore.core.errors import ModelError
from segcore.core.files import sha256_file
from segcore.core.labels import LabelSet, numbered
from segcore.core.model_spec import ModelSpec
from segcore.core.records import WeightsRecord
from segcore.core.text import first_line
from segcore.inference.models.loaded import LoadedModel
from segcore.inference.models.sources.adapter import Adapter, is_needed, pick
from segcore.inputs.download import FetchSettings, download_file
from segcore.inputs.hugging_face import describe_directory
from segcore.inputs.self_description import FILE_KINDS, read_header
from segcore.inputs.self_description import describe as describe_header

HOMES: dict[str, str] = {
    "torchvision": "builders",
    "python": "builders",
    "transformers": "hugging_face",
    "exported": "torch_files",
    "torchscript": "torch_files",
    "command": "programs",
    **dict.fromkeys(FILE_KINDS, "files"),
}
"""File of this package for each kind of source."""
PROBE_SIDE = 64
"""Height and width of the input that a network's classes are counted on, if it has no size of its own."""


def open_source(
    spec: ModelSpec,
    weights: str | Path = "pretrained",
    settings: FetchSettings | None = None,
    labels: LabelSet | None = None,
) -> LoadedModel:
    """Return the model that a model file describes.

    Args:
        spec: the file.
        weights: ``pretrained`` (those that the file names), ``random`` or the path of other ones.
        settings: cache, mirrors and time-outs of downloads.
        labels: the classes, in place of those of the file.

    Raises:
        ModelError: it cannot be imported, read or built, or its weights do not fit.
        DownloadError: its weights are not on this machine and could not be fetched.
        NotInstalledError: a package that it needs is missing.
    """
    spec = replace(spec, labels=labels) if labels is not None else spec
    home = importlib.import_module(f"{__name__}.{HOMES[spec.source.kind]}")
    module, record, spec = home.open_network(spec, str(weights), settings)
    network = Adapter(module, spec.input, spec.output) if is_needed(spec) else module
    network = network.eval()
    if spec.labels is None:
        spec = with_counted_labels(spec, network)
    assert spec.labels is not None  # see with_counted_labels
    return LoadedModel(spec.name, network, record, spec.labels, spec)


def describe(spec: ModelSpec) -> ModelSpec:
    """Return the spec with what the model's own files say, without loading its weights where that is possible.

    Raises:
        ModelError: they cannot be read.
    """
    if spec.source.kind in FILE_KINDS:
        return spec.completed(describe_header(read_header(spec), spec))
    if spec.source.kind == "transformers":
        return spec.completed(describe_directory(Path(spec.source.location)))
    if spec.source.kind == "command":
        return spec.completed(importlib.import_module(f"{__name__}.programs").PHOTOS_AND_MASKS)
    if spec.source.kind == "exported":
        found: ModelSpec = importlib.import_module(f"{__name__}.torch_files").open_network(spec, "pretrained", None)[2]
        return found
    return spec


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


def file_of(spec: ModelSpec, weights: str) -> Path:
    """Return the path of a source that is a file or directory with weights of its own.

    Raises:
        ModelError: there is none, or other weights were asked for.
    """
    path = Path(spec.source.location)
    if not path.exists():
        raise ModelError(f"{spec.file or 'model'}: source: {spec.source.kind}: there is no {path}")
    if weights != "pretrained":
        raise ModelError(f"{path} holds its weights, so they cannot be {weights}; omit the weights")
    return path


def file_record(path: Path) -> WeightsRecord:
    """Return the record of weights that are in a file."""
    return WeightsRecord(kind="checkpoint", name=path.name, sha256=sha256_file(path))


def with_counted_labels(spec: ModelSpec, network: nn.Module) -> ModelSpec:
    """Return the spec with numbered classes, as many as a network has channels.

    Raises:
        ModelError: they cannot be counted.
    """
    if spec.output.kind == "classes":
        raise ModelError(f"{spec.name} returns class maps, from which classes cannot be counted: name its labels")
    size = spec.input.own_size or (PROBE_SIDE,)
    height, width = size[0], size[-1]
    step = spec.input.multiple_of
    shape = (1, spec.input.channels, -(-height // step) * step, -(-width // step) * step)
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
