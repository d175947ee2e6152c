"""Models of a case file that validate themselves, and the JSON Schema made from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypeAliasType

from segcore.core.errors import CaseError, UsageError, nearest_hint
from segcore.core.labels import MAX_CLASSES, MAX_NAME, VOC, LabelSet
from segcore.core.limits import PERCENTILE, Limits
from segcore.core.record_fields import Precision

T = TypeVar("T")

SCHEMA_COMMAND = "segcore cases --schema > cases/case.schema.json"
DEFAULT_MODELS = ("embedded", "fcn_resnet101")
DEFAULT_SIZES = (320,)
MIN_SIZE, MAX_SIZE = 32, 4096

SLUG = r"^[a-z0-9][a-z0-9_-]{0,63}$"
IDENTIFIER = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
MODEL = r"^[A-Za-z0-9./][A-Za-z0-9_./-]{0,199}$"
URL = r"^[Hh][Tt][Tt][Pp][Ss]?://[^/\s]\S*$"
SHA256 = r"^[0-9a-fA-F]{64}$"
RESOURCE = r"^[a-z0-9_]+:[A-Za-z0-9_.-]+$"
FACTORY = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*$"
DEVICE = r"^(cpu|mps|cuda(:[0-9]{1,3})?)$"
PATTERNS = {
    SLUG: "1 to 64 lower-case letters, digits, - and _",
    IDENTIFIER: "1 to 64 letters, digits, _, . and -",
    MODEL: "the name of a model, or the path of a model file",
    URL: "an https address; for a local file use `path`",
    SHA256: "64 hexadecimal digits",
    RESOURCE: "PACKAGE:FILE, such as segcore:chelsea.png",
    FACTORY: "package.module:factory",
    DEVICE: "cpu, mps, cuda or cuda:INDEX",
    PERCENTILE: "a percentile from p1 to p99.999, such as p50 (the median)",
}

Conflict = tuple[tuple[str | int, ...], str]
"""Path below the validated model, and which of its values contradict each other."""


def refuse(conflicts: Iterable[Conflict]) -> None:
    """Raise one error that carries all conflicts, if there are any; `problems_of` makes a problem of each."""
    found = tuple(conflicts)
    if found:
        raise PydanticCustomError("conflict", "{words}", {"words": "; ".join(w for _, w in found), "conflicts": found})


def one_of(entry: BaseModel, keys: Sequence[str], note: str = "") -> Iterable[Conflict]:
    """Yield a conflict unless exactly one of the keys has a value."""
    given = [key for key in sorted(keys) if getattr(entry, key) is not None]
    if len(given) != 1:
        wanted = f"{', '.join(keys[:-1])} and {keys[-1]}{note}"
        yield (), f"wanted exactly one of {wanted}, found {' and '.join(given) or 'none'}"


def hash_of_url(url: str | None, sha256: str | None) -> Iterable[Conflict]:
    """Yield a conflict if a URL has no hash."""
    if url is not None and sha256 is None:
        yield ("url",), "a url needs its sha256 (`sha256sum FILE`)"


_SUGGESTED = {"enum": [*VOC.names, *VOC.aliases]}
"""What editors suggest; models with other classes have other names."""
_CLASS_NAMES = {"anyOf": [_SUGGESTED, {"type": "string", "minLength": 1, "maxLength": MAX_NAME}]}
_CLASS = {"anyOf": [*_CLASS_NAMES["anyOf"], {"type": "integer", "minimum": 0, "maximum": MAX_CLASSES - 1}]}


def _labels_in(info: ValidationInfo) -> tuple[LabelSet, ...]:
    """Return the label sets of the context: if there is one, classes get their names in it."""
    context: dict[str, tuple[LabelSet, ...]] = info.context or {}
    return context.get("labels", ())


def class_name(value: object, info: ValidationInfo) -> str:
    """Return the name of a class that is given by name, alias or index.

    Without a label set in the context, and with several of which one has the class, it is the text as it was written.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise PydanticCustomError("class_type", "should be the name or index of a class")
    labels = _labels_in(info)
    try:
        if len(labels) == 1:
            return labels[0].names[labels[0].index(value)]
        if labels and all(each.find(value) is None for each in labels):
            known = [name for each in labels for name in (*each.names, *each.aliases)]
            hint = nearest_hint(str(value).strip(), known)
            raise UsageError(f"unknown class {value!r}{hint}; none of {', '.join(e.name for e in labels)} has it")
    except UsageError as error:
        raise PydanticCustomError("class_name", "{words}", {"words": str(error)}) from None
    return str(value)


def _each_once(value: object, validate: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    """Refuse a class that is named twice, also by different names."""
    names = validate(value)
    if isinstance(value, dict | list | tuple) and len(set(names)) < len(value):
        known = [class_name(name, info) for name in value]
        twice = next(name for name in known if known.count(name) > 1)
        raise PydanticCustomError("twice", "names {name} twice", {"name": twice})
    return names


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, str | int | dict) else value


def _single_too(schema: dict[str, Any]) -> None:
    """Allow a single item instead of a list in the JSON Schema."""
    items = schema.pop("items")
    schema["anyOf"] = [items, {"type": schema.pop("type"), "items": items}]


def _inner_path(path: str) -> str:
    odd = "\\" in path or "\0" in path or PureWindowsPath(path).drive
    if not path.strip() or odd or PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise PydanticCustomError(
            "inner_path", "should be a path below the directory of the case file, with / as separator"
        )
    return path


Text = Annotated[str, Strict(), Field(min_length=1, max_length=1000)]
Slug = Annotated[str, Strict(), Field(pattern=SLUG)]
Identifier = Annotated[str, Strict(), Field(pattern=IDENTIFIER)]
ModelName = Annotated[str, Strict(), Field(pattern=MODEL)]
Size = Annotated[int, Strict(), Field(ge=MIN_SIZE, le=MAX_SIZE)]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Url = Annotated[str, Strict(), Field(pattern=URL)]
Sha256 = Annotated[str, Strict(), Field(pattern=SHA256)]
# Named, so that the JSON Schema has the list once.
ClassName = TypeAliasType("ClassName", Annotated[str, BeforeValidator(class_name), WithJsonSchema(_CLASS)])
Device = Annotated[str, Strict(), Field(pattern=DEVICE)]
OneOrMore = Annotated[tuple[T, ...], BeforeValidator(_as_tuple), Field(json_schema_extra=_single_too)]
EachOnce = WrapValidator(_each_once)


class CaseModel(BaseModel):
    """Base of all models: frozen; unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class ImageSource(CaseModel):
    """Source of a photo or mask: exactly one of `url` (with `sha256`), `path` and `resource`."""

    url: Url | None = None
    """Address to download from, preferably one that never changes (pinned to a commit)."""
    sha256: Sha256 | None = None
    """SHA-256 of the file at `url`: 64 hexadecimal digits."""
    path: Annotated[str, Strict(), AfterValidator(_inner_path)] | None = None
    """File below the directory of the case file, relative to it."""
    resource: Annotated[str, Strict(), Field(pattern=RESOURCE)] | None = None
    """File that an installed package contains: segcore:chelsea.png."""
    licence: Text | None = None
    """Licence of the file."""
    bytes: Annotated[int, Strict(), Field(gt=0)] | None = None
    """Size of the file at `url`; a longer download is aborted."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        conflicts = [*one_of(self, ("url", "path", "resource")), *hash_of_url(self.url, self.sha256)]
        if self.url is None:
            beside = [name for name in ("sha256", "bytes") if getattr(self, name) is not None]
            conflicts += [((name,), f"{name} needs a url, found none") for name in beside]
        refuse(conflicts)
        return self


class ClassRange(CaseModel):
    """Share of the photo's pixels that a class should cover."""

    min_fraction: Share | None = None
    """Minimum share, 0 to 1."""
    max_fraction: Share | None = None
    """Maximum share, 0 to 1."""

    @model_validator(mode="after")
    def _some_range(self) -> Self:
        low, high = self.min_fraction, self.max_fraction
        if low is None and high is None:
            refuse([((), "wanted min_fraction, max_fraction or both, found none")])
        if low is not None and high is not None and low > high:
            refuse([(("min_fraction",), f"min_fraction {low:g} is greater than max_fraction {high:g}")])
        return self


class Expectations(CaseModel):
    """What a correct model sees in the photo."""

    dominant: ClassName | None = None
    """Class with the most pixels other than background."""
    classes: Annotated[dict[ClassName, ClassRange], EachOnce] = {}
    """Share of the photo that each class covers."""
    absent: Annotated[tuple[ClassName, ...], EachOnce] = ()
    """Classes that no pixel may have; to tolerate a few pixels, set a max_fraction for the class instead."""
    ground_truth: ImageSource | None = None
    """Ground-truth mask: a PNG of class indices in the size of the photo, by the labels of the case's first model.
    Pixels of their `ignore` (255 for VOC) are not scored."""
    min_iou: Annotated[dict[ClassName, Share], EachOnce] = {}
    """Minimum intersection over union with the mask, by class."""
    min_miou: Share | None = None
    """Minimum mean IoU over the classes in mask or prediction."""

    @property
    def named(self) -> dict[str, str]:
        """Each class that is named, with the key under which it is first."""
        named = {name: "dominant" for name in [self.dominant] if name is not None}
        for key, names in (("classes", self.classes), ("absent", self.absent), ("min_iou", self.min_iou)):
            named |= {name: key for name in names if name not in named}
        return named

    def in_labels(self, labels: LabelSet) -> Expectations:
        """Return the expectations with a label set's names of classes; CaseError if they are impossible."""
        try:
            return Expectations.model_validate(dict(self), context={"labels": (labels,)})
        except ValidationError as error:
            words = "; ".join(found["msg"] for found in error.errors())
            raise CaseError(f"expect: {words}; wanted expectations that the classes of {labels.name} allow") from None

    @model_validator(mode="after")
    def _possible(self, info: ValidationInfo) -> Self:
        conflicts = list(self._about_figures())
        if len(labels := _labels_in(info)) == 1:  # else one class may have several names here
            conflicts = [*self._about_absence(), *self._about_dominance(labels[0].background_name), *conflicts]
        refuse(conflicts)
        return self

    def _about_absence(self) -> Iterable[Conflict]:
        for name in self.absent:
            if name == self.dominant:
                yield ("dominant",), f"{name} is both dominant and absent"
            if name in self.classes and self.classes[name].min_fraction:
                yield ("classes", name, "min_fraction"), f"{name} has a min_fraction but is absent"
            if self.min_iou.get(name):
                yield ("min_iou", name), f"{name} has a min_iou but is absent"

    def _about_dominance(self, background: str | None) -> Iterable[Conflict]:
        if self.dominant is None:
            return
        bounds = self.classes.get(self.dominant, ClassRange(max_fraction=1.0))
        most = 1.0 if bounds.max_fraction is None else bounds.max_fraction
        if most == 0:
            yield ("classes", self.dominant, "max_fraction"), f"{self.dominant} is dominant with a max_fraction of 0"
        for name, other in self.classes.items():
            least = other.min_fraction or 0.0
            if name in (self.dominant, background) or least == 0:
                continue
            if self.dominant == background:
                words = f"{background} is dominant only without other classes, but {name} has a min_fraction"
                yield ("dominant",), words
            elif least > most > 0:
                words = f"{name} has at least {least:g}, more than the dominant {self.dominant} may have ({most:g})"
                yield ("classes", name, "min_fraction"), words

    def _about_figures(self) -> Iterable[Conflict]:
        total = sum(bounds.min_fraction or 0.0 for bounds in self.classes.values())
        if total > 1 + 1e-9:
            yield ("classes",), f"the min_fractions add up to {total:g}, wanted at most 1"
        if self.ground_truth is None:
            for key in ("min_iou", "min_miou"):
                if getattr(self, key) not in (None, {}):
                    yield (key,), f"{key} needs a ground_truth"


class When(CaseModel):
    """Items to which a rule applies: each given key must match by one of its values."""

    model: OneOrMore[Identifier] = ()
    device: OneOrMore[Device] = ()
    """cpu, mps, cuda (any of them) or cuda:1."""
    runtime: OneOrMore[Identifier] = ()
    precision: OneOrMore[Precision] = ()
    size: OneOrMore[Size] = ()
    kind: OneOrMore[Literal["latency", "throughput", "load", "accuracy"]] = ()
    batch: OneOrMore[Annotated[int, Strict(), Field(ge=1)]] = ()
    """Photos per call."""
    tag: OneOrMore[Slug] = ()
    """Any of the case's tags."""


class LimitRule(Limits, CaseModel):
    """Limits of the gate, and the items to which they apply."""

    when: When = When()
    """Items to which the rule applies, all if omitted. If several rules set a limit, the last that matches counts."""

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if not self.model_fields_set - {"when"}:
            refuse([((), f"sets no limit: wanted one of {', '.join(Limits.model_fields)}")])
        return self


class CaseSettings(CaseModel):
    """How to run and judge a case, or in `defaults.yaml` all cases of the directory."""

    models: Annotated[tuple[ModelName, ...], Field(min_length=1)] = DEFAULT_MODELS
    """Models to run: names that `segcore models` lists, or paths of model files, relative to this file."""
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = DEFAULT_SIZES
    """Shorter side of the photo at model scale, pixels."""
    limits: OneOrMore[LimitRule] = ()
    """Limits of the gate: one rule or a list of them."""

    @model_validator(mode="after")
    def _no_repetition(self) -> Self:
        lists = {"models": self.models, "sizes": self.sizes, "tags": getattr(self, "tags", ())}
        refuse(((key,), f"{key} repeats a value") for key, values in lists.items() if len(set(values)) < len(values))
        return self


class CaseEntry(CaseSettings):
    """One photo, what is expected in it, and how it is run: a case as it is written."""

    name: Slug
    """Short and unique; part of the names of tests and files."""
    image: ImageSource
    """The photo."""
    expect: Expectations = Expectations()
    """What a correct model sees in it."""
    tags: tuple[Slug, ...] = ()
    """Words to select cases by; slow models are timed on the cases tagged `speed`."""
    skip_reason: Text | None = None
    """Why the case is not run; omit it to run the case."""


class Case(CaseEntry):
    """A case with the defaults of its directory and its position."""

    source_file: Path = Path()
    line: int = 0
    """Line of the file where the case begins, from 1."""
    mask_labels: LabelSet | None = Field(default=None, exclude=True)
    """What the indices of the mask mean: the labels of the first model that the case lists; None for those of each."""

    def __hash__(self) -> int:
        return hash((self.name, self.source_file, self.line))

    def limits_for(
        self,
        *,
        model: str,
        device: str,
        runtime: str,
        precision: str,
        size: int,
        kind: str = "latency",
        batch: int = 1,
    ) -> Limits:
        """Return the limits that the matching rules set for an item; the gate has defaults for the others."""
        given = {"model": model, "runtime": runtime, "precision": precision, "size": size, "kind": kind, "batch": batch}
        item: dict[str, set[Any]] = {key: {value} for key, value in given.items()}
        item |= {"device": {device, device.partition(":")[0]}, "tag": set(self.tags)}
        found = Limits()
        for rule in self.limits:
            if all(not values or item[key] & set(values) for key, values in rule.when):
                found = rule.over(found)
        return found


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a case file: one case, a list of them, or ``defaults.yaml``."""
    case, settings = (model.model_json_schema(ref_template="#/$defs/{model}") for model in (CaseEntry, CaseSettings))
    definitions = case.pop("$defs") | settings.pop("$defs")
    for key in ("classes", "min_iou"):
        definitions["Expectations"]["properties"][key]["propertyNames"] = _CLASS_NAMES
    cases = {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/Case"}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "segcore case file",
        "description": f"One case, a list of them under `cases`, or defaults.yaml. Made by `{SCHEMA_COMMAND}`.",
        "anyOf": [
            {"$ref": "#/$defs/Case"},
            {"type": "object", "properties": {"cases": cases}, "required": ["cases"], "additionalProperties": False},
            {"$ref": "#/$defs/Defaults"},
        ],
        "$defs": {**definitions, "Case": case | {"title": "Case"}, "Defaults": settings | {"title": "Defaults"}},
    }
