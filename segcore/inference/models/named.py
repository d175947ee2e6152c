"""Models by what a user calls them: a built-in name, the name of a model file, or a path."""

from __future__ import annotations

from pathlib import Path

from segcore.core.errors import UsageError
from segcore.core.labels import VOC, LabelSet
from segcore.core.model_spec import ModelSpec, Source
from segcore.inference import models
from segcore.inference.models import EMBEDDED, model_names
from segcore.inference.models.sources import describe, own_weights
from segcore.inputs.download import FetchSettings
from segcore.inputs.model_files import ModelFiles


def find_model(name: str, files: ModelFiles) -> ModelSpec:
    """Return the model that a name or path means, with what its own files say.

    Args:
        name: as a user wrote it.
        files: the model files in which names are looked up.

    Raises:
        ModelError: there is none, or its files cannot be read.
        UsageError: a model file has the name of a built-in model.
    """
    if name in model_names():
        if name in files.names:
            raise UsageError(f"{files.directory}: a model file is named {name}, as a built-in model is: rename it")
        return built_in(name)
    return describe(files.find(name, model_names()))


def built_in(name: str) -> ModelSpec:
    """Return the description of a built-in model."""
    return ModelSpec(name, Source("embedded" if name == EMBEDDED else "torchvision", name))


def is_built_in(spec: ModelSpec) -> bool:
    """Return whether a model needs no file."""
    return spec.file is None and spec.name == spec.source.location and spec.name in model_names()


def labels_of(spec: ModelSpec) -> LabelSet | None:
    """Return the classes of a model before it is loaded; None if only its output tells how many there are."""
    return VOC if is_built_in(spec) else spec.labels


def weights_of(spec: ModelSpec, settings: FetchSettings | None = None) -> Path | None:
    """Return the file of a model's weights, which is downloaded if it is not here; None if the source is the file.

    Raises:
        DownloadError: it could not be fetched.
        ModelError: there is no such file.
    """
    kind, location = spec.source.kind, spec.source.location
    if spec.source.weights is None and kind in ("torchvision", "embedded"):
        return models.fetch_weights(location, settings)
    return own_weights(spec, settings)
