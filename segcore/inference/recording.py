"""The record of an item, as far as the segmenter that ran it knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from segcore.core.model_spec import InputSpec
from segcore.core.records import BenchmarkRecord, Kind, LabelsRef, ModelFileRecord
from segcore.inference import models
from segcore.inference.models.named import is_built_in
from segcore.inference.pipeline import Segmenter
from segcore.inference.preprocess import PREPROCESS

AS_SAID = "as the model file says"
"""Name of the convention if the input is another one: what it says is part of the model, not of the measurement."""


def model_file_of(segmenter: Segmenter) -> ModelFileRecord | None:
    """Return the record of the model file behind a segmenter; None if it is built in or a network was passed in."""
    spec = segmenter.spec
    if spec.source.kind == "module" or is_built_in(spec):
        return None
    file = spec.file.name if spec.file else Path(spec.source.location).name
    return ModelFileRecord(file=file, sha256=spec.digest, source=spec.source.kind, assumptions=spec.assumptions)


def record_of(
    segmenter: Segmenter,
    *,
    kind: Kind,
    case: str,
    input_shape: tuple[int, int, int, int],
    size: int | None = None,
    **fields: Any,
) -> BenchmarkRecord:
    """Return a record of what ran: model, weights, runtime, device, shape and cost.

    Args:
        segmenter: what ran.
        kind: of the item.
        case: name of the item's case or dataset.
        input_shape: (B, 3, H, W) of the tensor that went into the model.
        size: shorter side at model scale, pixels; the segmenter's own if None.
        fields: other fields of `BenchmarkRecord`.
    """
    batch, _, height, width = input_shape
    source = segmenter.spec.source
    model = source.location
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
        device=segmenter.device.name,
        size=size or segmenter.size,
        batch=batch,
        input_shape=input_shape,
        labels=LabelsRef.of(segmenter.labels),
        preprocess=PREPROCESS if segmenter.spec.input == InputSpec() else AS_SAID,
        **fields,
    )
