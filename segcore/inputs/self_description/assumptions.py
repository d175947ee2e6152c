"""From what a file says to what a model file would say: gaps are filled by assumptions, and each is named."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segcore.core.errors import ModelError, UsageError
from segcore.core.labels import LabelSet, background_of, numbered
from segcore.core.model_spec import IMAGENET_MEAN, IMAGENET_STD, Description, Layout, ModelSpec, OutputKind, Resize
from segcore.inputs.self_description.header import ModelHeader, Shape, TensorHeader
from segcore.inputs.self_description.metadata import Metadata, read_metadata

KINDS: dict[str, OutputKind] = {
    "sigmoid": "sigmoid",
    "hardsigmoid": "sigmoid",
    "logistic": "sigmoid",
    "softmax": "probabilities",
    "argmax": "classes",
}
"""What an output is by the operator that computes it."""
PREFERRED = ("out", "logits", "output", "output0")
"""Names of the main output where a model has several, as torchvision and others have them."""
MOST_NUMBERED = 256
"""Classes of a class map that does not say how many there are: as many as 8 bits hold."""


@dataclass
class _Found:
    """What is collected on the way."""

    said: frozenset[str]
    input: dict[str, Any] = field(default_factory=dict)
    output: dict[str, Any] = field(default_factory=dict)
    assumed: dict[str, str] = field(default_factory=dict)


def describe(header: ModelHeader, spec: ModelSpec) -> Description:
    """Return what a file says about itself, with assumptions for what neither it nor a model file says.

    Raises:
        ModelError: the file takes something else than one photo, or its output cannot be one value for each pixel.
    """
    metadata = read_metadata(header.metadata)
    found = _Found(spec.said)
    tensor = photo_input(header)
    _describe_input(header, tensor, metadata, found)
    output = main_output(header, spec.output.name)
    if len(header.outputs) > 1:
        names = ", ".join(each.name for each in header.outputs)
        found.output["name"] = output.name
        found.assumed["output.name"] = f"of the outputs {names}, {output.name} is the one that counts"
    kind = _describe_output(header, output, tensor, spec, metadata, found)
    layout = spec.output.layout if "output.layout" in spec.said else found.output["layout"]
    labels = _labels(_classes_of(output, kind, layout), kind, metadata, found.assumed)
    return Description(labels, found.input, found.output, found.assumed)


def photo_input(header: ModelHeader) -> TensorHeader:
    """Return the input that takes the photo; ModelError if there is not exactly one, or it has not four dimensions."""
    if len(header.inputs) != 1:
        names = ", ".join(each.name for each in header.inputs) or "none"
        raise ModelError(f"{header.path} has {len(header.inputs)} inputs ({names}), wanted one, the photo")
    found = header.inputs[0]
    if found.shape is not None and len(found.shape) != 4:
        raise ModelError(f"{header.path} takes {found.name}, {found}; wanted a photo of 4 dimensions, NCHW or NHWC")
    return found


def main_output(header: ModelHeader, name: str | None) -> TensorHeader:
    """Return the output that counts: the one with the name, else that of `PREFERRED`, else the first."""
    named = {each.name: each for each in header.outputs}
    if name is not None and name not in named:
        raise ModelError(f"{header.path} has no output {name!r}; it has {', '.join(named)}: correct output.name")
    return next((named[each] for each in (name, *PREFERRED) if each in named), header.outputs[0])


def _describe_input(header: ModelHeader, tensor: TensorHeader, metadata: Metadata, found: _Found) -> None:
    shape = tensor.shape or (None,) * 4
    layout = tensor.layout or _input_layout(shape)
    if layout is None:
        layout = "nhwc" if header.kind == "litert" else "nchw"
        found.assumed["input.layout"] = f"the input is {layout.upper()}"
    channels, height, width = _sides(shape, layout)
    found.input["layout"] = layout
    if channels not in (1, 3, None):
        raise ModelError(f"{header.path} takes {tensor.name}, {tensor}: {channels} channels, wanted 3 or 1")
    _describe_colour(channels or 3, metadata, found)
    _describe_size(height, width, metadata, found)
    _describe_values(header, tensor, channels or 3, metadata, found)


def _input_layout(shape: Shape) -> Layout | None:
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    return None if first == last else "nchw" if first else "nhwc"


def _sides(shape: Shape, layout: Layout) -> tuple[int | None, int | None, int | None]:
    """Return channels, height and width."""
    _, a, b, c = shape
    return (a, b, c) if layout == "nchw" else (c, a, b)


def _describe_colour(channels: int, metadata: Metadata, found: _Found) -> None:
    if channels == 1:
        found.input["colour"] = "grey"
    elif metadata.colour in ("rgb", "bgr"):
        found.input["colour"] = metadata.colour
    elif metadata.reversed_channels is not None:
        found.input["colour"] = "rgb" if metadata.reversed_channels else "bgr"
        found.assumed["input.colour"] = (
            f"reverse_input_channels is {str(metadata.reversed_channels).lower()}, which for photos read as BGR means "
            f"that the model takes {found.input['colour'].upper()}"
        )
    else:
        found.input["colour"] = "rgb"
        found.assumed["input.colour"] = "the channels are RGB, not BGR"


def _describe_size(height: int | None, width: int | None, metadata: Metadata, found: _Found) -> None:
    if height is None or width is None:
        found.input["resize"] = Resize()
        found.assumed["input.multiple_of"] = "height and width may be any number of pixels"
        return
    kind = metadata.resize or "fixed"
    if metadata.fill is not None:
        found.input["fill"] = (metadata.fill,) * 3
    if kind == "longer" and height == width:
        found.input |= {"resize": Resize("longer", (height,)), "multiple_of": height}
    elif kind == "letterbox":
        found.input["resize"] = Resize("letterbox", (height, width))
    else:
        found.input["resize"] = Resize("fixed", (height, width))
        if kind != metadata.resize:
            found.assumed["input.resize"] = f"photos are stretched to {width}x{height}, whatever their proportions"


def _describe_values(
    header: ModelHeader, tensor: TensorHeader, channels: int, metadata: Metadata, found: _Found
) -> None:
    """Describe type and range of the values; of scale, mean and std a user names all or none."""
    quantised = tensor.scale > 0
    if tensor.dtype not in ("float32", "float16", "uint8") and not quantised:
        raise ModelError(
            f"{header.path} takes {tensor.name}, {tensor}; wanted float32, float16 or uint8, or a quantised type"
        )
    raw = (tensor.dtype == "uint8" and not quantised) or metadata.embedded
    found.input["dtype"] = "uint8" if tensor.dtype == "uint8" and raw else "float32"
    if tensor.dtype == "float16":
        found.input["dtype"] = "float16"
    if found.said & {"input.scale", "input.mean", "input.std"}:
        return
    scale, mean, std, text = _range(header, tensor, raw, metadata, channels)
    wide = {"mean": mean * channels if len(mean) == 1 else mean, "std": std * channels if len(std) == 1 else std}
    found.input |= {"scale": scale, **wide}
    if text:
        found.assumed["input.mean"] = text


_Range = tuple[float, tuple[float, ...], tuple[float, ...], str]
"""Scale, mean, deviation, and what of it was assumed."""


def _range(header: ModelHeader, tensor: TensorHeader, raw: bool, metadata: Metadata, channels: int) -> _Range:
    if raw:
        return 1.0, (0.0,), (1.0,), ""
    aside = ""
    if metadata.scale is not None:
        mean, std = metadata.mean or (0.0,), metadata.std or (1.0,)
        if all(len(values) in (1, channels) for values in (mean, std)) and all(std):
            return metadata.scale, mean, std, ""
        aside = f"its mean {mean} and deviation {std} do not fit {channels} channels; "
    if tensor.scale > 0:
        scale, mean, std, text = _quantised_range(tensor)
    elif header.kind == "litert":
        scale, mean, std, text = 1 / 255, (0.0,), (1.0,), "values go in as 0 to 1, not as -1 to 1 or 0 to 255"
    else:
        scale, mean, std = 1 / 255, IMAGENET_MEAN[:channels], IMAGENET_STD[:channels]
        text = "values are normalised with the ImageNet mean and standard deviation"
    return scale, mean, std, aside + text if text else aside.rstrip("; ")


def _quantised_range(tensor: TensorHeader) -> _Range:
    """Return the range that a quantised input was made for.

    Quantisers choose the range of the input by the photos that they are shown: if it is 0 to 1, -1 to 1 or 0 to 255,
    then photos were scaled to that.
    """
    low = (0 - tensor.zero_point - (128 if tensor.dtype == "int8" else 0)) * tensor.scale
    high = low + 255 * tensor.scale
    for first, last, scale, mean in ((0, 1, 1 / 255, 0.0), (-1, 1, 1 / 127.5, 1.0), (0, 255, 1.0, 0.0)):
        if abs(low - first) <= 0.02 * (last - first) and abs(high - last) <= 0.02 * (last - first):
            return scale, (mean,), (1.0,), ""
    text = f"values go in as 0 to 1; the quantised input holds {low:.3g} to {high:.3g}, which no usual range is"
    return 1 / 255, (0.0,), (1.0,), text


def _describe_output(
    header: ModelHeader,
    output: TensorHeader,
    tensor: TensorHeader,
    spec: ModelSpec,
    metadata: Metadata,
    found: _Found,
) -> OutputKind:
    integer = output.dtype.startswith(("int", "uint")) and not output.scale
    kind: OutputKind = KINDS.get(output.operator, "logits")
    if integer or output.dtype == "bool":
        kind = "classes"
    elif kind == "classes":
        kind = "logits"  # the largest values, not their indices
    found.output["kind"] = kind
    if kind == "logits":
        by = f" (its last operator is {output.operator})" if output.operator else ""
        found.assumed["output.kind"] = f"{output.name} holds logits, neither probabilities nor sigmoids{by}"
    if metadata.threshold is not None and kind == "sigmoid":
        found.output["threshold"] = metadata.threshold
    elif kind == "sigmoid":
        found.assumed["output.threshold"] = "a class is there above a probability of 0.5"
    kind = spec.output.kind if "output.kind" in spec.said else kind
    shape = output.shape
    if shape is not None and len(shape) != 4 and not (kind == "classes" and len(shape) in (2, 3)):
        wanted = "(B, H, W)" if kind == "classes" else "(B, C, H, W) or (B, H, W, C)"
        raise ModelError(f"{header.path} returns {output.name}, {output}; wanted {wanted} for output.kind {kind}")
    layout = output.layout or _output_layout(shape, tensor)
    if layout is None:
        layout = found.input["layout"]
        if kind != "classes" or (shape is not None and len(shape) == 4):
            found.assumed["output.layout"] = f"the output is {layout.upper()} like the input"
    found.output["layout"] = layout
    return kind


def _output_layout(shape: Shape | None, tensor: TensorHeader) -> Layout | None:
    """Return where an output has its channels, if its lengths tell: two of them are in proportion to the input's."""
    if shape is None or len(shape) != 4:
        return None
    _, a, b, c = shape
    last, first = _disproportion((b, c), tensor), _disproportion((a, b), tensor)
    if last != first:
        return "nchw" if last < first else "nhwc"
    free = [length is None for length in (a, b, c)]
    if free == [False, True, True]:
        return "nchw"
    return "nhwc" if free == [True, True, False] else None


def _disproportion(sides: tuple[int | None, int | None], tensor: TensorHeader) -> float:
    """Return how far sides are from the proportions of the input; infinite beyond what rounding explains."""
    if tensor.shape is None or None in sides:
        return math.inf
    layout = tensor.layout or _input_layout(tensor.shape) or "nchw"
    _, height, width = _sides(tensor.shape, layout)
    if height is None or width is None:
        return math.inf
    apart = abs((sides[0] or 0) / height - (sides[1] or 0) / width)
    return apart if apart <= 1 / min(height, width) else math.inf


def _classes_of(output: TensorHeader, kind: OutputKind, layout: Layout) -> int | None:
    """Return how many classes an output tells apart, None if its header does not say."""
    if kind == "classes":
        return output.choices
    if output.shape is None or len(output.shape) != 4:
        return None
    return output.shape[1 if layout == "nchw" else 3]


def _labels(channels: int | None, kind: OutputKind, metadata: Metadata, assumed: dict[str, str]) -> LabelSet | None:
    """Return the labels, named or numbered; None if nothing says how many there are."""
    implied = kind == "sigmoid" or (channels == 1 and kind != "classes")
    """Whether the background has no channel of its own."""
    if channels is not None:
        count = channels + implied
    elif metadata.labels:
        count = len(metadata.labels)
    elif kind == "classes":
        count = MOST_NUMBERED
        assumed["labels"] = f"nothing says how many classes there are: up to {count}, class 0, class 1, ..."
        return numbered(count)
    else:
        return None
    if metadata.labels and (found := _named(metadata.labels, count, channels, assumed)):
        return found
    aside = assumed.pop("labels", "nothing names the classes")
    if implied:
        names = ("background", *(f"class {index}" for index in range(1, count)))
        assumed["labels"] = f"{aside}: where no class is there is background, the others have numbers from 1"
        return LabelSet(f"numbered-{count}", names, background=0)
    assumed["labels"] = f"{aside}: they are called class 0 to class {count - 1}, and none is the background"
    return numbered(count)


def _named(names: tuple[str, ...], count: int, channels: int | None, assumed: dict[str, str]) -> LabelSet | None:
    """Return the labels that metadata names, None if they do not fit."""
    background = background_of(names)
    if len(names) == count - 1 and background is None:
        names, background = ("background", *names), 0
        assumed["labels"] = f"class 0 is the background: {len(names) - 1} labels are given for {count} classes"
    if len(names) != count and not (len(names) == channels and background is not None):
        assumed["labels"] = f"{len(names)} labels are given for {count} classes and not used"
        return None
    try:
        return LabelSet("own", names, background=background)
    except UsageError as error:
        assumed["labels"] = f"the labels that are given cannot be used ({error.message})"
        return None


def unused(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the entries of a file's metadata that are not understood."""
    understood = read_metadata(metadata).understood
    return {key: value for key, value in metadata.items() if key not in understood}
