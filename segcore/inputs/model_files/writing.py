"""Write a model file: what was found about a model, with what was assumed as comments to be checked."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from segcore.core.labels import LABEL_SETS, LabelSet
from segcore.core.model_spec import InputSpec, ModelSpec, OutputSpec
from segcore.inputs.cases.model import IDENTIFIER

_PLAIN = re.compile(r"(?!(null|true|false|yes|no|on|off|nan|inf)$)[a-z]([\w /.-]*\w)?|1/255", re.IGNORECASE)
"""Text that needs no quotes."""


def model_file_text(spec: ModelSpec, assumptions: Mapping[str, str], directory: Path) -> str:
    """Return the text of a model file that says the same as the spec of a file.

    `assumptions`, sentences by what they are about (``input.colour``), become comments. Paths are relative to
    `directory`.
    """
    source = Path(os.path.relpath(spec.source.location, directory)).as_posix()
    name = spec.name if re.fullmatch(IDENTIFIER, spec.name) else re.sub(r"[^A-Za-z0-9_.]+", "-", spec.name).strip("-.")
    lines = [f"name: {_value(name)}", "source:", f"  {spec.source.kind}: {_value(source)}"]
    if spec.labels is not None:
        lines += [*_comment(assumptions, "labels", ""), *_labels(spec.labels)]
    for part, values in (("input", _input(spec.input)), ("output", _output(spec.output))):
        lines.append(f"{part}:")
        for key, value in values.items():
            lines += [*_comment(assumptions, f"{part}.{key}", "  "), f"  {key}: {_value(value)}"]
    return "\n".join(lines) + "\n"


def _comment(assumptions: Mapping[str, str], about: str, indent: str) -> Iterator[str]:
    if about in assumptions:
        yield f"{indent}# assumed: {' '.join(assumptions[about].split())}"


def _value(value: object) -> str:
    """Return a value in one line of YAML, which includes JSON."""
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_value(each)}' for key, each in value.items())}}}"
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else json.dumps(value, ensure_ascii=False)


def _labels(labels: LabelSet) -> Iterator[str]:
    known = next((name for name, each in LABEL_SETS.items() if each.digest == labels.digest), None)
    if known:
        yield f"labels: {known}"
        return
    yield from ("labels:", "  names:")
    yield from (f"    - {_value(name)}" for name in labels.names)
    yield f"  background: {_value(labels.background_name)}"


def _input(spec: InputSpec) -> dict[str, Any]:
    size = spec.resize.size[0] if len(spec.resize.size) == 1 else spec.resize.size
    found: dict[str, Any] = {"resize": {spec.resize.kind: size} if size else spec.resize.kind}
    found |= {"multiple_of": spec.multiple_of, "colour": spec.colour}
    if spec.fill != (0, 0, 0):
        found["fill"] = spec.fill
    if spec.dtype != "uint8":
        found["scale"] = "1/255" if spec.scale == 1 / 255 else spec.scale
        for key, values in (("mean", spec.mean), ("std", spec.std)):
            found[key] = values[0] if len(set(values)) == 1 else values
    return found | {"layout": spec.layout, "dtype": spec.dtype}


def _output(spec: OutputSpec) -> dict[str, Any]:
    found: dict[str, Any] = {} if spec.name is None else {"name": spec.name}
    found["kind"] = spec.kind
    if spec.kind == "sigmoid":
        found["threshold"] = spec.threshold
    found["layout"] = spec.layout
    return found | ({"align_corners": True} if spec.align_corners else {})
