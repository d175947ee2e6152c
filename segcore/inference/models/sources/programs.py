"""Programs, which take a photo and write its class map."""

from __future__ import annotations

from torch import nn

from segcore.core.errors import ModelError
from segcore.core.model_spec import Description, ModelSpec, Resize
from segcore.core.records import WeightsRecord
from segcore.inference.runtimes.program import ProgramModel
from segcore.inputs.download import FetchSettings

PHOTOS_AND_MASKS = Description(
    input={"resize": Resize("none"), "scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3, "dtype": "uint8"},
    output={"kind": "classes"},
)
"""What every program gets and returns."""


def open_network(
    spec: ModelSpec, weights: str, settings: FetchSettings | None
) -> tuple[nn.Module, WeightsRecord, ModelSpec]:
    """Return the program, a record of its files, and the spec with what holds for every program.

    Raises:
        ModelError: its labels are not named, or weights are.
    """
    if weights != "pretrained":
        raise ModelError(f"{spec.file or spec.name}: a program has its own weights, so they cannot be {weights}")
    spec = spec.completed(PHOTOS_AND_MASKS)
    model = ProgramModel(spec)
    name = " ".join(model.program.command)
    return model, WeightsRecord(kind="checkpoint", name=name[:200], sha256=model.program.sha256()), spec
