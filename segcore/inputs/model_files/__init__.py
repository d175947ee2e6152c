"""Read model files: what a model is and what its input and output mean, in YAML; docs/models.md explains every key.

Every problem of every file is reported at once. No network is loaded here: see `segcore.inference.models`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from segcore.core.errors import ModelError, nearest_hint
from segcore.core.model_spec import ModelSpec, Source, SourceKind
from segcore.inputs.cases.problems import validate
from segcore.inputs.cases.yaml_source import SUFFIXES, Problem, all_problems, read_yaml, yaml_files
from segcore.inputs.model_files.model import SCHEMA_COMMAND as SCHEMA_COMMAND
from segcore.inputs.model_files.model import ModelEntry
from segcore.inputs.model_files.model import json_schema as json_schema
from segcore.inputs.model_files.spec import spec_of

DIRECTORY = "models"
"""Where model files are looked for if nothing else is named."""
SOURCES: dict[str, SourceKind] = {
    ".onnx": "onnx",
    ".xml": "openvino",
    ".tflite": "litert",
    ".pt2": "exported",
    ".ts": "torchscript",
    ".torchscript": "torchscript",
}
"""Kind of source by the suffix of its file."""


def check_model_file(path: Path) -> tuple[ModelSpec | None, tuple[Problem, ...]]:
    """Return what a model file says, None if it is invalid, and every problem of it."""
    problems: list[Problem] = []
    spec = None
    node = read_yaml(path, "a model, at least `source:`", problems)
    if node is not None and (entry := validate(ModelEntry, node, path, problems)):
        spec = spec_of(entry, node, path, problems)
    return (None if problems else spec), tuple(sorted(problems, key=lambda problem: problem.place))


def read_model_file(path: Path) -> ModelSpec:
    """Return what a model file says; the ModelError of an invalid one lists every problem."""
    spec, problems = check_model_file(path)
    if spec is None:
        raise ModelError(all_problems(f"the model file {path}", problems))
    return spec


@dataclass(frozen=True)
class ModelFiles:
    """The model files of a directory."""

    directory: Path
    specs: tuple[ModelSpec, ...] = ()
    """Of the valid ones, by name."""
    problems: tuple[Problem, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(spec.name for spec in self.specs)

    def find(self, name: str, built_in: Iterable[str] = ()) -> ModelSpec:
        """Return the model with a name, or that of a path: a model file, or a model that describes itself.

        ModelError names the nearest, those that are `built_in` included, and the problems of invalid files.
        """
        for spec in self.specs:
            if spec.name == name:
                return spec
        if is_path(name):
            return spec_of_path(Path(name))
        if self.problems:
            where = f"{self.directory}, where no valid file describes the model {name!r}"
            raise ModelError(all_problems(where, self.problems))
        known = [*built_in, *self.names]
        raise ModelError(f"unknown model {name!r}{nearest_hint(name, known)}; known: {', '.join(known)}")


def open_model_files(directory: Path) -> ModelFiles:
    """Return the model files of a directory and below it; none if there is no such directory."""
    specs: dict[str, ModelSpec] = {}
    problems: list[Problem] = []
    for file in yaml_files(directory):
        spec, wrong = check_model_file(file)
        problems += wrong
        if spec is not None and spec.name in specs:
            problems.append(Problem(file, 1, 1, f"name: {spec.name!r} is also the name in {specs[spec.name].file}"))
        elif spec is not None:
            specs[spec.name] = spec
    return ModelFiles(directory, tuple(specs[name] for name in sorted(specs)), tuple(problems))


def is_path(name: str) -> bool:
    """Return whether a model that a user named is a path: with a separator, a known suffix, or a config.json in it."""
    known = "/" in name or "\\" in name or Path(name).suffix.lower() in (*SUFFIXES, *SOURCES)
    return known or Path(name, "config.json").is_file()


def spec_of_path(path: Path) -> ModelSpec:
    """Return what a model file says, or the defaults for a model that describes itself; ModelError if it is neither."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return read_model_file(path)
    kind = "transformers" if (path / "config.json").is_file() else SOURCES.get(suffix)
    if not path.exists() or kind is None:
        what = "there is no such file" if not path.exists() else "is no model that describes itself"
        wanted = f"a model file (.yaml), a file {', '.join(SOURCES)}, or a directory with a config.json"
        raise ModelError(f"{path}: {what}; wanted a name of `segcore models`, {wanted}")
    location = str(path.absolute())
    return ModelSpec(path.stem or path.absolute().name, Source(kind, location), root=Path.cwd())
