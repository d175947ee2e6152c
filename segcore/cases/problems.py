"""From what pydantic says of a case to what its author needs: file, line, column, what is wrong, what to write."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from segcore.cases.model import PATTERNS, voc_name
from segcore.cases.yaml_source import Located, Place, Problem
from segcore.errors import nearest_hint

_BOOLEANS = ("yes", "no", "on", "off")
_WORDS = {
    "model_type": "should be a mapping",
    "model_attributes_type": "should be a mapping",
    "dict_type": "should be a mapping",
    "tuple_type": "should be a list",
    "string_type": "should be text",
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
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
                yield Problem(file, *_place(node, (*loc, *below)), f"{_label(loc)}{words}")
        elif found["type"] == "extra_forbidden":
            valid = sorted(_model_at(model, loc[:-1]).model_fields)
            what = f"{_label(loc[:-1])}unknown key {str(loc[-1])!r}{nearest_hint(str(loc[-1]), valid)}"
            yield Problem(file, *_place(node, loc), what, f"valid keys are {', '.join(valid)}")
        elif found["type"] == "missing":
            yield Problem(file, *_place(node, loc[:-1]), f"{_label(loc[:-1])}{loc[-1]} is missing", f"add `{loc[-1]}:`")
        else:
            yield _of_value(found, node, file)


def _of_value(found: Any, node: Located, file: Path) -> Problem:
    loc, ctx = found["loc"], found.get("ctx", {})
    words = _WORDS.get(found["type"], found["msg"].replace("Input should", "should"))
    if found["type"] == "string_pattern_mismatch":
        words = f"should be {PATTERNS[ctx['pattern']]}"
    if loc[-1:] == ("[key]",):
        return Problem(file, *_place(node, loc[:-1]), f"{_label(loc[:-2])}{words}")
    value, _ = _follow(node, loc)
    raw = f"the text {found['input']!r}" if isinstance(found["input"], str) else value.raw
    shown = "a mapping" if value.keys else "a list" if value.children else raw or "nothing"
    hint = ""
    if isinstance(found["input"], bool) and value.raw and value.raw.lower() in _BOOLEANS:
        hint = f"YAML takes {value.raw} for a boolean: put it in quotes if it is meant as text"
    elif found["type"] == "string_type" and value.raw:
        hint = f"put it in quotes: '{value.raw}'"
    if found["type"] in ("class_name", "twice"):
        return Problem(file, *_place(node, loc), f"{_label(loc)}{words}", hint)
    return Problem(file, *_place(node, loc), f"{_label(loc)}{words}, found {shown}", hint)


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
    for key in node.keys if rest else ():
        if _same_class(key, rest[0]):
            return _follow(node.children[key], rest[1:])
    return node, rest


def _same_class(key: str, name: str | int) -> bool:
    try:
        return voc_name(key) == name
    except ValueError:
        return False


def _place(node: Located, loc: Loc) -> Place:
    """Return where the value at `loc` stands; of an unknown or class key, where the key stands."""
    parent, rest = _follow(node, loc[:-1])
    if loc and not rest and isinstance(loc[-1], str) and loc[-1] in parent.keys:
        return parent.keys[loc[-1]]
    return _follow(node, loc)[0].place
