"""A model that is loaded: its network, weights and labels, and what its model file says."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from segcore.core.labels import VOC, LabelSet
from segcore.core.model_spec import ModelSpec, Source
from segcore.core.records import WeightsRecord

IN_MEMORY = WeightsRecord(kind="checkpoint", name="in memory", sha256="")
"""Weights of a network that was passed in."""
NETWORK = ModelSpec("network", Source("module", ""))
"""What a network that was passed in takes and returns."""


@dataclass(frozen=True)
class LoadedModel:
    """A network in evaluation mode on the CPU, without its auxiliary head."""

    name: str
    module: nn.Module
    weights: WeightsRecord
    """Without a sha256 for a network that was passed in: it is hashed when someone asks."""
    labels: LabelSet = VOC
    """Its classes."""
    spec: ModelSpec = NETWORK
    """What its input and its output mean."""
