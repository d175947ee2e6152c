"""Mixtures of int8 and fp32 of an ONNX network: an operator reads a tensor, or the tensor quantised and dequantised."""

from __future__ import annotations

import copy
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from segcore.inference.runtimes.file_model import Array
from segcore.inference.runtimes.int8 import Layer, quantise

_SHAPES = ("Shape", "QuantizeLinear", "DequantizeLinear")
"""Operators that are no layers, whatever they read."""
_OLDEST_OPSET = 13
"""First that has weights quantised by channel."""


class OnnxNetwork:
    """An ONNX network and its quantised copy, whose operators have the same names (see `QuantisedNetwork`)."""

    def __init__(self, path: Path, name: str, arrays: Sequence[Array]) -> None:
        model = onnx.load(path)
        if next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx")) < _OLDEST_OPSET:
            model = onnx.version_converter.convert_version(model, _OLDEST_OPSET)
        for index, node in enumerate(model.graph.node):
            node.name = node.name or f"{node.op_type}_{index}"
        self._fp32 = {node.name: node for node in model.graph.node}
        self._constants = {each.name: each for each in model.graph.initializer}
        self._int8 = quantise(model, arrays, name)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The operators that read dequantised tensors."""
        dequantised = {node.output[0] for node in self._int8.graph.node if node.op_type == "DequantizeLinear"}
        return tuple(
            Layer(node.name, node.op_type, self._module(node.name))
            for node in self._int8.graph.node
            if node.op_type not in _SHAPES and not dequantised.isdisjoint(node.input)
        )

    def _module(self, name: str) -> str:
        """Return the module that an operator's weights belong to: an export keeps their names."""
        weights = [each for each in self._fp32[name].input if each in self._constants and each.endswith(".weight")]
        return weights[0].removesuffix(".weight").removeprefix("network.") if weights else ""

    def write(self, path: Path, kept: Collection[str]) -> None:
        """Write the network with the named layers in fp32 and the others in int8."""
        model = onnx.ModelProto()
        model.CopyFrom(self._int8)
        graph = model.graph
        producers = {name: node for node in graph.node for name in node.output}
        known = {each.name for each in graph.initializer}
        for node in graph.node:
            if node.name in kept:
                originals = self._fp32[node.name].input
                node.input[:] = [self._in_fp32(*names, producers) for names in zip(originals, node.input, strict=True)]
                for name in set(node.input) - known:
                    if name.startswith(_FP32):
                        graph.initializer.add().CopyFrom(self._constants[name.removeprefix(_FP32)])
                        graph.initializer[-1].name = name
                        known.add(name)
        _as_unsigned(graph)
        _prune(graph)
        del graph.value_info[:]  # which has the types before `_as_unsigned`
        onnx.save(model, path)

    def _in_fp32(self, original: str, name: str, producers: dict[str, onnx.NodeProto]) -> str:
        """Return the input of a layer in fp32, of the original's input and the name of the one in int8."""
        if original in self._constants:  # weights, and biases, which NNCF has corrected
            return _FP32 + original
        dequantise = producers.get(name)
        if dequantise is None or dequantise.op_type != "DequantizeLinear":
            return name
        return str(producers[dequantise.input[0]].input[0])


_FP32 = "fp32/"
"""Prefix of the names of constants that are as they were."""


def _as_unsigned(graph: onnx.GraphProto) -> None:
    """Make all activations uint8, with the same values: onnxruntime has no kernel whose input and output differ."""
    constants = {each.name: each for each in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        zero = numpy_helper.to_array(constants[node.input[2]])
        if zero.dtype != np.int8:
            continue
        name = f"{node.input[2]}/unsigned"
        if name not in constants:
            constants[name] = numpy_helper.from_array((zero.astype(np.int16) + 128).astype(np.uint8), name)
            graph.initializer.append(constants[name])
        for each in (node, *readers[node.output[0]]):
            each.input[2] = name


def _prune(graph: onnx.GraphProto) -> None:
    """Remove operators and constants that nothing reads."""
    used = {each.name for each in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if used.intersection(node.output):
            nodes.append(node)
            used.update(node.input)
            used.update(name for body in _bodies(node) for inner in body.node for name in inner.input)
    constants = [each for each in graph.initializer if each.name in used]
    for field, values in ((graph.node, nodes[::-1]), (graph.initializer, constants)):
        kept = [copy.deepcopy(value) for value in values]  # the values are gone with their field
        del field[:]
        field.extend(kept)


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [each.g for each in node.attribute if each.type == onnx.AttributeProto.GRAPH]
