"""TFLite: types, shapes and quantisation of inputs and outputs, the operators that end the graph, and labels."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from segcore.core.errors import NotInstalledError
from segcore.inputs.self_description.header import ModelHeader, Producer, TensorHeader, lengths, traced, unreadable

if TYPE_CHECKING:
    from types import ModuleType

MAGIC = b"TFL3"
"""Bytes 4 to 8 of every file of the format."""
DTYPES = {"BOOL": "bool", **{f"FLOAT{bits}": f"float{bits}" for bits in (16, 32, 64)}}


def read_litert(path: Path) -> ModelHeader:
    """Return what a TFLite file says; ModelError or NotInstalledError (ai-edge-litert) if it cannot be read."""
    try:
        from ai_edge_litert import schema_py_generated as schema
    except ModuleNotFoundError as error:
        raise NotInstalledError(f"{path} needs the package ai-edge-litert; pip install 'segcore[litert]'") from error
    try:
        data = path.read_bytes()
        if data[4:8] != MAGIC:
            raise unreadable(path, "a TFLite model", "it does not have the marker TFL3")
        return _read(path, data, schema)
    except OSError as error:
        raise unreadable(path, "a TFLite model", error.strerror) from error
    except (AttributeError, IndexError, TypeError, ValueError, struct.error) as error:  # of bytes that lead nowhere
        raise unreadable(path, "a TFLite model", f"it is damaged ({error})") from error


def _read(path: Path, data: bytes, schema: ModuleType) -> ModelHeader:
    model = schema.Model.GetRootAs(data)
    graph = model.Subgraphs(0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    producers: dict[str, Producer] = {}
    for index in range(graph.OperatorsLength()):
        operator = graph.Operators(index)
        producer = _producer(model, graph, operator, names)
        producers |= {str(output): producer for output in operator.OutputsAsNumpy()}
    shapes = {str(index): _lengths(graph.Tensors(index)) for index in range(graph.TensorsLength())}
    types = {value: name for name, value in vars(schema.TensorType).items() if isinstance(value, int)}
    return ModelHeader(
        kind="litert",
        path=path,
        inputs=tuple(_tensor(graph.Tensors(index), types) for index in graph.InputsAsNumpy()),
        outputs=tuple(
            traced(_tensor(graph.Tensors(index), types), str(index), producers, shapes)
            for index in graph.OutputsAsNumpy()
        ),
        metadata=_attached(data),
    )


def _producer(model: Any, graph: Any, operator: Any, names: dict[int, str]) -> Producer:
    code = model.OperatorCodes(operator.OpcodeIndex())
    name = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "")
    if custom := code.CustomCode():
        name = custom.decode()
    inputs = [int(index) for index in operator.InputsAsNumpy() if index >= 0]
    constant = {index: model.Buffers(graph.Tensors(index).Buffer()).DataLength() > 0 for index in inputs}
    source = next((str(index) for index in inputs if not constant[index]), None)
    axis = None
    if name == "ARG_MAX" and len(inputs) > 1 and constant[inputs[1]]:
        bytes_ = model.Buffers(graph.Tensors(inputs[1]).Buffer()).DataAsNumpy()
        axis = int(bytes_.view(np.int64 if len(bytes_) == 8 else np.int32)[0])
    return Producer(name, source, axis)


def _lengths(tensor: Any) -> tuple[int | None, ...]:
    signature = tensor.ShapeSignatureAsNumpy()
    shape = signature if isinstance(signature, np.ndarray) else tensor.ShapeAsNumpy()
    return lengths(shape.tolist() if isinstance(shape, np.ndarray) else ())


def _tensor(tensor: Any, types: dict[int, str]) -> TensorHeader:
    kind = types.get(tensor.Type(), "")
    quantisation = tensor.Quantization()
    scale, zero_point = 0.0, 0
    if quantisation is not None and quantisation.ScaleLength() == 1:
        scale = float(quantisation.Scale(0))
        zero_point = int(quantisation.ZeroPoint(0)) if quantisation.ZeroPointLength() else 0
    dtype = DTYPES.get(kind, kind.lower())
    name = (tensor.Name() or b"").decode(errors="replace")
    return TensorHeader(name, dtype, _lengths(tensor), scale, zero_point)


def _attached(data: bytes) -> dict[str, str]:
    """Return the labels in a text file that is attached as a ZIP archive, as TensorFlow's metadata writer does it."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            texts = [info for info in archive.infolist() if info.filename.endswith(".txt") and info.file_size < 1 << 20]
            return {"labels": archive.read(texts[0]).decode()} if len(texts) == 1 else {}
    except (zipfile.BadZipFile, UnicodeDecodeError, RuntimeError):
        return {}
