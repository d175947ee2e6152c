"""The record of an item, as far as the segmenter that ran it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segcore.core.model_spec import InputSpec
from segcore.core.records import BenchmarkRecord, Kind, LabelsRef, ModelFileRecord
from segcore.inference import models
from segcore.inference.pipeline import Segmenter
from segcore.inference.preprocess import PREPROCESS
from segcore.inference.runtimes.artifacts import built_earlier_s

AS_SAID = "as the model file says"
"""Name of the convention if the input is another one: what it says is part of the model, not of the measurement."""


def model_file_of(segmenter: Segmenter) -> ModelFileRecord | None:
    """Return the record of the model file behind a segmenter; None if it is built in or a network was passed in."""
    spec = segmenter.spec
    if spec.source.kind == "module" or models.is_built_in(spec):
        return None
    file = spec.file.name if spec.file else Path(spec.source.location).name
    return ModelFileRecord(file=file, sha256=spec.digest, source=spec.source.kind, assumptions=spec.assumptions)


def model_bytes(segmenter: Segmenter) -> int | None:
    """Return the size of what is shipped: the file that the runtime loads, or the network's weights.

    Weights that lie beside a file (OpenVINO's ``.bin``, external data of ONNX) are counted if they have its name.
    """
    path = segmenter.artifact
    if path is not None:
        beside = {path.with_suffix(".bin"), path.with_name(f"{path.name}.data"), path}
        return sum(file.stat().st_size for file in beside if file.is_file()) or None
    is_half = segmenter.precision in ("bf16", "fp16")
    weights = segmenter.model.state_dict().values()
    return sum(t.numel() * (2 if is_half and t.is_floating_point() else t.element_size()) for t in weights) or None


def record_of(
    segmenter: Segmenter,
    *,
    kind: Kind,
    case: str,
    input_shape: tuple[int, int, int, int],
    size: int | None = None,
    **fields: Any,
) -> BenchmarkRecord:
    """Return a record of what ran, with other `fields` of `BenchmarkRecord`.

    `input_shape` is (B, 3, H, W) of what went into the model, `size` its shorter side, that of the segmenter if None.
    """
    batch, _, height, width = input_shape
    source, model = segmenter.spec.source, segmenter.spec.source.location
    earlier = built_earlier_s(segmenter.artifact) if segmenter.artifact else 0.0
    if kind != "dataset" and source.kind in ("torchvision", "embedded"):  # the photos of a dataset differ in shape
        fields = {
            "gmacs": models.gmacs(model, height, width, classes=len(segmenter.labels)) * batch,
            "gbytes": models.gbytes(model, height, width, batch, classes=len(segmenter.labels)),
            **fields,
        }
    return BenchmarkRecord(
        kind=kind,
        case=case,
        model=segmenter.model_name,
        model_file=model_file_of(segmenter),
        weights=segmenter.weights,
        runtime=segmenter.runtime,
        runtime_options=segmenter.runtime_options,
        precision=segmenter.precision,
        build_s=round(segmenter.build_seconds, 3),
        first_build_s=None if earlier is None else round(segmenter.build_seconds + earlier, 3),
        model_bytes=model_bytes(segmenter),
        device=segmenter.device.name,
        size=size or segmenter.size,
        batch=batch,
        input_shape=input_shape,
        labels=LabelsRef.of(segmenter.labels),
        preprocess=PREPROCESS if segmenter.spec.input == InputSpec() else AS_SAID,
        **fields,
    )
