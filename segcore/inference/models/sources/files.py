"""ONNX, OpenVINO and TFLite files, which runtimes execute without torch."""

from __future__ import annotations

from torch import nn

from segcore.core.model_spec import ModelSpec
from segcore.core.records import WeightsRecord
from segcore.inference.models.sources import file_of
from segcore.inference.runtimes.file_model import FileModel
from segcore.inputs.download import FetchSettings
from segcore.inputs.self_description import describe, read_header


def open_network(
    spec: ModelSpec, weights: str, settings: FetchSettings | None
) -> tuple[nn.Module, WeightsRecord, ModelSpec]:
    """Return the file, its record, and the spec with what the file says about itself."""
    path = file_of(spec, weights)
    header = read_header(spec)
    spec = spec.completed(describe(header, spec))
    record = WeightsRecord(kind="checkpoint", name=path.name, sha256=header.sha256())
    return FileModel(header, spec), record, spec
