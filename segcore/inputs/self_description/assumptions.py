"""From what a file says to what a model file would say: gaps are filled by assumptions, and each is named."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


def describe(header: ModelHeader, spec: ModelSpec) -> Description:
    """Return what a file says about itself, with assumptions for what neither it nor a model file says.

    ModelError if it takes something else than one photo, or its output cannot be one value for each pixel.
    """
    found = _Found(header, spec)
    found.describe_input()
    output = main_output(header, spec.output.name)
    kind, layout = found.describe_output(output)
    labels = _labels(_classes_of(output, kind, layout), kind, found.metadata, found.assumed)
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


_Range = tuple[float, tuple[float, ...], tuple[float, ...], str]
"""Scale, mean, deviation, and what of it was assumed."""


class _Found:
    """What a file says, and what is assumed where it says nothing."""

    def __init__(self, header: ModelHeader, spec: ModelSpec) -> None:
        self.header, self.spec = header, spec
        self.metadata = read_metadata(header.metadata)
        self.photo = photo_input(header)
        self.input: dict[str, Any] = {}
        self.output: dict[str, Any] = {}
        self.assumed: dict[str, str] = {}

    def describe_input(self) -> None:
        shape = self.photo.shape or (None,) * 4
        layout = self.photo.layout or _input_layout(shape)
        if layout is None:
            layout = "nhwc" if self.header.kind == "litert" else "nchw"
            self.assumed["input.layout"] = f"the input is {layout.upper()}"
        channels, height, width = _sides(shape, layout)
        self.input["layout"] = layout
        if channels not in (1, 3, None):
            raise self._refused(f"{channels} channels, wanted 3 or 1")
        self._describe_colour(channels or 3)
        self._describe_size(height, width)
        self._describe_values(channels or 3)

    def _refused(self, why: str) -> ModelError:
        return ModelError(f"{self.header.path} takes {self.photo.name}, {self.photo}: {why}")

    def _describe_colour(self, channels: int) -> None:
        into_rgb = self.metadata.reversed_channels
        if channels == 1:
            self.input["colour"] = "grey"
        elif self.metadata.colour in ("rgb", "bgr"):
            self.input["colour"] = self.metadata.colour
        elif into_rgb is not None:
            self.input["colour"] = "rgb" if into_rgb else "bgr"
            self.assumed["input.colour"] = (
                f"reverse_input_channels is {str(into_rgb).lower()}, which for photos read as BGR means that the model "
                f"takes {self.input['colour'].upper()}"
            )
        else:
            self.input["colour"] = "rgb"
            self.assumed["input.colour"] = "the channels are RGB, not BGR"

    def _describe_size(self, height: int | None, width: int | None) -> None:
        if height is None or width is None:
            self.input["resize"] = Resize()
            self.assumed["input.multiple_of"] = "height and width may be any number of pixels"
            return
        kind = self.metadata.resize or "fixed"
        if self.metadata.fill is not None:
            self.input["fill"] = (int(self.metadata.fill),) * 3
        if kind == "longer" and height == width:
            self.input |= {"resize": Resize("longer", (height,)), "multiple_of": height}
        elif kind == "letterbox":
            self.input["resize"] = Resize("letterbox", (height, width))
        else:
            self.input["resize"] = Resize("fixed", (height, width))
            if kind != self.metadata.resize:
                self.assumed["input.resize"] = f"photos are stretched to {width}x{height}, whatever their proportions"

    def _describe_values(self, channels: int) -> None:
        """Describe type and range of the values; of scale, mean and std a user names all or none."""
        dtype, quantised = self.photo.dtype, self.photo.scale > 0
        if dtype not in ("float32", "float16", "uint8") and not quantised:
            raise self._refused("wanted float32, float16 or uint8, or a quantised type")
        raw = (dtype == "uint8" and not quantised) or self.metadata.embedded
        self.input["dtype"] = dtype if dtype == "float16" or (dtype == "uint8" and raw) else "float32"
        if self.spec.said & {"input.scale", "input.mean", "input.std"}:
            return
        scale, mean, std, text = (1.0, (0.0,), (1.0,), "") if raw else self._range(channels)
        for key, values in (("mean", mean), ("std", std)):
            self.input[key] = values * channels if len(values) == 1 else values
        self.input["scale"] = scale
        if text:
            self.assumed["input.mean"] = text

    def _range(self, channels: int) -> _Range:
        aside = ""
        if self.metadata.scale is not None:
            mean, std = self.metadata.mean or (0.0,), self.metadata.std or (1.0,)
            if all(len(values) in (1, channels) for values in (mean, std)) and all(std):
                return self.metadata.scale, mean, std, ""
            aside = f"its mean {mean} and deviation {std} do not fit {channels} channels; "
        if self.photo.scale > 0:
            scale, mean, std, text = _quantised_range(self.photo)
        elif self.header.kind == "litert":
            scale, mean, std, text = 1 / 255, (0.0,), (1.0,), "values go in as 0 to 1, not as -1 to 1 or 0 to 255"
        else:
            scale, mean, std = 1 / 255, IMAGENET_MEAN[:channels], IMAGENET_STD[:channels]
            text = "values are normalised with the ImageNet mean and standard deviation"
        return scale, mean, std, aside + text if text else aside.rstrip("; ")

    def describe_output(self, output: TensorHeader) -> tuple[OutputKind, Layout]:
        """Describe an output; return its kind and layout, which the model file says first."""
        if len(self.header.outputs) > 1:
            names = ", ".join(each.name for each in self.header.outputs)
            self.output["name"] = output.name
            self.assumed["output.name"] = f"of the outputs {names}, {output.name} is the one that counts"
        kind = self._describe_kind(output)
        kind = self.spec.output.kind if "output.kind" in self.spec.said else kind
        shape = output.shape
        if shape is not None and len(shape) != 4 and not (kind == "classes" and len(shape) in (2, 3)):
            wanted = "(B, H, W)" if kind == "classes" else "(B, C, H, W) or (B, H, W, C)"
            what = f"{self.header.path} returns {output.name}, {output}"
            raise ModelError(f"{what}; wanted {wanted} for output.kind {kind}")
        layout = output.layout or _output_layout(shape, self.photo)
        if layout is None:
            layout = self.input["layout"]
            if kind != "classes" or (shape is not None and len(shape) == 4):
                self.assumed["output.layout"] = f"the output is {layout.upper()} like the input"
        self.output["layout"] = layout
        return kind, self.spec.output.layout if "output.layout" in self.spec.said else layout

    def _describe_kind(self, output: TensorHeader) -> OutputKind:
        integer = output.dtype.startswith(("int", "uint")) and not output.scale
        kind: OutputKind = KINDS.get(output.operator, "logits")
        if integer or output.dtype == "bool":
            kind = "classes"
        elif kind == "classes":
            kind = "logits"  # the largest values, not their indices
        self.output["kind"] = kind
        if kind == "logits":
            by = f" (its last operator is {output.operator})" if output.operator else ""
            self.assumed["output.kind"] = f"{output.name} holds logits, neither probabilities nor sigmoids{by}"
        if self.metadata.threshold is not None and kind == "sigmoid":
            self.output["threshold"] = self.metadata.threshold
        elif kind == "sigmoid":
            self.assumed["output.threshold"] = "a class is there above a probability of 0.5"
        return kind


def _input_layout(shape: Shape) -> Layout | None:
    first, last = shape[1] in (1, 3), shape[3] in (1, 3)
    return None if first == last else "nchw" if first else "nhwc"


def _sides(shape: Shape, layout: Layout) -> tuple[int | None, int | None, int | None]:
    """Return channels, height and width."""
    _, a, b, c = shape
    return (a, b, c) if layout == "nchw" else (c, a, b)


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
    implied = kind == "sigmoid" or (channels == 1 and kind != "classes")  # the background has no channel of its own
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
