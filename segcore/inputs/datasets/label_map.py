"""From the classes of a dataset to those of a model, so that a set with other labels can score it.

A map is written in YAML: ``classes`` names a class of the model, or ``ignore``, for classes of the dataset; with
``by_name`` the others count as the class of the same name, and ``others`` is for all that are left. Classes are given
by name, alias or index, and every problem is reported at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, Strict

from segcore.core.errors import DatasetError, UsageError
from segcore.core.labels import CITYSCAPES, CITYSCAPES_IDS, ClassMap, LabelSet, class_map_dtype
from segcore.core.text import listed
from segcore.inputs.cases.model import CaseModel
from segcore.inputs.cases.problems import validate
from segcore.inputs.cases.yaml_source import Located, Problem, all_problems, read_yaml

IGNORE = "ignore"
"""What a map says of classes whose pixels are not scored."""
_MOST_NAMED = 12

Class = Annotated[str, Strict(), Field(min_length=1)] | Annotated[int, Strict(), Field(ge=0)]


@dataclass(frozen=True)
class LabelMap:
    """What each class of a dataset counts as when a model with other classes is scored."""

    source: LabelSet
    """The dataset's classes."""
    target: LabelSet
    """The model's."""
    indices: tuple[int | None, ...]
    """For each class of the dataset, the index of a class of the model, or None for pixels that are not scored."""
    origin: Literal["file", "names", "layout"] = "names"
    """Where the map comes from: a file of the user, equal names, or the layout of the dataset."""

    def __post_init__(self) -> None:
        if None in self.indices and self.target.ignore is None:
            raise UsageError(
                f"the labels {self.target.name!r} have no value for pixels that are not scored, which the map to them "
                "needs: give the model's labels an `ignore`"
            )

    @property
    def judged(self) -> frozenset[int]:
        """The classes of the model that a mask can have; nothing can be said of the others."""
        return frozenset(index for index in self.indices if index is not None)

    @property
    def names(self) -> dict[str, str]:
        """The map in words, for a record."""
        counted = (IGNORE if index is None else self.target.names[index] for index in self.indices)
        return dict(zip(self.source.names, counted, strict=True))

    @property
    def digest(self) -> str:
        """SHA-256 of the map: figures of different maps are not comparable."""
        return hashlib.sha256(json.dumps([self.names, self.source.ignore]).encode()).hexdigest()

    def apply(self, mask: ClassMap) -> ClassMap:
        """Return a mask in the classes of the model; DatasetError for a value that is no class of the dataset."""
        void = -1 if self.target.ignore is None else self.target.ignore
        values = np.full(65_536, -1, dtype=np.int32)
        values[: len(self.indices)] = [void if index is None else index for index in self.indices]
        if self.source.ignore is not None:
            values[self.source.ignore] = void
        mapped = values[mask]
        if (mapped < 0).any():
            unknown = listed(np.unique(mask[mapped < 0]), _MOST_NAMED)
            ignored = "" if self.source.ignore is None else f" or {self.source.ignore}"
            raise DatasetError(
                f"the mask has values that are no class of {self.source.name}: {unknown}; "
                f"wanted 0 to {len(self.source) - 1}{ignored}"
            )
        return mapped.astype(class_map_dtype(max(len(self.target), void + 1)))


class MapEntry(CaseModel):
    """A file that maps classes, as it is written."""

    classes: dict[str, Class] = Field(default={})
    """Class of the model, or `ignore`, by class of the dataset."""
    by_name: bool = False
    """Whether classes that `classes` does not name count as the class of the model with their name or alias, if any."""
    others: Class | None = None
    """What all other classes of the dataset count as; there must be none if omitted."""


def read_label_map(file: Path, source: LabelSet, target: LabelSet) -> LabelMap:
    """Return the map in a file from a dataset's classes to a model's; UsageError lists every problem of the file."""
    problems: list[Problem] = []
    indices: dict[int, int | None] = {}
    node = read_yaml(file, "`classes:`, `others:` or both", problems)
    if node is not None and (entry := validate(MapEntry, node, file, problems)):
        problems += _resolve(entry, node, file, (source, target), indices)
    if problems:
        problems.sort(key=lambda problem: problem.place)
        raise UsageError(all_problems(f"the map {file}", problems))
    return LabelMap(source, target, tuple(indices[index] for index in range(len(source))), "file")


def _resolve(
    entry: MapEntry, node: Located, file: Path, sets: tuple[LabelSet, LabelSet], indices: dict[int, int | None]
) -> Iterator[Problem]:
    """Fill in the index for each class of the dataset; yield what is wrong with the names."""
    source, target = sets
    first: dict[int, str] = {}
    for key, value in entry.classes.items():
        written = node.children["classes"]
        index, problem = _tried(source.index, key)
        if problem:
            yield Problem(file, *written.keys[key], f"classes: the dataset's {problem}")
        counted, problem = _counted_as(value, target)
        if problem:
            yield Problem(file, *written.children[key].position, f"classes.{key}: the model's {problem}")
        if index in first:
            same = first[index]
            what = f"classes: {key!r} is the same class as {same!r} in line {written.keys[same][0]}"
            yield Problem(file, *written.keys[key], what, "remove one of them")
        if index is not None:
            first.setdefault(index, key)
            indices[index] = counted
    if entry.by_name:
        found = {index: _namesake(source, index, target) for index in range(len(source)) if index not in indices}
        indices |= {index: other for index, other in found.items() if other is not None}
    missing = [index for index in range(len(source)) if index not in indices]
    if entry.others is not None:
        counted, problem = _counted_as(entry.others, target)
        indices |= dict.fromkeys(missing, counted)
        if problem:
            yield Problem(file, *node.children["others"].position, f"others: the model's {problem}")
    elif missing:
        what = f"says nothing of {len(missing)} classes of the dataset: {_listed(source, missing)}"
        yield Problem(file, *node.position, what, "name them, or add `others: ignore`")


def _counted_as(value: str | int, target: LabelSet) -> tuple[int | None, str]:
    return (None, "") if value == IGNORE else _tried(target.index, value)


def _tried(find: Callable[[str | int], int], value: str | int) -> tuple[int | None, str]:
    """Return the index that is found, and what is wrong if it is not."""
    try:
        return find(value), ""
    except UsageError as error:
        return None, str(error)


def _listed(labels: LabelSet, indices: Sequence[int]) -> str:
    return listed((labels.names[index] for index in indices), _MOST_NAMED)


def default_map(source: LabelSet, target: LabelSet) -> LabelMap:
    """Return the map that needs no file: equal sets, Cityscapes' ids or equal names; UsageError if a class has none."""
    if source.digest == target.digest:
        return LabelMap(source, target, tuple(range(len(source))))
    found = tuple(_namesake(source, index, target) for index in range(len(source)))
    if (source.digest, target.digest) == (CITYSCAPES_IDS.digest, CITYSCAPES.digest):  # the rest is not scored
        return LabelMap(source, target, found, "layout")
    missing = [index for index, other in enumerate(found) if other is None]
    if not missing:
        return LabelMap(source, target, found)
    raise UsageError(
        f"the dataset has the classes of {source.name}, the model those of {target.name}, which lack "
        f"{_listed(source, missing)}: say by --map FILE what they count as (`classes: {{...}}`, `by_name: true`, "
        "`others: ignore`)"
    )


def by_name(mask: ClassMap, source: LabelSet, target: LabelSet) -> ClassMap:
    """Return a mask (H, W) with the classes of the same names in another label set; DatasetError if it lacks one."""
    if source.digest == target.digest:
        return mask
    indices = tuple(_namesake(source, index, target) for index in range(len(source)))
    shown = np.flatnonzero(np.bincount(mask.ravel(), minlength=len(source))[: len(source)])
    lost = [source.names[index] for index in shown if indices[index] is None]
    void = source.ignore is not None and target.ignore is None and bool((mask == source.ignore).any())
    if lost or void:
        what = f"the class {', '.join(map(repr, lost))}" if lost else "pixels that are not scored"
        raise DatasetError(f"the mask, drawn in the classes of {source.name}, has {what}: {target.name} does not")
    if target.ignore is None:  # the map needs a value for the classes that are not shown
        target = LabelSet(target.name, target.names, target.colors)
    return LabelMap(source, target, indices).apply(mask)


def _namesake(source: LabelSet, index: int, target: LabelSet) -> int | None:
    """Return the class of the model with the name or an alias of a class of the dataset."""
    names = [source.names[index]]
    names += [alias for alias, name in source.aliases.items() if name.lower() == names[0].lower()]
    found = (target.find(name) for name in names if not name.isdecimal())
    return next((other for other in found if other is not None), None)
