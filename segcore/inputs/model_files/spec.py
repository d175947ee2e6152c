"""From a valid entry of a model file to a `ModelSpec`: forms are unfolded, paths and labels are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from segcore.core.errors import UsageError
from segcore.core.labels import LABEL_SETS, LabelSet, label_set
from segcore.core.model_spec import InputSpec, ModelSpec, OutputSpec, Resize, Source, SourceKind
from segcore.inputs.cases.model import IDENTIFIER, PATTERNS
from segcore.inputs.cases.problems import problems_of
from segcore.inputs.cases.yaml_source import Located, Problem, read_yaml
from segcore.inputs.model_files.model import KINDS, InputEntry, LabelsEntry, ModelEntry, ResizeEntry, labels_form

FILES = ("onnx", "openvino", "litert", "exported", "torchscript", "transformers")
"""Sources that are the path of a file or directory."""
PROJECT = (".git", "pyproject.toml", "setup.py")
"""What the top directory of a project has."""


def spec_of(entry: ModelEntry, node: Located, file: Path) -> tuple[ModelSpec | None, list[Problem]]:
    """Return what an entry says, and the problems that show only now: the labels, and a name that the file has not."""
    problems: list[Problem] = []
    labels = None
    if entry.labels is not None:
        position = node.children["labels"].position
        labels = read_labels(entry.labels, file, position, problems)
    name = entry.name or file.stem
    if not re.fullmatch(IDENTIFIER, name):
        problems.append(
            Problem(file, 1, 1, f"the name of the file is {name!r}, wanted {PATTERNS[IDENTIFIER]}", "add `name:`")
        )
    said = {f"{part}.{key}" for part in ("input", "output") for key in getattr(entry, part).model_fields_set}
    spec = ModelSpec(
        name=name,
        source=_source(entry, file.absolute().parent),
        labels=labels,
        input=input_spec(entry.input),
        output=OutputSpec(**dict(entry.output)),
        said=frozenset(said),
        reference=entry.reference,
        root=_root(file.absolute().parent),
        file=file.absolute(),
    )
    return (None if problems else spec), problems


def _root(directory: Path) -> Path:
    """Return the project that a directory belongs to, the nearest above with one of `PROJECT`; else the directory."""
    above = (directory, *directory.parents)
    return next((parent for parent in above if any((parent / name).exists() for name in PROJECT)), directory)


def _source(entry: ModelEntry, directory: Path) -> Source:
    kind = cast(SourceKind, next(name for name in KINDS if name in entry.source.model_fields_set))
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


def input_spec(entry: InputEntry) -> InputSpec:
    """Return what an entry says of the input, with a mean and a deviation for every channel."""
    values: dict[str, Any] = dict(entry) | {"resize": _resize(entry.resize)}
    if entry.dtype == "uint8":
        values |= {"scale": 1.0, "mean": (0.0,), "std": (1.0,)}
    channels = 1 if entry.colour == "grey" else 3
    for key in ("mean", "std"):
        values[key] = values[key] * channels if len(values[key]) == 1 else values[key]
    return InputSpec(**values)


def _resize(entry: ResizeEntry) -> Resize:
    kind = next(iter(entry.model_fields_set), "none")
    size = getattr(entry, kind, None)
    return Resize(kind, size if isinstance(size, tuple) else () if size is None else (size,))  # type: ignore[arg-type]  # a name of the fields


def read_labels(entry: LabelsEntry, file: Path, position: tuple[int, int], problems: list[Problem]) -> LabelSet | None:
    """Return the labels that an entry in a file means; None if they are invalid, which is added to the problems."""
    if entry.set is not None:
        return LABEL_SETS[entry.set]
    name = file.stem
    if entry.file is not None:
        path = file.parent / entry.file
        found = _read_label_file(path, problems)
        if found is None:
            return None
        if found.set is not None:
            return LABEL_SETS[found.set]
        entry, name = found, path.stem
    return entry.label_set(name)


def read_labels_of(name: str) -> LabelSet:
    """Return the labels that a user named: a known set, or a file of labels.

    Raises:
        UsageError: there is no such set, or the file is invalid; the message lists every problem.
    """
    form = labels_form(name)
    assert isinstance(form, dict)
    if "set" in form:
        return label_set(name)
    problems: list[Problem] = []
    found = read_labels(LabelsEntry(file=name), Path.cwd() / "labels", (1, 1), problems)
    if found is None or problems:
        raise UsageError("\n  ".join([f"{name}: not a file of labels", *map(str, problems)]))
    return found


def _read_label_file(path: Path, problems: list[Problem]) -> LabelsEntry | None:
    """Return the entry in a file of labels: YAML, or a name a line."""
    if path.suffix.lower() not in (".yaml", ".yml", ".json"):
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(path, 1, 1, f"cannot be read: {getattr(error, 'strerror', None) or error}"))
            return None
        node = Located([line.strip() for line in lines if line.strip()], (1, 1))
    else:
        read, wrong = read_yaml(path)
        problems += wrong
        if read is None:
            return None
        node = read
    try:
        entry = LabelsEntry.model_validate(labels_form(node.value))
    except ValidationError as error:
        problems += problems_of(error, node, path, LabelsEntry)
        return None
    if entry.file is not None:
        problems.append(Problem(path, 1, 1, f"names another file of labels, {entry.file}: wanted the labels"))
        return None
    return entry
