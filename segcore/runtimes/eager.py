"""Plain torch, operator by operator: the reference that every other runtime is held against."""

from __future__ import annotations

import torch
from torch import nn

from segcore.devices import Device
from segcore.errors import DeviceError, ModelError
from segcore.labels import NUM_CLASSES


class EagerSession:
    """Eager execution in inference mode, full precision."""

    def __init__(self, module: nn.Module, device: Device, precision: str = "fp32") -> None:
        if precision != "fp32":
            raise DeviceError(f"runtime torch has no precision {precision!r}; it runs in fp32")
        self._module = module.to(device.torch_device).eval()

    @property
    def options(self) -> dict[str, str]:
        """Eager execution has none."""
        return {}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, H, W) for a batch (B, 3, H, W).

        Raises:
            ModelError: the network does not return logits of that shape, alone or under ``"out"``.
        """
        with torch.inference_mode():
            output = self._module(batch)
        logits = output["out"] if isinstance(output, dict) else output
        wanted = (batch.shape[0], NUM_CLASSES, *batch.shape[-2:])
        if not torch.is_tensor(logits) or tuple(logits.shape) != wanted:
            found = tuple(logits.shape) if torch.is_tensor(logits) else type(logits).__name__
            raise ModelError(
                f"the network returned {found} for an input of {tuple(batch.shape)}, wanted logits {wanted}"
            )
        return logits
