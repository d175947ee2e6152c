"""Model files whose classes are the colours of the photo: 0 where red is the largest value, 1 green, 2 blue.

The scores of the three classes are the values of the three channels, so every mask can be told by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def onnx_file(
    path: Path,
    operator: str = "Identity",
    *,
    dtype: str = "float32",
    shape: tuple[int | str, ...] = ("n", 3, "h", "w"),
    channel: int | None = None,
    result: TensorProto.DataType = TensorProto.UINT8,
    metadata: dict[str, str] | None = None,
    second_output: bool = False,
) -> Path:
    """Write an ONNX file and return its path.

    Args:
        path: where.
        operator: Identity, Sigmoid, Softmax, ArgMax, or that of a domain that no runtime knows.
        dtype: of the input.
        shape: of the input, with names for lengths that are free; the channels are where the 3 is.
        channel: the only one that is returned.
        result: type of the class map of ArgMax.
        metadata: text by key.
        second_output: also return half of everything, as ``aux``, before it.
    """
    axis = shape.index(3)
    nodes = [helper.make_node("Cast", ["photo"], ["values"], to=TensorProto.FLOAT)]
    if dtype == "uint8":
        nodes += [helper.make_node("Div", ["values", "most"], ["unit"])]
    last = nodes[-1].output[0]
    constants = [numpy_helper.from_array(np.array(255, dtype=np.float32), "most")]
    out_shape: list[int | str] = list(shape)
    if channel is not None:
        constants.append(numpy_helper.from_array(np.array([channel]), "channel"))
        nodes.append(helper.make_node("Gather", [last, "channel"], ["picked"], axis=axis))
        last, out_shape[axis] = "picked", 1
    kind: TensorProto.DataType = TensorProto.FLOAT
    if operator == "ArgMax":
        nodes.append(helper.make_node("ArgMax", [last], ["index"], axis=axis, keepdims=0))
        nodes.append(helper.make_node("Cast", ["index"], ["out"], to=result))
        del out_shape[axis]
        kind = result
    else:
        domain, _, name = operator.rpartition(".")
        attributes: dict[str, Any] = {"axis": axis} if name == "Softmax" else {}
        nodes.append(helper.make_node(name, [last], ["out"], domain=domain, name="the_last", **attributes))
    outputs = [helper.make_tensor_value_info("out", kind, out_shape)]
    if second_output:
        nodes.append(helper.make_node("Neg", [last], ["aux"]))
        outputs.insert(0, helper.make_tensor_value_info("aux", TensorProto.FLOAT, list(shape)))
    graph = helper.make_graph(
        nodes, "colours", [helper.make_tensor_value_info("photo", TYPES[dtype], list(shape))], outputs, constants
    )
    domains = [helper.make_opsetid("", 18), *([helper.make_opsetid("no.such", 1)] if "." in operator else [])]
    model = helper.make_model(graph, opset_imports=domains, ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def openvino_file(path: Path, source: Path, info: dict[str, str] | None = None) -> Path:
    """Write an ONNX file as OpenVINO's .xml and .bin, with ``model_info``, and return the path of the former."""
    import openvino

    model = openvino.convert_model(source)
    for key, value in (info or {}).items():
        model.set_rt_info(value, ["model_info", key])
    openvino.save_model(model, path, compress_to_fp16=False)
    return path


def litert_file(
    path: Path,
    operator: str = "RESHAPE",
    *,
    dtype: str = "FLOAT32",
    size: tuple[int, int] = (4, 6),
    quantisation: tuple[float, int] | None = None,
    custom: bool = False,
) -> Path:
    """Write a TFLite file, NHWC, and return its path.

    Args:
        path: where.
        operator: RESHAPE (to the same shape), LOGISTIC, SOFTMAX, ARG_MAX, or the name of a custom one.
        dtype: of the input, and of the output but of ARG_MAX: FLOAT32, UINT8 or INT8.
        size: (H, W).
        quantisation: scale and zero point of the input and the output.
        custom: whether the operator is a custom one.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    height, width = size
    kinds = schema.TensorType

    def tensor(name: str, kind: int, shape: list[int], buffer: int = 0) -> Any:
        made = schema.TensorT()
        made.name, made.type, made.shape, made.buffer = name.encode(), kind, shape, buffer
        if quantisation and kind in (kinds.UINT8, kinds.INT8):
            made.quantization = schema.QuantizationParametersT()
            made.quantization.scale, made.quantization.zeroPoint = [quantisation[0]], [quantisation[1]]
        return made

    kind = getattr(kinds, dtype)
    is_argmax = operator == "ARG_MAX"
    axis = np.array([3], dtype=np.int32) if is_argmax else np.array([1, height, width, 3], dtype=np.int32)
    constant = schema.BufferT()
    constant.data = list(axis.tobytes())
    graph = schema.SubGraphT()
    graph.tensors = [
        tensor("photo", kind, [1, height, width, 3]),
        tensor("scores", kinds.INT32 if is_argmax else kind, [1, height, width, *([] if is_argmax else [3])]),
        tensor("axis", kinds.INT32, [len(axis)] if not is_argmax else [], buffer=1),
    ]
    graph.inputs, graph.outputs = [0], [1]
    node = schema.OperatorT()
    node.inputs = [0, 2] if operator in ("RESHAPE", "ARG_MAX") else [0]
    node.outputs = [1]
    if is_argmax:
        node.builtinOptionsType = schema.BuiltinOptions.ArgMaxOptions
        node.builtinOptions = schema.ArgMaxOptionsT()
        node.builtinOptions.outputType = kinds.INT32
    elif operator == "SOFTMAX":
        node.builtinOptionsType = schema.BuiltinOptions.SoftmaxOptions
        node.builtinOptions = schema.SoftmaxOptionsT()
        node.builtinOptions.beta = 1.0
    graph.operators = [node]
    code = schema.OperatorCodeT()
    number = schema.BuiltinOperator.CUSTOM if custom else getattr(schema.BuiltinOperator, operator)
    code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), 1
    if custom:
        code.customCode = operator.encode()
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes = 3, [graph], [code]
    model.buffers = [schema.BufferT(), constant]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path
