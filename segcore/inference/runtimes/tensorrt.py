"""TensorRT through onnxruntime's provider: engines are built at the first photo of a shape and cached."""

from __future__ import annotations

import onnxruntime as ort

from segcore.inference.devices import Device
from segcore.inference.runtimes import onnx_runtime
from segcore.inference.runtimes.session import BuildRequest

PROVIDER = "TensorrtExecutionProvider"


def refusal(device: Device, precision: str) -> str | None:
    """Return why TensorRT does not run on that device, None if it does."""
    if device.torch_device.type != "cuda":
        return "TensorRT needs an NVIDIA GPU"
    if PROVIDER not in ort.get_available_providers():
        return f"this build of onnxruntime has no {PROVIDER}; pip install onnxruntime-gpu tensorrt"
    return None


def open_session(request: BuildRequest) -> onnx_runtime.OrtSession:
    """Return the network, ready to run."""
    settings = {
        "device_id": str(request.device.torch_device.index or 0),
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(request.cache_dir / "artifacts" / "tensorrt"),
        "trt_fp16_enable": str(int(request.precision == "fp16")),
        "trt_int8_enable": str(int(request.precision == "int8")),
    }
    return onnx_runtime.open_session(request, PROVIDER, settings)
