"""The record of an item, as far as the segmenter that ran it knows."""

from __future__ import annotations

from typing import Any

from segcore.core.records import BenchmarkRecord, Kind, LabelsRef
from segcore.inference import models
from segcore.inference.pipeline import Segmenter
from segcore.inference.preprocess import PREPROCESS


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
    model = segmenter.model_name
    if kind != "dataset" and model in models.model_names():  # the photos of a dataset differ in shape
        fields = {
            "gmacs": models.gmacs(model, height, width, classes=len(segmenter.labels)) * batch,
            "gbytes": models.gbytes(model, height, width, batch, classes=len(segmenter.labels)),
            **fields,
        }
    return BenchmarkRecord(
        kind=kind,
        case=case,
        model=model,
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
        preprocess=PREPROCESS,
        **fields,
    )
