"""Models of a model file that validate themselves, and the JSON Schema made from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidatorFunctionWrapHandler, WrapValidator
from pydantic import model_validator as check
from pydantic_core import PydanticCustomError

from segcore.core import model_spec as spec
from segcore.core.errors import UsageError
from segcore.core.labels import LABEL_SETS, MAX_CLASSES, LabelSet, background_of
from segcore.inputs.cases.model import (
    FACTORY,
    CaseModel,
    Conflict,
    Identifier,
    Sha256,
    Share,
    Text,
    Url,
    hash_of_url,
    one_of,
    refuse,
)

SCHEMA_COMMAND = "segcore models --schema > models/model.schema.json"
MAX_SIDE = 1 << 14
"""Largest height or width of a model's input."""
WITH_WEIGHTS = ("torchvision", "python")
"""Sources whose weights are not in the files that they name."""
SIZES = ("shorter", "longer", "none")
"""What `resize` may be without a number."""
FRACTION = r"^[0-9]{1,9} */ *[0-9]{1,9}$"
COLOUR = r"^#[0-9a-fA-F]{6}$"


def _alternative(*schemas: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Return a function that allows other forms in the JSON Schema of a field."""

    def extend(schema: dict[str, Any]) -> None:
        own = {key: schema.pop(key) for key in list(schema) if key not in ("description", "title", "default")}
        schema["anyOf"] = [*schemas, *own.pop("anyOf", [own])]

    return extend


def _unit(value: object) -> object:
    """Return the number that ``1/255`` is."""
    if isinstance(value, str) and re.fullmatch(FRACTION, value):
        top, bottom = map(int, value.split("/"))
        return top / bottom if bottom else value
    return value


def _listed(value: object) -> object:
    return value if isinstance(value, list | tuple | dict | str | None) else (value,)


def _color(value: object) -> object:
    """Return (R, G, B) for ``#804080`` or a list; other values are refused where they are."""
    if isinstance(value, str) and re.fullmatch(COLOUR, value):
        return tuple(bytes.fromhex(value[1:]))
    if isinstance(value, list | tuple) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value):
        return tuple(value)
    raise PydanticCustomError("color", "should be a colour, [R, G, B] of 0 to 255 or '#RRGGBB' in quotes")


def _plain(value: object) -> object:
    """Return an argument of a factory, with lists as tuples."""
    if isinstance(value, list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict):
        raise PydanticCustomError("argument", "should be text, a number, true, false, null, or a list of them")
    return value


def _word(value: object, validate: ValidatorFunctionWrapHandler) -> ResizeEntry:
    """Return ``shorter``, ``longer`` or ``none`` as the entry that it stands for."""
    if not isinstance(value, str):
        found: ResizeEntry = validate(value)
        return found
    if value not in SIZES:
        words = "should be shorter, longer or none, or a mapping such as `fixed: [512, 1024]`"
        raise PydanticCustomError("resize", words)
    return ResizeEntry.model_construct({value} - {"none"})


Side = Annotated[int, Strict(), Field(ge=1, le=MAX_SIDE)]
Shape = Annotated[tuple[Side, Side], Field(description="[height, width] in pixels.")]
Number = Annotated[float, Strict()]
Channels = Annotated[
    tuple[Number, ...], BeforeValidator(_listed), Field(json_schema_extra=_alternative({"type": "number"}))
]
Rgb = Annotated[
    tuple[int, int, int],
    BeforeValidator(_color),
    Field(json_schema_extra=_alternative({"pattern": COLOUR, "type": "string"})),
]
Index = Annotated[int, Strict(), Field(ge=0, le=MAX_CLASSES)]


class SourceEntry(CaseModel):
    """Where the model comes from: exactly one of the kinds. Paths are relative to the model file."""

    torchvision: Text | None = None
    """Name of one of torchvision's segmentation models: deeplabv3_resnet50."""
    python: Annotated[str, Strict(), Field(pattern=FACTORY)] | None = None
    """package.module:factory, a function or class that returns a torch.nn.Module; it is imported and called."""
    arguments: dict[Identifier, Annotated[Any, AfterValidator(_plain)]] = Field(default_factory=dict)
    """Keyword arguments of the factory."""
    onnx: Text | None = None
    """ONNX file."""
    openvino: Text | None = None
    """OpenVINO IR: the .xml file, with its .bin beside it."""
    litert: Text | None = None
    """TensorFlow Lite (LiteRT) file."""
    exported: Text | None = None
    """.pt2 file of torch.export.save."""
    torchscript: Text | None = None
    """File of torch.jit.save."""
    transformers: Text | None = None
    """Directory of a Hugging Face model for semantic segmentation."""
    command: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """Program and arguments; {photo} and {mask} stand for the paths of a photo and of the mask that it writes."""
    serve: bool = False
    """The program is started once; it reads the path of a photo as a line, and answers with the path of its mask."""
    timeout: Annotated[float, Strict(), Field(gt=0, le=86_400)] = 60.0
    """Longest time that the program may take for a photo, seconds."""
    photos: spec.PhotoFormat = "png"
    """Format of the photos that the program gets; ppm can be read without a library."""

    @check(mode="after")
    def _one_kind(self) -> Self:
        conflicts = list(one_of(self, KINDS))
        if self.arguments and self.python is None:
            conflicts.append((("arguments",), "arguments need python, found another source"))
        if self.command is None:
            beside = sorted(self.model_fields_set & OF_PROGRAMS)
            conflicts += [((name,), f"{name} needs command, found another source") for name in beside]
        else:
            conflicts += _about_command(self.command, self.serve)
        refuse(conflicts)
        return self

    @property
    def kind(self) -> str:
        """The one of `KINDS` that has a value."""
        return next(name for name in KINDS if getattr(self, name) is not None)


def _about_command(command: tuple[str, ...], serve: bool) -> Iterable[Conflict]:
    named = [word for word in (spec.PHOTO, spec.MASK) if any(word in part for part in command)]
    if serve and named:
        yield ("command",), f"a program that serves gets photos on its standard input: omit {' and '.join(named)}"
    if not serve and len(named) < 2:
        missing = " and ".join(word for word in (spec.PHOTO, spec.MASK) if word not in named)
        yield ("command",), f"wanted {missing} among the arguments, or `serve: true`"


OF_PROGRAMS = {"serve", "timeout", "photos"}
OF_PHOTOS = {"resize", "multiple_of", "fill", "interpolation", "antialias"}
"""What `input` may say of the photos that a program gets."""
KINDS = tuple(name for name in SourceEntry.model_fields if name not in {"arguments", *OF_PROGRAMS})


class WeightsEntry(CaseModel):
    """Weights of the model: a file, or an address with its sha256."""

    path: Text | None = None
    """.safetensors, or a state dict saved by torch.save; relative to the model file."""
    url: Url | None = None
    """Address to download from."""
    sha256: Sha256 | None = None
    """SHA-256 of the file: 64 hexadecimal digits. Needed for a url."""

    @check(mode="after")
    def _one_place(self) -> Self:
        refuse([*one_of(self, ("path", "url")), *hash_of_url(self.url, self.sha256)])
        return self


Weights = Annotated[
    WeightsEntry,
    BeforeValidator(lambda value: {"path": value} if isinstance(value, str) else value),
    Field(json_schema_extra=_alternative({"type": "string"})),
]


class LabelsEntry(CaseModel):
    """The classes: index i is channel i of the output."""

    set: Literal["voc", "cityscapes", "ade20k", "coco-stuff"] | None = None
    """Name of a known set of labels."""
    file: Text | None = None
    """YAML file with a list of names or with these keys, or text file with a name a line."""
    names: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_CLASSES)] | None = None
    """Names of the classes, in order."""
    colours: dict[Text, Rgb] = Field(default_factory=dict)
    """Colours by name of the class; the others have those of the VOC colour map."""
    aliases: dict[Text, Text] = Field(default_factory=dict)
    """Other names for classes: `pedestrian: person`."""
    background: Text | Index | None = None
    """Class that is painted transparent and never dominant [the one named background]; null if there is none."""
    ignore: Index | None = None
    """Value of pixels of a ground-truth mask that are not scored [255]; null if all are scored."""

    @check(mode="after")
    def _one_list(self) -> Self:
        conflicts = list(one_of(self, ("set", "file", "names")))
        if self.names is None and (beside := self.model_fields_set - {"set", "file", "names"}):
            conflicts += [((name,), f"{name} needs names beside it") for name in sorted(beside)]
        if not conflicts and self.names is not None:
            try:
                self.label_set("labels")
            except UsageError as error:
                conflicts.append((("names",), str(error)))
        refuse(conflicts)
        return self

    def label_set(self, name: str) -> LabelSet:
        """Return the labels that `names` and the keys beside it mean; UsageError if they contradict each other."""
        names = self.names or ()
        options: dict[str, Any] = {"aliases": dict(self.aliases)}
        if "ignore" in self.model_fields_set:
            options["ignore"] = self.ignore
        index = background_of(names)
        if "background" in self.model_fields_set:
            index = None if self.background is None else LabelSet(name, names, **options).index(self.background)
        found = LabelSet(name, names, background=index, **options)
        colors = list(found.colors)
        for key, color in self.colours.items():
            colors[found.index(key)] = color
        return replace(found, colors=tuple(colors))


def labels_form(value: object) -> object:
    """Return the mapping that a name, the path of a file or a list of names stands for."""
    if isinstance(value, list):
        return {"names": value}
    if isinstance(value, str):
        return {"set": value} if value in LABEL_SETS or not re.search(r"[./]", value) else {"file": value}
    return value


Labels = Annotated[
    LabelsEntry,
    BeforeValidator(labels_form),
    Field(json_schema_extra=_alternative({"type": "string"}, {"type": "array", "items": {"type": "string"}})),
]


class ResizeEntry(CaseModel):
    """The size of the input: one of the kinds."""

    shorter: Side | None = None
    """The shorter side has this length; without a number, the one that the run or the case names."""
    longer: Side | None = None
    """The longer side has this length."""
    fixed: Shape | None = None
    """[height, width], whatever the proportions of the photo."""
    letterbox: Shape | None = None
    """[height, width]; the photo keeps its proportions, is centred, and the rest is filled with `fill`."""

    @check(mode="after")
    def _one_kind(self) -> Self:
        refuse(one_of(self, ("shorter", "longer", "fixed", "letterbox"), " (or the word none)"))
        return self


class InputEntry(CaseModel):
    """How a photo becomes the model's input; the defaults are those of torchvision's models."""

    resize: Annotated[
        ResizeEntry, WrapValidator(_word), Field(json_schema_extra=_alternative({"enum": list(SIZES)}))
    ] = Field(default_factory=lambda: ResizeEntry.model_construct({"shorter"}))
    """shorter, longer or none, or a mapping with a number."""
    multiple_of: Annotated[int, Strict(), Field(ge=1, le=1024)] = 1
    """Pad height and width at the bottom and on the right to multiples of this; the output is cut back."""
    fill: Rgb = (0, 0, 0)
    """Colour of the padding, [R, G, B] of 0 to 255."""
    interpolation: spec.Interpolation = "bilinear"
    """How pixels are interpolated when the photo is resized."""
    resizer: spec.Resizer = "pillow"
    """Whose arithmetic resizes: Pillow's images, or torchvision's tensors (also transformers 5)."""
    antialias: bool = True
    """Whether to average when a photo gets smaller, as Pillow does and OpenCV does not."""
    colour: spec.Colour = "rgb"
    """Order of the channels."""
    scale: Annotated[
        Number,
        BeforeValidator(_unit),
        Field(gt=0, json_schema_extra=_alternative({"pattern": FRACTION, "type": "string"})),
    ] = 1 / 255
    """Factor for the values of 0 to 255, as a number or as 1/255."""
    mean: Channels = spec.IMAGENET_MEAN
    """Subtracted after scaling, for each channel or for all."""
    std: Channels = spec.IMAGENET_STD
    """Divided by after that."""
    layout: spec.Layout = "nchw"
    """Order of the dimensions: batch, channels, height, width."""
    dtype: spec.InputType = "float32"
    """Type of the values. uint8 are those of the photo, neither scaled nor normalised."""

    @check(mode="after")
    def _fits(self) -> Self:
        refuse(self._conflicts())
        return self

    def _conflicts(self) -> Iterable[Conflict]:
        if self.interpolation in ("box", "hamming", "lanczos"):
            if self.resizer == "torchvision":
                yield ("resizer",), f"torchvision has no {self.interpolation}: wanted nearest, bilinear or bicubic"
            elif not self.antialias:
                words = f"{self.interpolation} averages: wanted antialias true, or nearest, bilinear or bicubic"
                yield ("antialias",), words
        wanted = 1 if self.colour == "grey" else 3
        for key in ("mean", "std"):
            values = getattr(self, key)
            if len(values) not in (1, wanted) and (key in self.model_fields_set or self.dtype != "uint8"):
                yield (key,), f"{key} has {len(values)} numbers, wanted 1{' or 3' if wanted == 3 else ' for grey'}"
        if not all(self.std):
            yield ("std",), "std has a 0, which nothing can be divided by"
        if self.dtype == "uint8":
            for key in sorted({"scale", "mean", "std"} & self.model_fields_set):
                yield (key,), f"{key} does not go with dtype uint8, whose values are those of the photo"


class OutputEntry(CaseModel):
    """What the model's output means."""

    name: Text | None = None
    """Of the output, if there are several."""
    kind: spec.OutputKind = "logits"
    """logits or probabilities of each class, sigmoid (probabilities that are held against a threshold), or classes."""
    threshold: Share = 0.5
    """Of sigmoid: the class is there above this probability."""
    layout: spec.Layout = "nchw"
    """Order of the dimensions."""
    align_corners: bool = False
    """How the output is enlarged to the size of the photo: as torch's interpolate with this argument."""

    @check(mode="after")
    def _fits(self) -> Self:
        if "threshold" in self.model_fields_set and self.kind != "sigmoid":
            refuse([(("threshold",), f"threshold needs kind sigmoid, found {self.kind}")])
        return self


class ModelEntry(CaseModel):
    """A model file as it is written."""

    name: Identifier | None = None
    """Name of the model; that of the file without .yaml if omitted."""
    source: SourceEntry
    """Where the model comes from."""
    weights: Weights | None = None
    """Weights, for torchvision and python: the path of a checkpoint, or a mapping with url and sha256."""
    labels: Labels | None = None
    """The classes: voc, cityscapes, ade20k or coco-stuff, a list of names, a file of them, or a mapping."""
    input: InputEntry = Field(default_factory=InputEntry)
    """How a photo becomes the input."""
    output: OutputEntry = Field(default_factory=OutputEntry)
    """What the output means."""
    reference: Identifier | None = None
    """Name of the model whose masks this one should have: parity is held against it."""

    @check(mode="after")
    def _fits_a_program(self) -> Self:
        if self.source.command is not None:
            given = [("input", key) for key in sorted(self.input.model_fields_set - OF_PHOTOS)]
            given += [("output", key) for key in sorted(self.output.model_fields_set)]
            refuse(
                ((part, key), f"{part}.{key} does not go with command: a program gets a photo and returns a class map")
                for part, key in given
            )
        return self

    @check(mode="after")
    def _weights_fit(self) -> Self:
        if self.weights is not None and self.source.kind not in WITH_WEIGHTS:
            words = f"weights are for {' and '.join(WITH_WEIGHTS)}; {self.source.kind} holds its own"
            refuse([(("weights",), words)])
        return self


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a model file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **ModelEntry.model_json_schema(),
        "title": "segcore model file",
        "description": f"What a model is, and what its input and output mean. Made by `{SCHEMA_COMMAND}`.",
    }
