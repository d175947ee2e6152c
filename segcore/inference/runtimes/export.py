"""Networks as ONNX files, in fp32, fp16 or quantised to int8, for onnxruntime, OpenVINO and TensorRT.

One file serves every shape: batch, height and width are symbolic. (On two AVX-512 cores OpenVINO ran FCN-ResNet101
as fast from it as from a copy reshaped to the photo; `embedded` would gain a tenth.)
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rich
import torch

from segcore.core.errors import DeviceError, ModelError
from segcore.core.quiet import quiet
from segcore.core.text import first_line
from segcore.inference.process_state import alone
from segcore.inference.runtimes.artifacts import Artifact, artifact
from segcore.inference.runtimes.session import BuildRequest, Example
from segcore.inference.runtimes.upsampling import inference_copy

INPUT, OUTPUT = "photo", "logits"
OPSET = 20
_console = threading.Lock()


def onnx_artifact(request: BuildRequest) -> Artifact:
    """Return the network as an ONNX file in the requested precision, from the cache if it is there.

    Raises:
        DeviceError: the network cannot be exported or quantised, or the file cannot be written.
    """
    dtype = torch.float16 if request.precision == "fp16" else torch.float32
    content = {
        **request.network_key(),
        "format": "onnx",
        "dtype": str(dtype).removeprefix("torch."),
        "opset": str(OPSET),
        **{name: version(name) for name in ("torch", "onnx", "onnxscript")},
    }
    if request.example != Example():
        content["example"] = str(request.example)
    export = partial(artifact, request.cache_dir, content, ".onnx", partial(_export, request, dtype))
    if request.precision != "int8":
        return export()
    tensors = request.calibration()
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    int8 = content | {"dtype": "int8", "calibration": digest.hexdigest(), "nncf": version("nncf")}
    return artifact(request.cache_dir, int8, ".int8.onnx", lambda path: _quantise(export().path, tensors, path))


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


def _quantise(fp32: Path, tensors: Sequence[torch.Tensor], path: Path) -> None:
    """Post-training static quantisation: int8 weights per channel, uint8 or int8 activations, bias corrected."""
    if not tensors:
        raise DeviceError("int8 needs photos to take its ranges from: calibration is empty")
    os.environ.setdefault("NNCF_CI", "1")  # disables its telemetry
    with quiet(), _without_progress_bars():
        import nncf
        import onnx

        nncf.set_log_level(40)
        data = nncf.Dataset(tensors, lambda tensor: {INPUT: tensor.numpy()})
        model = nncf.quantize(onnx.load(fp32), data, subset_size=len(tensors), preset=nncf.QuantizationPreset.MIXED)
        onnx.save(model, path)


@contextlib.contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Silence rich's console, on which NNCF draws progress bars; other output of the process stays as it is."""
    console = rich.get_console()
    with _console:
        before, console.quiet = console.quiet, True
        try:
            yield
        finally:
            console.quiet = before
