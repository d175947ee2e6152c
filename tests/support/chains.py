"""ONNX files of small convolution networks."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

CLASSES = 6
WIDTH = 8


def write_chain(path: Path, seed: int = 0, layers: int = 5, fragile: int | None = None, factor: float = 50.0) -> None:
    """Write a chain of 3x3 convolutions with ReLU between them, `conv0` and so on, in random weights.

    Args:
        path: of the ONNX file.
        seed: of the weights.
        layers: how many convolutions.
        fragile: a layer, one channel of which is scaled by `factor`, and back in the weights of the next.
        factor: of that.
    """
    rng = np.random.default_rng(seed)
    widths = [3, *[WIDTH] * (layers - 1), CLASSES]
    weights = [rng.normal(0, (2 / (9 * a)) ** 0.5, (b, a, 3, 3)) for a, b in itertools.pairwise(widths)]
    biases = [rng.normal(0, 0.1, b) for b in widths[1:]]
    if fragile is not None:
        channel = int(rng.integers(WIDTH))
        weights[fragile][channel] *= factor
        biases[fragile][channel] *= factor
        weights[fragile + 1][:, channel] /= factor
    nodes, tensors, name = [], [], "photo"
    for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        tensors += [
            numpy_helper.from_array(weight.astype(np.float32), f"layer{index}.weight"),
            numpy_helper.from_array(bias.astype(np.float32), f"layer{index}.bias"),
        ]
        last = index == layers - 1
        inputs = [name, f"layer{index}.weight", f"layer{index}.bias"]
        name = "logits" if last else f"c{index}"
        nodes.append(helper.make_node("Conv", inputs, [name], f"conv{index}", pads=[1] * 4))
        if not last:
            nodes.append(helper.make_node("Relu", [name], [f"r{index}"], f"relu{index}"))
            name = f"r{index}"
    value = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("photo", value, ["n", 3, "h", "w"])],
        [helper.make_tensor_value_info("logits", value, ["n", CLASSES, "h", "w"])],
        tensors,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
