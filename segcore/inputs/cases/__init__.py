"""Cases: photos with what a right model sees in them, written in YAML. See docs/cases.md for every key.

A file holds one case, or several under ``cases``; ``defaults.yaml`` beside it holds what they have in common. Whatever
is wrong with any of the files is reported at once, and nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from segcore.core.errors import CaseError, ImageError, nearest_hint
from segcore.inputs.cases.model import (
    SCHEMA_COMMAND,
    Case,
    CaseText,
    ClassRange,
    Expectations,
    ImageSource,
    LimitRule,
    Settings,
    When,
    json_schema,
)
from segcore.inputs.cases.problems import problems_of
from segcore.inputs.cases.yaml_source import Located, Problem, read_yaml

if TYPE_CHECKING:
    from segcore.inputs.download import FetchSettings

__all__ = [
    "DEFAULTS_FILE",
    "SCHEMA_COMMAND",
    "Case",
    "ClassRange",
    "Expectations",
    "ImageSource",
    "LimitRule",
    "Problem",
    "When",
    "check_cases",
    "json_schema",
    "load_cases",
    "resolve_image",
    "resolve_mask",
]

DEFAULTS_FILE = "defaults.yaml"
SUFFIXES = (".yaml", ".yml")
M = TypeVar("M", bound=BaseModel)


def load_cases(path: Path) -> tuple[Case, ...]:
    """Return the cases of a file, or of all files in a directory and below it, by file and place in the file.

    Raises:
        CaseError: something is wrong with them; the message lists every problem of every file.
    """
    cases, problems = check_cases(path)
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "1 problem"
        raise CaseError("\n  ".join([f"{count} in the cases of {path}", *map(str, problems)]))
    return cases


def check_cases(path: Path) -> tuple[tuple[Case, ...], tuple[Problem, ...]]:
    """Return the cases that are right, and all that is wrong, each by file and place."""
    files = _case_files(path)
    if not files:
        return (), (Problem(path, 1, 1, "holds no case: wanted at least one file named *.yaml"),)
    cases: list[Case] = []
    problems: list[Problem] = []
    names: dict[str, str] = {}
    defaults = {directory: _read_defaults(directory, problems) for directory in {file.parent for file in files}}
    for file in files:
        for node in _case_nodes(file, problems):
            problems += _name_taken(node, file, names)
            text = _validate(CaseText, node, file, problems)
            if text is not None:
                case = _with_defaults(text, defaults[file.parent].settings, file, node.place[0])
                problems += _bad_sources(case, node, file)
                problems += _idle_rules(text.limits, text.tags, node, file)
                cases.append(case)
    if path.is_dir() and not problems:  # else not all tags are known
        for directory, shared in defaults.items():
            tags = {tag for case in cases if case.source_file.parent == directory.absolute() for tag in case.tags}
            problems += _idle_rules(shared.settings.limits, tags, shared.node, directory / DEFAULTS_FILE)
    bad = {problem.file.absolute() for problem in problems}
    return tuple(c for c in cases if c.source_file not in bad), tuple(sorted(problems, key=_order))


def _order(problem: Problem) -> tuple[str, int, int]:
    return problem.file.as_posix(), problem.line, problem.column


def _case_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and not file.is_dir())
    return sorted((file for file in found if file.name != DEFAULTS_FILE), key=Path.as_posix)


@dataclass(frozen=True)
class _Defaults:
    """What `defaults.yaml` says, and where."""

    settings: Settings
    node: Located


_NO_DEFAULTS = _Defaults(Settings(), Located(None, (1, 1)))


def _read_defaults(directory: Path, problems: list[Problem]) -> _Defaults:
    file = directory / DEFAULTS_FILE
    if not file.is_symlink() and not file.exists():
        return _NO_DEFAULTS
    node, found = read_yaml(file)
    problems += found
    if node is None or node.value is None:
        problems += [] if found else [Problem(file, 1, 1, "is empty: wanted models, sizes or limits, or no such file")]
        return _NO_DEFAULTS
    settings = _validate(Settings, node, file, problems)
    return _NO_DEFAULTS if settings is None else _Defaults(settings, node)


def _case_nodes(file: Path, problems: list[Problem]) -> Iterable[Located]:
    """Return what stands for a case in a file: the whole of it, or the items of ``cases``."""
    node, found = read_yaml(file)
    problems += found
    if node is None or node.value is None:
        problems += [] if found else [Problem(file, 1, 1, "is empty: wanted a case, or a list of them under `cases`")]
        return ()
    if not node.keys or "cases" not in node.keys:
        return (node,)
    for key in node.keys.keys() - {"cases"}:
        what = f"unknown key {key!r} beside `cases`{nearest_hint(key, ['cases'])}"
        problems.append(Problem(file, *node.keys[key], what, f"what cases have in common goes into {DEFAULTS_FILE}"))
    items = node.children["cases"]
    if not isinstance(items.value, list) or not items.value:
        problems.append(Problem(file, *node.keys["cases"], "cases: should be a list of at least one case"))
        return ()
    return items.children.values()


def _validate(model: type[M], node: Located, file: Path, problems: list[Problem]) -> M | None:
    try:
        return model.model_validate(node.value)
    except ValidationError as error:
        problems += problems_of(error, node, file, model)
        return None


def _name_taken(node: Located, file: Path, names: dict[str, str]) -> Iterator[Problem]:
    name = node.children.get("name")
    if name is not None and isinstance(name.value, str):
        here = f"{file}:{name.place[0]}"
        if name.value in names:
            yield Problem(file, *name.place, f"name: {name.value!r} is the name of a case in {names[name.value]} too")
        names.setdefault(name.value, here)


def _with_defaults(text: CaseText, defaults: Settings, file: Path, line: int) -> Case:
    fields = dict(text)
    for name in {"models", "sizes"} - text.model_fields_set:
        fields[name] = getattr(defaults, name)
    limits = (*defaults.limits, *text.limits)
    return Case.model_validate({**fields, "limits": limits, "source_file": file.absolute(), "line": line})


def _idle_rules(rules: Iterable[LimitRule], tags: Iterable[str], node: Located, file: Path) -> Iterator[Problem]:
    """Yield the rules that ask for a tag which no case has that they could hold for."""
    for index, rule in enumerate(rules):
        if rule.when.tag and not set(rule.when.tag) & set(tags):
            place = node.down(("limits", index, "when", "tag"))[0].place
            what = f"limits[{index + 1}] never holds: there is no case with the tag {' or '.join(rule.when.tag)}"
            yield Problem(file, *place, what)


def _bad_sources(case: Case, node: Located, file: Path) -> Iterator[Problem]:
    """Yield the local files and package resources that are not there."""
    for source, loc in ((case.image, ("image",)), (case.expect.ground_truth, ("expect", "ground_truth"))):
        if source is None or source.url is not None:
            continue
        try:
            _resolve(source, case, None)
        except (CaseError, ImageError) as error:
            key = "path" if source.path is not None else "resource"
            yield Problem(file, *node.down((*loc, key))[0].place, f"{'.'.join((*loc, key))}: {error}")


def resolve_image(case: Case, settings: FetchSettings | None = None) -> Path:
    """Return where a case's photo lies on this machine; downloads it if it has to.

    Args:
        case: as loaded.
        settings: of the download; None reads the environment.

    Raises:
        DownloadError: it could not be fetched.
        CaseError: a local file is not there, or outside of the case file's directory.
        ImageError: the installed package has no such resource.
    """
    return _resolve(case.image, case, settings)


def resolve_mask(case: Case, settings: FetchSettings | None = None) -> Path | None:
    """Return where a case's ground-truth mask lies, None if it has none; otherwise like `resolve_image`."""
    source = case.expect.ground_truth
    return None if source is None else _resolve(source, case, settings)


def _resolve(source: ImageSource, case: Case, settings: FetchSettings | None) -> Path:
    if source.url is not None:
        from segcore.inputs.download import FetchSettings, download_file

        settings = settings or FetchSettings.from_env()
        most = min(source.bytes or settings.max_bytes, settings.max_bytes)
        return download_file(source.url, sha256=source.sha256, settings=replace(settings, max_bytes=most))
    if source.resource is not None:
        from segcore.inputs.images import resource_path

        return resource_path(source.resource)
    directory = case.source_file.parent
    path = directory / (source.path or "")
    if not path.is_file():
        raise CaseError(f"{path}: there is no such file")
    if not path.resolve().is_relative_to(directory.resolve()):  # by way of a symbolic link
        raise CaseError(f"{path}: leads out of the case file's directory, to {path.resolve()}")
    return path
