"""From a valid entry of a model file to a `ModelSpec`: short forms are expanded, paths resolved, labels read."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from segcore.core.errors import UsageError
from segcore.core.files import read_file
from segcore.core.labels import LABEL_SETS, LabelSet, label_set
from segcore.core.model_spec import InputSpec, ModelSpec, OutputSpec, Resize, Source, SourceKind
from segcore.inputs.cases.model import IDENTIFIER, PATTERNS
from segcore.inputs.cases.problems import validate
from segcore.inputs.cases.yaml_source import SUFFIXES, Located, Problem, read_yaml
from segcore.inputs.model_files.model import InputEntry, LabelsEntry, ModelEntry, ResizeEntry, labels_form

FILES = ("onnx", "openvino", "litert", "exported", "torchscript", "transformers")
"""Sources that are the path of a file or directory."""
MAX_LABELS_BYTES = 1 << 20
PROJECT = (".git", "pyproject.toml", "setup.py")
"""What the top directory of a project has."""


def spec_of(entry: ModelEntry, node: Located, file: Path, problems: list[Problem]) -> ModelSpec:
    """Return what an entry says; add problems of its labels, and of a file name that cannot name a model."""
    labels = None if entry.labels is None else read_labels(entry.labels, file, problems)
    name = entry.name or file.stem
    if not re.fullmatch(IDENTIFIER, name):
        what = f"the name of the file is {name!r}, wanted {PATTERNS[IDENTIFIER]}"
        problems.append(Problem(file, 1, 1, what, "add `name:`"))
    said = {f"{part}.{key}" for part in ("input", "output") for key in getattr(entry, part).model_fields_set}
    directory = file.absolute().parent
    above = (directory, *directory.parents)
    return ModelSpec(
        name=name,
        source=_source(entry, directory),
        labels=labels,
        input=_input(entry.input),
        output=OutputSpec(**dict(entry.output)),
        said=frozenset(said),
        reference=entry.reference,
        root=next((parent for parent in above if any((parent / name).exists() for name in PROJECT)), directory),
        file=file.absolute(),
    )


def _source(entry: ModelEntry, directory: Path) -> Source:
    kind = cast(SourceKind, entry.source.kind)
    value = getattr(entry.source, kind)
    location, *arguments = value if isinstance(value, tuple) else (value,)
    weights = entry.weights
    return Source(
        kind=kind,
        location=str(directory / location) if kind in FILES else location,
        arguments=tuple(arguments),
        keywords=tuple(entry.source.arguments.items()),
        weights=None if weights is None else weights.url or str(directory / str(weights.path)),
        sha256=weights.sha256.lower() if weights and weights.sha256 else None,
        serve=entry.source.serve,
        timeout_s=entry.source.timeout,
        photos=entry.source.photos,
    )


def _input(entry: InputEntry) -> InputSpec:
    """Return what an entry says of the input, with a mean and a deviation for every channel."""
    values: dict[str, Any] = dict(entry) | {"resize": _resize(entry.resize)}
    if entry.dtype == "uint8":
        values |= {"scale": 1.0, "mean": (0.0,), "std": (1.0,)}
    channels = 1 if entry.colour == "grey" else 3
    for key in ("mean", "std"):
        values[key] = values[key] * channels if len(values[key]) == 1 else values[key]
    return InputSpec(**values)


def _resize(entry: ResizeEntry) -> Resize:
    word = next(iter(entry.model_fields_set), "none")
    kind, size = next(((kind, size) for kind, size in entry if size is not None), (word, ()))
    return Resize(kind, size if isinstance(size, tuple) else (size,))  # type: ignore[arg-type]  # a name of the fields


def read_labels(entry: LabelsEntry, file: Path, problems: list[Problem]) -> LabelSet | None:
    """Return the labels that an entry in a file means; None if they are invalid, which is added to the problems."""
    name = file.stem
    if entry.file is not None:
        path = file.parent / entry.file
        found = _read_label_file(path, problems)
        if found is None:
            return None
        entry, name = found, path.stem
    return LABEL_SETS[entry.set] if entry.set is not None else entry.label_set(name)


def read_labels_of(name: str) -> LabelSet:
    """Return the labels that a user named, a known set or a file; UsageError lists every problem."""
    form = labels_form(name)
    assert isinstance(form, dict)
    if "set" in form:
        return label_set(name)
    problems: list[Problem] = []
    found = read_labels(LabelsEntry(file=name), Path.cwd() / "labels", problems)
    if found is None or problems:
        raise UsageError("\n  ".join([f"{name}: not a file of labels", *map(str, problems)]))
    return found


def _read_label_file(path: Path, problems: list[Problem]) -> LabelsEntry | None:
    """Return the entry in a file of labels: YAML, or a name a line."""
    if path.suffix.lower() in (*SUFFIXES, ".json"):
        node = read_yaml(path, "a list of names", problems)
    else:
        try:
            lines = read_file(path, MAX_LABELS_BYTES).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(path, 1, 1, f"cannot be read: {getattr(error, 'strerror', None) or error}"))
            return None
        node = Located([line.strip() for line in lines if line.strip()], (1, 1))
    if node is None:
        return None
    entry = validate(LabelsEntry, replace(node, value=labels_form(node.value)), path, problems)
    if entry is not None and entry.file is not None:
        problems.append(Problem(path, 1, 1, f"names another file of labels, {entry.file}: wanted the labels"))
        return None
    return entry
