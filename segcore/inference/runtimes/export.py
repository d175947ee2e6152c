"""The file that onnxruntime, OpenVINO and TensorRT run: a network exported as ONNX in fp32, fp16 or int8, or its own.

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
from segcore.inference.models import NETWORK
from segcore.inference.process_state import alone
from segcore.inference.runtimes.artifacts import Artifact, artifact
from segcore.inference.runtimes.file_model import Boundary, FileModel
from segcore.inference.runtimes.int8 import Int8Source, file_source, open_onnx
from segcore.inference.runtimes.session import BuildRequest, Example
from segcore.inference.runtimes.upsampling import inference_copy
from segcore.inputs.self_description import TensorHeader

INPUT, OUTPUT = "photo", "logits"
OPSET = 20


def model_file(request: BuildRequest) -> tuple[Artifact, Boundary]:
    """Return the file to run in the requested precision, from the cache if it is there, and its boundary.

    Raises:
        DeviceError: the network cannot be exported or quantised, or the file cannot be written.
        ModelError: a file takes other inputs than its model file says.
    """
    network, dtype = request.network, torch.float16 if request.precision == "fp16" else torch.float32
    name = str(dtype).removeprefix("torch.")
    if isinstance(network, FileModel):
        boundary = network.boundary
    else:
        boundary = Boundary(NETWORK, TensorHeader(INPUT, name, None), TensorHeader(OUTPUT, name, None), 0)
    if request.precision == "int8":
        return int8_source(request).artifact(), boundary
    if isinstance(network, FileModel):
        return Artifact(network.path, 0.0), boundary
    return artifact(request.cache_dir, _content(request, name), ".onnx", partial(_export, request, dtype)), boundary


def int8_source(request: BuildRequest) -> Int8Source:
    """Return what the network is quantised from."""
    if isinstance(request.network, FileModel):
        return file_source(request.network, request.cache_dir, request.calibration)
    return Int8Source(
        request.cache_dir,
        _content(request, "float32"),
        lambda: model_file(replace(request, precision="fp32"))[0].path,
        request.calibration,
        torch.Tensor.numpy,
        partial(open_onnx, INPUT),
    )


def _content(request: BuildRequest, dtype: str) -> dict[str, str]:
    """Return everything that determines the bytes of the exported file."""
    content = {
        **request.network_key(),
        "format": "onnx",
        "dtype": dtype,
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
            cause: BaseException | None = error
            while cause is not None:
                if isinstance(cause, ModelError):  # the network returned no logits: see PassThrough
                    raise cause from None
                cause = cause.__cause__ or cause.__context__
            reason = first_line(error.__cause__ or error) or type(error).__name__
            raise DeviceError(f"the network cannot be exported to ONNX: {reason}; --runtime torch runs it") from error
        assert program is not None  # None is what the old exporter returns
        program.save(path, external_data=False)


def _log_sigmoid(x: Any) -> Any:
    """Return log(sigmoid(x)) in ONNX without the exporter's underflow to -inf, a range that int8 cannot have."""
    from onnxscript import opset20 as op

    return op.Neg(op.Softplus(op.Neg(x)))
