"""Models that a runtime of their own runs, without torch: ONNX, OpenVINO and TFLite files, and programs."""

from __future__ import annotations

from segcore.core.errors import ModelError
from segcore.core.model_spec import Description, ModelSpec, Resize
from segcore.core.records import WeightsRecord
from segcore.inference.models.sources import Opened, file_of
from segcore.inference.runtimes.file_model import FileModel
from segcore.inference.runtimes.program import ProgramModel
from segcore.inputs.download import FetchSettings
from segcore.inputs.self_description import describe, read_header

PHOTOS_AND_MASKS = Description(
    input={"resize": Resize("none"), "scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "dtype": "uint8"},
    output={"kind": "classes"},
)
"""What every program gets and returns."""


def open_network(spec: ModelSpec, weights: str, settings: FetchSettings | None) -> Opened:
    """Return the file or program, its record, and the spec with what it says about itself."""
    if spec.source.kind == "command":
        if weights != "pretrained":
            raise ModelError(f"{spec.file or spec.name}: a program has its own weights, so they cannot be {weights}")
        spec = spec.completed(PHOTOS_AND_MASKS)
        model = ProgramModel(spec)
        name = " ".join(model.program.command)[:200]
        return model, WeightsRecord(kind="checkpoint", name=name, sha256=model.program.sha256()), spec
    path = file_of(spec, weights)
    header = read_header(spec)
    spec = spec.completed(describe(header, spec))
    record = WeightsRecord(kind="checkpoint", name=path.name, sha256=header.sha256())
    return FileModel(header, spec), record, spec
