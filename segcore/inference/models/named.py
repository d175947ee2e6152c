"""Models by what a user calls them: a built-in name, the name of a model file, or a path."""

from __future__ import annotations

from pathlib import Path

from segcore.core.errors import UsageError
from segcore.core.model_spec import ModelSpec
from segcore.inference import models
from segcore.inference.models import built_in, model_names
from segcore.inference.models.sources import describe, own_weights
from segcore.inputs.download import FetchSettings
from segcore.inputs.model_files import ModelFiles


def find_model(name: str, files: ModelFiles) -> ModelSpec:
    """Return the model that a user's name or path means, with what its own files say.

    Raises:
        ModelError: there is none, or its files cannot be read.
        UsageError: a model file has the name of a built-in model.
    """
    if name in model_names():
        if name in files.names:
            raise UsageError(f"{files.directory}: a model file is named {name}, as a built-in model is: rename it")
        return built_in(name)
    return describe(files.find(name, model_names()))


def weights_of(spec: ModelSpec, settings: FetchSettings | None = None) -> Path | None:
    """Return the file of a model's weights, which is downloaded if it is not here; None if the source is the file.

    Raises:
        DownloadError: it could not be fetched.
        ModelError: there is no such file.
    """
    if spec.source.weights is None and spec.source.kind in ("torchvision", "embedded"):
        return models.fetch_weights(spec.source.location, settings)
    return own_weights(spec, settings)
