"""TensorRT through onnxruntime's provider: engines are built at the first photo of a shape and kept."""

from __future__ import annotations

import onnxruntime as ort

from segcore.inference.devices import Device
from segcore.inference.runtimes.job import Job
from segcore.inference.runtimes.onnx_runtime import OrtSession

PROVIDER = "TensorrtExecutionProvider"


def refusal(device: Device, precision: str) -> str | None:
    """Return why TensorRT does not run on that device, None where it does."""
    if device.torch_device.type != "cuda":
        return "TensorRT needs an NVIDIA GPU"
    if PROVIDER not in ort.get_available_providers():
        return f"this build of onnxruntime has no {PROVIDER}; pip install onnxruntime-gpu tensorrt"
    return None


def open_session(job: Job) -> OrtSession:
    """Return the network ready to run."""
    settings = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(job.cache_dir / "artifacts" / "tensorrt"),
        "trt_fp16_enable": str(int(job.precision == "fp16")),
        "trt_int8_enable": str(int(job.precision == "int8")),
    }
    return OrtSession(job, PROVIDER, settings)
