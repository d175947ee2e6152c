"""Mixtures of int8 and fp32 of what OpenVINO reads and ONNX does not say: its own format, and TFLite."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Collection, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import openvino
from openvino import opset13
from openvino.passes import ConstantFolding, Manager

from segcore.inference.runtimes.file_model import Array
from segcore.inference.runtimes.int8 import Layer, quantise

_COUNTED = re.compile(r"[A-Za-z]+_\d+")
"""Names that OpenVINO makes of the number of operators in the process, because the file has none."""
_STEPS = 4
"""Operators after a convolution, such as its bias, until one whose result has a name."""
_PARTS = ("model.xml", "model.bin")


class OpenVinoNetwork:
    """A network in OpenVINO and its quantised copy, whose operators have the same names (see `QuantisedNetwork`)."""

    def __init__(self, core: openvino.Core, path: Path, arrays: Sequence[Array]) -> None:
        model = core.read_model(path)
        folding = Manager()
        folding.register_pass(ConstantFolding())
        folding.run_passes(model)
        for index, node in enumerate(model.get_ordered_ops()):
            if _COUNTED.fullmatch(node.get_friendly_name()):
                node.set_friendly_name(f"{node.get_type_name()}_{index}")
        self._fp32 = {node.get_friendly_name(): node for node in model.get_ops()}
        self._model = model  # which owns these
        self._int8 = quantise(model, arrays)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The operators that read quantised tensors."""
        return tuple(
            Layer(node.get_friendly_name(), node.get_type_name(), _named(self._fp32[node.get_friendly_name()]))
            for node in self._int8.get_ordered_ops()
            if node.get_friendly_name() in self._fp32
            and node.get_type_name() not in ("ShapeOf", "FakeQuantize", "Result")
            and any(_is_quantised(each.get_node()) for each in node.input_values())
        )

    def write(self, path: Path, kept: Collection[str]) -> None:
        """Write the network with the named layers in fp32 and the others in int8."""
        model = self._int8.clone()
        for node in model.get_ordered_ops():
            if node.get_friendly_name() in kept:
                self._keep(node)
        with tempfile.TemporaryDirectory(prefix="segcore-") as directory:
            files = [Path(directory) / name for name in _PARTS]
            openvino.serialize(model, *files)
            with zipfile.ZipFile(path, "w") as archive:
                for file in files:
                    archive.write(file, file.name)

    def _keep(self, node: openvino.Node) -> None:
        """Let a layer read what it did before, and the constant that is added to it, its bias, be as it was."""
        for entry, original in zip(node.inputs(), self._fp32[node.get_friendly_name()].input_values(), strict=True):
            source = entry.get_source_output().get_node()
            if (constant := _constant(original.get_node())) is not None:
                entry.replace_source_output(constant.output(0))
            elif source.get_type_name() == "FakeQuantize":
                entry.replace_source_output(source.input_value(0))
        for reader in node.output(0).get_target_inputs():
            added = reader.get_node()
            if added.get_type_name() == "Add" and added.get_friendly_name() in self._fp32:
                before = self._fp32[added.get_friendly_name()]
                for entry, original in zip(added.inputs(), before.input_values(), strict=True):
                    if (constant := _constant(original.get_node())) is not None:
                        entry.replace_source_output(constant.output(0))


def _named(node: openvino.Node) -> str:
    """Return the name that the file has for what an operator computes, or for what follows from it alone."""
    for _ in range(_STEPS):
        if names := sorted(node.output(0).get_names()):
            return str(names[0])
        readers = list(node.output(0).get_target_inputs())
        if len(readers) != 1:
            break
        node = readers[0].get_node()
    return ""


def _is_quantised(node: openvino.Node) -> bool:
    """Return whether a node's output is quantised: that of activations, or a constant of int8 on its way to float."""
    if node.get_type_name() == "FakeQuantize":
        return True
    while node.get_type_name() in ("Multiply", "Subtract", "Convert", "Reshape"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and node.get_element_type().to_dtype() in (np.int8, np.uint8)


def _constant(node: openvino.Node) -> openvino.Node | None:
    """Return a copy of a constant, as float if it is stored as half; None if the node is none."""
    if node.get_type_name() == "Convert":
        inner = node.input_value(0).get_node()
        if inner.get_type_name() == "Constant":
            return opset13.constant(inner.data.astype(np.float32))
    return opset13.constant(np.array(node.data)) if node.get_type_name() == "Constant" else None


def read(core: openvino.Core, path: Path) -> openvino.Model:
    """Return the model of a file, which may be one that `OpenVinoNetwork.write` has written."""
    if path.suffix != ".zip":
        return core.read_model(path)
    with zipfile.ZipFile(path) as archive:
        structure, weights = map(archive.read, _PARTS)
    return core.read_model(structure, openvino.Tensor(np.frombuffer(weights, dtype=np.uint8)))
