"""Networks as ONNX files, in fp32, fp16 or quantised to int8, for onnxruntime, OpenVINO and TensorRT.

One file serves every shape: batch, height and width are symbolic.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from segcore.core.errors import DeviceError, ModelError
from segcore.core.quiet import quiet
from segcore.core.text import first_line
from segcore.inference.process_state import alone
from segcore.inference.runtimes.artifacts import Artifact, artifact
from segcore.inference.runtimes.int8 import Int8Source, open_onnx
from segcore.inference.runtimes.session import BuildRequest, Example
from segcore.inference.runtimes.upsampling import inference_copy

INPUT, OUTPUT = "photo", "logits"
OPSET = 20


def onnx_artifact(request: BuildRequest) -> Artifact:
    """Return the network as an ONNX file in the requested precision, from the cache if it is there.

    Raises:
        DeviceError: the network cannot be exported or quantised, or the file cannot be written.
    """
    if request.precision == "int8":
        return int8_source(request).artifact()
    return artifact(request.cache_dir, _content(request), ".onnx", partial(_export, request, _dtype(request)))


def int8_source(request: BuildRequest) -> Int8Source:
    """Return what the network is quantised from."""
    fp32 = replace(request, precision="fp32")
    return Int8Source(
        request.cache_dir,
        _content(fp32),
        lambda: onnx_artifact(fp32).path,
        request.calibration,
        torch.Tensor.numpy,
        partial(open_onnx, INPUT),
    )


def _dtype(request: BuildRequest) -> torch.dtype:
    return torch.float16 if request.precision == "fp16" else torch.float32


def _content(request: BuildRequest) -> dict[str, str]:
    """Return everything that determines the bytes of the exported file."""
    content = {
        **request.network_key(),
        "format": "onnx",
        "dtype": str(_dtype(request)).removeprefix("torch."),
        "opset": str(OPSET),
        **{name: version(name) for name in ("torch", "onnx", "onnxscript")},
    }
    return content | ({} if request.example == Example() else {"example": str(request.example)})


def _export(request: BuildRequest, dtype: torch.dtype, path: Path) -> None:
    free = torch.export.Dim.DYNAMIC
    with alone(), quiet():  # the exporter warns of its own deprecations
        try:
            program = torch.onnx.export(
                inference_copy(request.network).cpu().to(dtype),
                (torch.zeros(request.example.shape, dtype=dtype),),
                dynamo=True,
                dynamic_shapes=({0: free} if request.example.one_size else {0: free, 2: free, 3: free},),
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                custom_translation_table={torch.ops.aten.log_sigmoid.default: _log_sigmoid},
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            if refusal := _refusal(error):
                raise refusal from None
            reason = first_line(error.__cause__ or error) or type(error).__name__
            raise DeviceError(f"the network cannot be exported to ONNX: {reason}; --runtime torch runs it") from error
        assert program is not None  # None is what the old exporter returns
        program.save(path, external_data=False)


def _log_sigmoid(x: Any) -> Any:
    """Return log(sigmoid(x)) in ONNX without the exporter's underflow to -inf, a range that int8 cannot have."""
    from onnxscript import opset20 as op

    return op.Neg(op.Softplus(op.Neg(x)))


def _refusal(error: BaseException | None) -> ModelError | None:
    """Return the refusal of `PassThrough` among the causes of an error."""
    while error is not None and not isinstance(error, ModelError):
        error = error.__cause__ or error.__context__
    return error
