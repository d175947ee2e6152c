"""Plain torch, operator by operator: in fp32 the reference for every other runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from segcore.inference.devices import Device, tf32_option
from segcore.inference.process_state import shared
from segcore.inference.runtimes.session import BuildRequest, ProfiledSession

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def refusal(device: Device, precision: str) -> str | None:
    """Return why torch does not run in that precision on that device, None if it does."""
    kind = device.torch_device.type
    if kind == "cpu" and precision == "bf16" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "this CPU has no bf16 arithmetic that oneDNN supports (AVX-512 or better)"
    if kind == "cpu" and precision == "fp16" and not torch.ops.mkldnn._is_mkldnn_fp16_supported():
        return "this CPU has no fp16 arithmetic that oneDNN supports (AVX512_FP16 or AMX_FP16)"
    if kind == "cuda" and precision == "bf16" and torch.cuda.get_device_capability(device.torch_device) < (8, 0):
        return "bf16 needs compute capability 8.0"
    return None


class EagerSession:
    """Eager execution in inference mode."""

    build_s = 0.0
    artifact: Path | None = None

    def __init__(self, request: BuildRequest) -> None:
        self._dtype = DTYPES[request.precision]
        # fp32 keeps the memory layout of the tutorials, and with it their bits; tensor cores and oneDNN's
        # half-precision kernels are faster with channels last.
        half = self._dtype != torch.float32
        self._layout = torch.channels_last if half else torch.contiguous_format
        moved = request.network.to(device=request.device.torch_device, dtype=self._dtype)
        self._network: Callable[[torch.Tensor], torch.Tensor] = moved.to(memory_format=self._layout)
        self._threads = request.threads
        self._device = request.device

    @property
    def options(self) -> dict[str, str]:
        """Threads and memory layout; on CUDA also TF32."""
        layout = str(self._layout).removeprefix("torch.")
        return {"threads": str(self._threads), "layout": layout, **tf32_option(self._device)}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), float32, for a batch (B, 3, H, W)."""
        with shared(), torch.inference_mode():
            return self._network(batch.to(self._dtype, memory_format=self._layout)).float().contiguous()

    def profiled(self) -> ProfiledSession:
        """Return the same network under torch's profiler."""
        from segcore.inference.runtimes.torch_profile import ProfiledTorch

        return ProfiledTorch(self, self._device)


open_session = EagerSession
