"""Write a model file: what was found about a model, with what was assumed as comments to be checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from segcore.core.labels import LABEL_SETS, LabelSet
from segcore.core.model_spec import InputSpec, ModelSpec, OutputSpec, Resize
from segcore.inputs.cases.model import IDENTIFIER

_PLAIN = re.compile(r"[A-Za-z][\w /.-]*\w|[A-Za-z]")
_WORDS = ("null", "true", "false", "yes", "no", "on", "off", "nan", "inf")
"""What YAML takes for something else than text."""
_WIDTH = 110


def model_file_text(spec: ModelSpec, assumptions: Mapping[str, str], directory: Path) -> str:
    """Return the text of a model file that says the same as a spec.

    Args:
        spec: of a model that is a file.
        assumptions: sentences by what they are about, such as ``input.colour``; they become comments.
        directory: that paths are relative to.
    """
    source = Path(os.path.relpath(spec.source.location, directory)).as_posix()
    name = spec.name if re.fullmatch(IDENTIFIER, spec.name) else re.sub(r"[^A-Za-z0-9_.]+", "-", spec.name).strip("-.")
    lines = [f"name: {_text(name)}", "source:", f"  {spec.source.kind}: {_text(source)}"]
    if spec.labels is not None:
        lines += [*_comment(assumptions, "labels", ""), *_labels(spec.labels)]
    for part, values in (("input", _input(spec.input)), ("output", _output(spec.output))):
        lines.append(f"{part}:")
        for key, value in values:
            lines += [*_comment(assumptions, f"{part}.{key}", "  "), f"  {key}: {value}"]
    return "\n".join(lines) + "\n"


def _comment(assumptions: Mapping[str, str], about: str, indent: str) -> Iterator[str]:
    if about in assumptions:
        yield f"{indent}# assumed: {' '.join(assumptions[about].split())}"


def _text(value: str) -> str:
    plain = _PLAIN.fullmatch(value) and value.lower() not in _WORDS
    return value if plain else json.dumps(value, ensure_ascii=False)


def _labels(labels: LabelSet) -> Iterator[str]:
    known = next((name for name, each in LABEL_SETS.items() if each.digest == labels.digest), None)
    if known:
        yield f"labels: {known}"
        return
    yield "labels:"
    yield "  names:"
    line = ""
    for index, name in enumerate(labels.names):
        entry = _text(name) + ("," if index < len(labels) - 1 else "]")
        if line and len(line) + len(entry) > _WIDTH:
            yield line
            line = ""
        line += f" {entry}" if line else f"    {'[' if index == 0 else ' '}{entry}"
    yield line
    yield f"  background: {'null' if labels.background_name is None else _text(labels.background_name)}"


def _input(spec: InputSpec) -> Iterator[tuple[str, str]]:
    yield "resize", _resize(spec.resize)
    yield "multiple_of", str(spec.multiple_of)
    if spec.fill != (0, 0, 0):
        yield "fill", str(list(spec.fill))
    yield "colour", spec.colour
    if spec.dtype != "uint8":
        yield "scale", "1/255" if spec.scale == 1 / 255 else _number(spec.scale)
        yield "mean", _numbers(spec.mean)
        yield "std", _numbers(spec.std)
    yield "layout", spec.layout
    yield "dtype", spec.dtype


def _resize(resize: Resize) -> str:
    if not resize.size:
        return resize.kind
    return f"{{{resize.kind}: {resize.size[0] if len(resize.size) == 1 else list(resize.size)}}}"


def _numbers(values: tuple[float, ...]) -> str:
    return _number(values[0]) if len(set(values)) == 1 else f"[{', '.join(map(_number, values))}]"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _output(spec: OutputSpec) -> Iterator[tuple[str, str]]:
    if spec.name is not None:
        yield "name", _text(spec.name)
    yield "kind", spec.kind
    if spec.kind == "sigmoid":
        yield "threshold", _number(spec.threshold)
    yield "layout", spec.layout
    if spec.align_corners:
        yield "align_corners", "true"
