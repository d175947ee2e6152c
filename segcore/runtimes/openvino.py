"""OpenVINO on the CPU."""

from __future__ import annotations

import numpy as np
import openvino
import torch
from openvino import properties

from segcore.devices import Device
from segcore.runtimes.export import onnx_artifact
from segcore.runtimes.job import Job

PLUGIN = "CPU"
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""Arithmetic of what is not quantised."""


def refusal(device: Device, precision: str) -> str | None:
    """Return why OpenVINO does not run in that precision on that device, None where it does."""
    if device.torch_device.type != "cpu":
        return "segcore runs OpenVINO on the CPU only"
    capabilities = openvino.Core().get_property(PLUGIN, properties.device.capabilities())
    if precision.upper() not in capabilities:
        return f"OpenVINO finds {', '.join(sorted(capabilities))} on this CPU"
    return None


class OpenVinoSession:
    """A compiled model; one for all shapes."""

    def __init__(self, job: Job) -> None:
        exported = onnx_artifact(job)
        self.build_s = exported.build_s
        self._options = {
            "threads": str(job.threads),
            "performance_hint": "LATENCY",
            "inference_precision_hint": HINTS[job.precision],
        }
        settings = {
            "INFERENCE_NUM_THREADS": job.threads,
            "PERFORMANCE_HINT": self._options["performance_hint"],
            "INFERENCE_PRECISION_HINT": self._options["inference_precision_hint"],
        }
        core = openvino.Core()
        self._model = core.compile_model(core.read_model(exported.path), PLUGIN, settings)

    @property
    def options(self) -> dict[str, str]:
        """What the model was compiled with."""
        return self._options

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, h, w), float32, for a batch (B, 3, H, W)."""
        array = np.ascontiguousarray(batch.numpy())
        return torch.from_numpy(np.asarray(self._model(array, share_inputs=True)[0], dtype=np.float32))


def open_session(job: Job) -> OpenVinoSession:
    """Return the network ready to run."""
    return OpenVinoSession(job)
