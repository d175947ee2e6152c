"""Load cases: photos with what a model should see in them, written in YAML; docs/cases.md explains every key.

A file holds one case, or several under ``cases``; ``defaults.yaml`` holds the settings that the cases of its directory
share. Every problem of every file is reported at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from segcore.core.errors import CaseError, ImageError, NotInstalledError, nearest_hint
from segcore.core.files import find_file
from segcore.core.labels import VOC, LabelSet
from segcore.inputs.cases.model import SCHEMA_COMMAND as SCHEMA_COMMAND
from segcore.inputs.cases.model import Case as Case
from segcore.inputs.cases.model import CaseEntry, CaseSettings, LimitRule
from segcore.inputs.cases.model import Expectations as Expectations
from segcore.inputs.cases.model import ImageSource as ImageSource
from segcore.inputs.cases.model import json_schema as json_schema
from segcore.inputs.cases.problems import follow, problems_of, validate
from segcore.inputs.cases.yaml_source import SUFFIXES, Located, all_problems, read_yaml, yaml_files
from segcore.inputs.cases.yaml_source import Problem as Problem

if TYPE_CHECKING:
    from segcore.inputs.download import FetchSettings

DEFAULTS_FILE = "defaults.yaml"
LabelsOf = Callable[[tuple[str, ...]], Sequence[LabelSet]]
"""From the models that a case lists to their label sets."""


def only_voc(models: tuple[str, ...]) -> tuple[LabelSet, ...]:
    """Return the label set of VOC, for cases whose models are not known."""
    return (VOC,)


def load_cases(path: Path, labels_of: LabelsOf = only_voc) -> tuple[Case, ...]:
    """Return the cases of a file, or of all files in a directory and below it, ordered by file and line.

    Raises:
        CaseError: a file is invalid; the message lists every problem of every file.
    """
    cases, problems = check_cases(path, labels_of)
    if problems:
        raise CaseError(all_problems(f"the cases of {path}", problems))
    return cases


def check_cases(path: Path, labels_of: LabelsOf = only_voc) -> tuple[tuple[Case, ...], tuple[Problem, ...]]:
    """Return the cases of the valid files, and every problem of the others, both ordered by file and line.

    Args:
        path: file or directory.
        labels_of: returns the label sets of the models that a case may run on, in the order in which it lists them;
            nothing if they are not known. A class that none of them has is a problem; one that some of them have is
            not (`reason_against`).
    """
    files = [file for file in yaml_files(path) if file.name != DEFAULTS_FILE] if path.is_dir() else [path]
    if not files:
        return (), (Problem(path, 1, 1, "holds no case: wanted at least one file named *.yaml"),)
    cases: list[Case] = []
    problems: list[Problem] = []
    lines: dict[str, str] = {}
    defaults = {directory: _read_defaults(directory, problems) for directory in {file.parent for file in files}}
    for file in files:
        for node in _case_nodes(file, problems):
            problems += _name_taken(node, file, lines)
            settings = defaults[file.parent][0]
            labels = tuple(dict.fromkeys(labels_of(_listed_models(node, settings, file))))
            entry = validate(CaseEntry, node, file, problems, labels)
            if entry is not None:
                problems += dict.fromkeys(_contradictions(node, file, labels)) if len(labels) > 1 else ()
                case = _with_defaults(entry, settings, file, node.position[0])
                case = case.model_copy(update={"mask_labels": labels[0] if labels else None})
                problems += _missing_files(case, node, file)
                problems += _idle_rules(entry.limits, entry.tags, node, file)
                cases.append(case)
    if path.is_dir() and not problems:  # otherwise not all tags are known
        for directory, (settings, node) in defaults.items():
            tags = {tag for case in cases if case.source_file.parent == directory.absolute() for tag in case.tags}
            problems += _idle_rules(settings.limits, tags, node, directory / DEFAULTS_FILE)
    invalid = {problem.file.absolute() for problem in problems}
    problems.sort(key=lambda problem: problem.place)
    return tuple(case for case in cases if case.source_file not in invalid), tuple(problems)


def _read_defaults(directory: Path, problems: list[Problem]) -> tuple[CaseSettings, Located]:
    """Return the settings in ``defaults.yaml`` and their node in the file; those of an empty file if it is missing."""
    file = directory / DEFAULTS_FILE
    node = None
    if file.is_symlink() or file.exists():
        node = read_yaml(file, "models, sizes or limits, or no such file", problems)
    settings = validate(CaseSettings, node, file, problems) if node else None
    return settings or CaseSettings(), node or Located(None, (1, 1))


def _case_nodes(file: Path, problems: list[Problem]) -> Iterable[Located]:
    """Return the nodes that hold a case: the whole document, or the items of ``cases``."""
    node = read_yaml(file, "a case, or a list of them under `cases`", problems)
    if node is None:
        return ()
    if "cases" not in node.keys:
        return (node,)
    for key in node.keys.keys() - {"cases"}:
        what = f"unknown key {key!r} beside `cases`{nearest_hint(key, ['cases'])}"
        problems.append(Problem(file, *node.keys[key], what, f"settings that cases share belong in {DEFAULTS_FILE}"))
    items = node.children["cases"]
    if not isinstance(items.value, list) or not items.value:
        problems.append(Problem(file, *node.keys["cases"], "cases: should be a list of at least one case"))
        return ()
    return items.children.values()


def _listed_models(node: Located, defaults: CaseSettings, file: Path) -> tuple[str, ...]:
    """Return the models of a case, which may be invalid."""
    models = node.value.get("models") if isinstance(node.value, dict) else None
    return tuple(_model(str(name), file) for name in (models if isinstance(models, list) else defaults.models))


def _contradictions(node: Located, file: Path, labels: tuple[LabelSet, ...]) -> Iterator[Problem]:
    """Yield what is contradictory in a case with the classes of one of these label sets."""
    for each in labels:
        try:
            CaseEntry.model_validate(node.value, context={"labels": (each,)})
        except ValidationError as error:
            if all(found["type"] != "class_name" for found in error.errors()):  # else the case is skipped for it
                yield from problems_of(error, node, file, CaseEntry, each)


def reason_against(case: Case, labels: LabelSet) -> str | None:
    """Return why a model with these labels cannot be held against the expectations of a case; None if it can."""
    named = case.expect.named.items()
    missing = [f"{name!r} (expect.{key})" for name, key in named if labels.find(name) is None]
    return f"the labels {labels.name} have no class {', '.join(missing)}" if missing else None


def _name_taken(node: Located, file: Path, lines: dict[str, str]) -> Iterator[Problem]:
    """Yield a problem if another case has the name of this one, and note the line of the name."""
    name = node.children.get("name")
    if name is not None and isinstance(name.value, str):
        if name.value in lines:
            what = f"name: {name.value!r} is also the name of a case in {lines[name.value]}"
            yield Problem(file, *name.position, what)
        lines.setdefault(name.value, f"{file}:{name.position[0]}")


def _with_defaults(entry: CaseEntry, defaults: CaseSettings, file: Path, line: int) -> Case:
    shared = {name: getattr(defaults, name) for name in {"models", "sizes"} - entry.model_fields_set}
    own = {"limits": (*defaults.limits, *entry.limits), "source_file": file.absolute(), "line": line}
    case = {**dict(entry), **shared, **own}
    return Case.model_validate(case | {"models": tuple(_model(name, file) for name in case["models"])})


def _model(name: str, file: Path) -> str:
    """Return a model's name, or its path if it is one, relative to the file that names it."""
    is_path = "/" in name or name.endswith(SUFFIXES)
    return os.path.normpath(file.absolute().parent / name) if is_path else name


def _idle_rules(rules: Iterable[LimitRule], tags: Collection[str], node: Located, file: Path) -> Iterator[Problem]:
    """Yield a problem for each rule whose tag no case has."""
    for index, rule in enumerate(rules):
        if rule.when.tag and not set(rule.when.tag) & set(tags):
            position = follow(node, ("limits", index, "when", "tag"))[0].position
            what = f"limits[{index + 1}] never holds: there is no case with the tag {' or '.join(rule.when.tag)}"
            yield Problem(file, *position, what)


def _missing_files(case: Case, node: Located, file: Path) -> Iterator[Problem]:
    """Yield a problem for each local file or package resource that does not exist."""
    for source, loc in ((case.image, ("image",)), (case.expect.ground_truth, ("expect", "ground_truth"))):
        if source is None or source.url is not None:
            continue
        try:
            _resolve(source, case, None)
        except NotInstalledError:
            continue  # a reason to skip the case, not a problem of its file
        except (CaseError, ImageError) as error:
            key = (*loc, "path" if source.path is not None else "resource")
            yield Problem(file, *follow(node, key)[0].position, f"{'.'.join(key)}: {error}")


def resolve_image(case: Case, settings: FetchSettings | None = None) -> Path:
    """Return the local path of a case's photo, downloading it if necessary.

    DownloadError, CaseError, ImageError or NotInstalledError say why it cannot be had.
    """
    return _resolve(case.image, case, settings)


def resolve_mask(case: Case, settings: FetchSettings | None = None) -> Path | None:
    """Return the local path of a case's ground-truth mask, None if it has none; raise like `resolve_image`."""
    source = case.expect.ground_truth
    return None if source is None else _resolve(source, case, settings)


def _resolve(source: ImageSource, case: Case, settings: FetchSettings | None) -> Path:
    if source.url is not None:
        from segcore.inputs.download import FetchSettings, download_file

        settings = settings or FetchSettings.from_env()
        max_bytes = min(source.bytes or settings.max_bytes, settings.max_bytes)
        return download_file(source.url, sha256=source.sha256, settings=replace(settings, max_bytes=max_bytes))
    if source.resource is not None:
        from segcore.inputs.images import resource_path

        return resource_path(source.resource)
    directory = case.source_file.parent
    path = find_file(directory / (source.path or ""))
    if not path.is_file():
        raise CaseError(f"{path}: there is no such file")
    if not path.resolve().is_relative_to(directory.resolve()):  # through a symbolic link
        raise CaseError(f"{path}: leads out of the case file's directory, to {path.resolve()}")
    return path
