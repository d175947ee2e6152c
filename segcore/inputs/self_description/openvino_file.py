"""OpenVINO: types, shapes and layouts of inputs and outputs, the operators that end the graph, ``rt_info``."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from segcore.core.model_spec import Layout
from segcore.inputs.self_description.header import ModelHeader, Producer, TensorHeader, lengths, traced, unreadable

DTYPES = {
    **{f"FP{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
    "BF16": "bfloat16",
    "BOOL": "bool",
}
"""numpy's names for OpenVINO's."""


def read_openvino(path: Path) -> ModelHeader:
    """Return what an OpenVINO file (.xml) says, without its weights (.bin); ModelError if it cannot be read."""
    try:
        root = ElementTree.parse(path).getroot()  # noqa: S314  # expat limits the expansion of entities
    except (ElementTree.ParseError, OSError, ValueError) as error:
        raise unreadable(path, "an OpenVINO model", error) from error
    layers = {layer.get("id", ""): layer for layer in root.iterfind("./layers/layer")}
    if root.tag != "net" or not layers:
        raise unreadable(path, "an OpenVINO model", f"its root is <{root.tag}>, wanted <net> with layers")
    before = {
        _place(edge.get("to-layer", ""), edge.get("to-port")): _place(edge.get("from-layer", ""), edge.get("from-port"))
        for edge in root.iterfind("./edges/edge")
    }
    ports = {_place(name, port.get("id")): port for name, layer in layers.items() for port in layer.iterfind("output/")}
    producers = {place: _producer(place.rpartition(":")[0], before, layers) for place in ports}
    shapes = {name: _lengths(port) for name, port in ports.items()}
    results = [before.get(_place(name, "0"), "") for name, layer in layers.items() if layer.get("type") == "Result"]
    inputs = [(name, layer) for name, layer in layers.items() if layer.get("type") == "Parameter"]
    weights = path.with_suffix(".bin")
    return ModelHeader(
        kind="openvino",
        path=path,
        inputs=tuple(_tensor(ports[_place(name, "0")], layer) for name, layer in inputs),
        outputs=tuple(
            traced(_tensor(ports[place], layers[place.rpartition(":")[0]]), place, producers, shapes)
            for place in results
            if place in ports
        ),
        metadata=_metadata(root.find("./rt_info/model_info"), "model_info"),
        others=(weights,) if weights.is_file() else (),
    )


def _place(layer: str, port: str | None) -> str:
    return f"{layer}:{port}"


def _producer(name: str, before: dict[str, str], layers: dict[str, ElementTree.Element]) -> Producer:
    layer = layers[name]
    sources = [before.get(_place(name, port.get("id"))) for port in layer.iterfind("input/")]
    computed = [place for place in sources if place and layers[place.rpartition(":")[0]].get("type") != "Const"]
    data = layer.find("data")
    axis = (data.get("axis") if data is not None else None) or ""
    number = int(axis) if axis.lstrip("-").isdecimal() else None
    return Producer(layer.get("type", ""), computed[0] if computed else None, number)


def _lengths(port: ElementTree.Element) -> tuple[int | None, ...]:
    return lengths(int(dim.text or "-1") for dim in port.iterfind("dim"))


def _tensor(port: ElementTree.Element, layer: ElementTree.Element) -> TensorHeader:
    name = (port.get("names") or layer.get("name") or "").split(",")[0]
    precision = port.get("precision", "")
    dtype = DTYPES.get(precision, precision.lower())
    declared = layer.find("./rt_info/attribute[@name='layout']")
    order = "" if declared is None else declared.get("layout", "").strip("[]").replace(",", "").lower()
    layout: Layout | None = "nchw" if order == "nchw" else "nhwc" if order == "nhwc" else None
    data = layer.find("data")
    any_rank = data is not None and data.get("shape") == "..."
    return TensorHeader(name, dtype, None if any_rank else _lengths(port), layout=layout)


def _metadata(element: ElementTree.Element | None, prefix: str) -> dict[str, str]:
    """Return the values below an element by their path, as `ONNX` files of the Model API name them."""
    found: dict[str, str] = {}
    for child in element if element is not None else ():
        name = f"{prefix} {child.tag}"
        if (value := child.get("value")) is not None:
            found[name] = value
        found |= _metadata(child, name)
    return found
