"""From what pydantic says of a case to what its author needs: file, line, column, what is wrong, what to write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from segcore.core.errors import nearest_hint
from segcore.core.labels import VOC_CLASSES
from segcore.inputs.cases.model import PATTERNS, is_class, voc_name
from segcore.inputs.cases.yaml_source import Located, Place, Problem

_BOOLEANS = ("yes", "no", "on", "off", "true", "false")
_WORDS = {
    "model_type": "should be a mapping",
    "model_attributes_type": "should be a mapping",
    "dict_type": "should be a mapping",
    "tuple_type": "should be a list",
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "class_type": "should be the name or index of a VOC class",
    "string_too_short": "should not be empty",
    "too_short": "should not be empty",
}
Loc = tuple[str | int, ...]


def problems_of(error: ValidationError, node: Located, file: Path, model: type[BaseModel]) -> Iterator[Problem]:
    """Yield a problem for everything that a validation of `node` as `model` found wrong.

    Args:
        error: what pydantic raised.
        node: what was validated.
        file: that the node is from.
        model: that it was validated as; the origin of valid keys.
    """
    for found in error.errors(include_url=False):
        loc = found["loc"]
        if found["type"] == "conflict":
            for below, words in found["ctx"]["conflicts"]:
                yield Problem(file, *_key_place(node, (*loc, *below)), f"{_label(loc)}{words}")
        elif found["type"] == "extra_forbidden":
            valid = sorted(_model_at(model, loc[:-1]).model_fields)
            what = f"{_label(loc[:-1])}unknown key {str(loc[-1])!r}{nearest_hint(str(loc[-1]), valid)}"
            yield Problem(file, *_key_place(node, loc), what, f"valid keys are {', '.join(valid)}")
        elif found["type"] == "missing":
            place = _follow(node, loc[:-1])[0].place
            yield Problem(file, *place, f"{_label(loc[:-1])}{loc[-1]} is missing", f"add `{loc[-1]}:`")
        elif found["type"] != "too_short" or not _follow(node, loc)[0].children:  # else each item has its own problem
            yield _of_value(found, node, file)


def _of_value(found: Any, node: Located, file: Path) -> Problem:
    loc, kind = found["loc"], found["type"]
    words = _WORDS.get(kind, found["msg"].replace("Input should", "should"))
    if kind == "string_pattern_mismatch":
        words = f"should be {PATTERNS[found['ctx']['pattern']]}"
    if loc[-1:] == ("[key]",):
        return Problem(file, *_key_place(node, loc[:-1]), f"{_label(loc[:-2])}{words}")
    value = _follow(node, loc)[0]
    if kind not in ("class_name", "twice"):  # which say what they found
        words += f", found {_shown(value, found['input'])}"
    hint = ""
    if kind in ("string_type", "class_type") and value.raw:
        boolean = f"YAML takes {value.raw} for a boolean: " if value.raw.lower() in _BOOLEANS else ""
        hint = f"{boolean}put it in quotes if it is meant as text: '{value.raw}'"
    return Problem(file, *value.place, f"{_label(loc)}{words}", hint)


def _shown(value: Located, found: object) -> str:
    if value.raw is not None:
        return f"the text {found!r}" if isinstance(found, str) else value.raw or "nothing"
    return "a mapping" if isinstance(value.value, dict) else "a list"


def _label(loc: Loc) -> str:
    """Return ``expect.classes.cat: ``, or nothing for the case itself."""
    parts = (f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in loc)
    return "".join(parts).lstrip(".") + ": " if loc else ""


def _model_at(model: type[BaseModel], loc: Loc) -> type[BaseModel]:
    """Return the model that `loc` leads to."""
    for part in loc:
        if part in model.model_fields:
            model = next(_models_in(model.model_fields[str(part)].annotation), model)
    return model


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _follow(node: Located, loc: Loc) -> tuple[Located, Loc]:
    """Return what is at `loc`, or the nearest above it, and the rest of the way; classes go by any of their names."""
    node, rest = node.down(loc)
    key = _spelling(node, rest[0]) if rest else None
    return (node, rest) if key is None else _follow(node.children[key], rest[1:])


def _spelling(node: Located, key: str | int) -> str | None:
    """Return how a key is written in a mapping; where it is the VOC name of a class, that may be another name."""
    if key in node.keys:
        return str(key)
    return next((k for k in node.keys if is_class(k) and voc_name(k) == key), None) if key in VOC_CLASSES else None


def _key_place(node: Located, loc: Loc) -> Place:
    """Return where the key at the end of `loc` stands, or the nearest there is above it."""
    parent, rest = _follow(node, loc[:-1])
    key = _spelling(parent, loc[-1]) if loc and not rest else None
    return _follow(node, loc)[0].place if key is None else parent.keys[key]
