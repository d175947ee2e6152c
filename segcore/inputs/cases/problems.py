"""Convert pydantic's validation errors to problems with file, line, column and a hint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from segcore.core.errors import nearest_hint
from segcore.core.labels import LabelSet
from segcore.inputs.cases.model import PATTERNS
from segcore.inputs.cases.yaml_source import Located, Position, Problem

M = TypeVar("M", bound=BaseModel)
_WORDS = {
    "model_type": "should be a mapping",
    "model_attributes_type": "should be a mapping",
    "dict_type": "should be a mapping",
    "tuple_type": "should be a list",
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "class_type": "should be the name or index of a class",
    "string_too_short": "should not be empty",
    "too_short": "should not be empty",
}
Loc = tuple[str | int, ...]
"""Keys and list indices that lead from a case to a value, as pydantic gives them."""


def validate(
    model: type[M], node: Located, file: Path, problems: list[Problem], labels: tuple[LabelSet, ...] = ()
) -> M | None:
    """Return the entry that a node means; None if it is invalid, and `problems` says why."""
    try:
        return model.model_validate(node.value, context={"labels": labels})
    except ValidationError as error:
        problems += problems_of(error, node, file, model, labels[0] if len(labels) == 1 else None)
        return None


def problems_of(
    error: ValidationError, node: Located, file: Path, model: type[BaseModel], labels: LabelSet | None = None
) -> Iterator[Problem]:
    """Yield a problem for everything that the validation of `node` as `model` found wrong; its classes are `labels`."""
    for found in error.errors(include_url=False):
        loc = found["loc"]
        if found["type"] == "conflict":
            for below, words in found["ctx"]["conflicts"]:
                yield Problem(file, *_key_position(node, (*loc, *below), labels), f"{_label(loc)}{words}")
        elif found["type"] == "extra_forbidden":
            valid = sorted(_model_at(model, loc[:-1]).model_fields)
            what = f"{_label(loc[:-1])}unknown key {str(loc[-1])!r}{nearest_hint(str(loc[-1]), valid)}"
            yield Problem(file, *_key_position(node, loc), what, f"valid keys are {', '.join(valid)}")
        elif found["type"] == "missing":
            what = f"{_label(loc[:-1])}{loc[-1]} is missing"
            yield Problem(file, *follow(node, loc[:-1])[0].position, what, f"add `{loc[-1]}:`")
        elif found["type"] != "too_short" or not follow(node, loc)[0].children:  # else each item has its own problem
            yield _problem_of_value(found, node, file, labels)


def _problem_of_value(found: Any, node: Located, file: Path, labels: LabelSet | None) -> Problem:
    loc, kind = found["loc"], found["type"]
    words = _WORDS.get(kind, found["msg"].replace("Input should", "should"))
    if kind == "string_pattern_mismatch":
        words = f"should be {PATTERNS[found['ctx']['pattern']]}"
    if loc[-1:] == ("[key]",):
        return Problem(file, *_key_position(node, loc[:-1]), f"{_label(loc[:-2])}{words}")
    value = follow(node, loc, labels)[0]
    if kind not in ("class_name", "twice"):  # these name what they found
        words += f", found {_shown(value)}"
    quote = kind in ("string_type", "class_type") and value.raw
    hint = f"put it in quotes if it is meant as text: '{value.raw}'" if quote else ""
    return Problem(file, *value.position, f"{_label(loc)}{words}", hint)


def _shown(node: Located) -> str:
    if node.raw is None:
        return "a mapping" if isinstance(node.value, dict) else "a list"
    return f"the text {node.value!r}" if isinstance(node.value, str) else node.raw or "nothing"


def _label(loc: Loc) -> str:
    """Return ``expect.classes.cat: ``, or an empty string for the case itself."""
    parts = (f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc)
    return "".join(parts).lstrip(".") + ": " if loc else ""


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel]:
    for part in loc:
        if part in model.model_fields:
            model = next(_models_in(model.model_fields[str(part)].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def follow(node: Located, loc: Loc, labels: LabelSet | None = None) -> tuple[Located, Loc]:
    """Return the node at `loc`, or its nearest ancestor in the file, and the rest of `loc`."""
    for depth, part in enumerate(loc):
        key = _key_in_file(node, part, labels)
        if key is not None:
            node = node.children[key]
        elif not isinstance(part, int):  # an index into a single item that was written without a list is skipped
            return node, loc[depth:]
    return node, ()


def _key_in_file(node: Located, key: str | int, labels: LabelSet | None) -> str | int | None:
    """Return the key as the file has it, which may be another name of a class of `labels`, or None."""
    if key in node.children or isinstance(key, int) or labels is None or key not in labels.names:
        return key if key in node.children else None
    return next((alias for alias in node.keys if labels.find(alias) == labels.index(key)), None)


def _key_position(node: Located, loc: Loc, labels: LabelSet | None = None) -> Position:
    """Return the position of the last key of `loc`, or of its nearest ancestor in the file."""
    parent, rest = follow(node, loc[:-1], labels)
    key = _key_in_file(parent, loc[-1], labels) if loc and not rest else None
    return parent.keys[key] if isinstance(key, str) else follow(node, loc, labels)[0].position
