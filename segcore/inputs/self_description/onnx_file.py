"""ONNX: types and shapes of inputs and outputs, the operators that end the graph, and ``metadata_props``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from segcore.core.errors import NotInstalledError
from segcore.inputs.self_description.header import ModelHeader, Producer, TensorHeader, traced, unreadable

if TYPE_CHECKING:
    import onnx


def read_onnx(path: Path) -> ModelHeader:
    """Return what an ONNX file says, without its weights; ModelError or NotInstalledError if it cannot be read."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise NotInstalledError(f"{path} needs the package onnx; pip install 'segcore[onnxruntime]'") from error
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf has errors of its own for each way in which bytes can be wrong
        raise unreadable(path, "an ONNX model", error) from error
    graph = model.graph
    if not graph.output:
        raise unreadable(path, "an ONNX model", "its graph has no output")
    constants = {tensor.name for tensor in graph.initializer}
    producers = _producers(graph, constants)
    stored = [entry for tensor in graph.initializer for entry in tensor.external_data]
    external = {entry.value for entry in stored if entry.key == "location"}
    shapes = _shapes(model, producers)
    return ModelHeader(
        kind="onnx",
        path=path,
        inputs=tuple(_tensor(value) for value in graph.input if value.name not in constants),
        outputs=tuple(traced(_tensor(value), value.name, producers, shapes) for value in graph.output),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        others=tuple(path.parent / name for name in sorted(external)),
    )


def _tensor(value: onnx.ValueInfoProto) -> TensorHeader:
    import onnx

    kind = value.type.tensor_type
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    except (KeyError, ValueError):  # 0 stands for no type
        dtype = "of no known type"
    shape = _lengths(value) if kind.HasField("shape") else None
    return TensorHeader(value.name, dtype, shape)


def _lengths(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)


def _producers(graph: onnx.GraphProto, constants: set[str]) -> dict[str, Producer]:
    found: dict[str, Producer] = {}
    for node in graph.node:
        inputs = [name for name in node.input if name and name not in constants]
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        producer = Producer(node.op_type, inputs[0] if inputs else None, axis)
        found |= dict.fromkeys(node.output, producer)
    return found


def _shapes(model: onnx.ModelProto, producers: dict[str, Producer]) -> dict[str, tuple[int | None, ...]]:
    """Return the known shapes of tensors; they are inferred if an argmax needs one that is not in the file."""
    import onnx

    found = {value.name: _lengths(value) for value in model.graph.value_info}
    chosen_from = [each.source for each in producers.values() if each.operator == "ArgMax" and each.source]
    if all(name in found for name in chosen_from):
        return found
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except Exception:  # of a graph that is wrong in itself, or too large
        return found
    return {value.name: _lengths(value) for value in inferred.graph.value_info}
