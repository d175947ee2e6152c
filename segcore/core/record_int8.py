"""What quantising a network found: the damage of each layer in int8, and which layers stay in fp32."""

from __future__ import annotations

from segcore.core.record_fields import Amount, Count, Number, PositiveCount, Record, Share, Text


class LayerRecord(Record):
    """One operator of a network, measured while it alone ran in int8."""

    name: Text
    module: Text = ""
    """Part of the network that the operator's weights belong to; empty if it has none."""
    kind: Text
    time: Share | None = None
    """Of the operators' time in int8; None if the runtime counts it as part of another operator's."""
    slower: Amount = 0.0
    """How much longer it takes in fp32, as a share of the operators' time in int8."""
    changed: Share
    """Pixels of another class than in fp32."""
    halved: Share
    """Pixels whose margin, between the best class in fp32 and the best other one, lost at least a half."""
    damage: Share
    """1 minus the mean IoU with the classes in fp32 as the truth."""
    classes: dict[Text, Share] = {}
    """1 minus the IoU of each class that changed by more than a thousandth, the largest first."""
    kept: bool = False


class Int8Record(Record):
    """The mixed precision that was found for a network, and what it was chosen by."""

    model: Text
    weights: Text
    """SHA-256."""
    runtime: Text
    size: PositiveCount
    """Shorter side, pixels."""
    calibration: Text
    """The photos that the ranges are from."""
    truth: Text
    """What the drop is measured against: masks of a dataset, or those of the same network in fp32."""
    limit: Share
    plain_drop: Number
    """Drop of mIoU with every layer in int8."""
    drop: Number
    """Drop of mIoU with the layers that are kept in fp32."""
    evaluations: Count
    """Candidates that were scored on all photos, after the sweep over the layers."""
    layers: tuple[LayerRecord, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """Names of the layers that stay in fp32."""
        return tuple(layer.name for layer in self.layers if layer.kept)
