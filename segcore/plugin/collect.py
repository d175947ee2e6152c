"""From the command line to the planned items: case files are read, devices found and names checked."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from segcore.core.bench_options import Choices
from segcore.core.errors import UsageError
from segcore.core.labels import LabelSet
from segcore.core.model_spec import ModelSpec
from segcore.core.records import Kind
from segcore.inference import models
from segcore.inference.devices import detect_device, find_devices
from segcore.inference.models import is_built_in
from segcore.inference.models.sources import find_model
from segcore.inference.runtimes import RUNTIMES
from segcore.inputs.cases import Case, load_cases
from segcore.inputs.model_files import ModelFiles, is_path, open_model_files
from segcore.plugin.options import check_names
from segcore.plugin.plan import PlanItem, plan_items, select_cases


class Collector:
    """Plan the items of each kind; cases and devices are read once."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices

    def items(self, kind: Kind) -> tuple[PlanItem, ...]:
        """Return the items of one kind; raise SegcoreError if a case, model, device or name is not valid."""
        check_names("--segcore-runtime", self.choices.runtimes, RUNTIMES)
        return plan_items(kind, self._cases, self.choices, self._devices, self._specs)

    @cached_property
    def _files(self) -> ModelFiles:
        return open_model_files(self.choices.model_dir)

    @cached_property
    def _specs(self) -> dict[str, ModelSpec]:
        """The models that are not built in, by what the command line or a case calls them."""
        names = self.choices.models or tuple(dict.fromkeys(name for case in self._cases for name in case.models))
        self._check_models("--segcore-model", self.choices.models)
        found = {name: find_model(name, self._files) for name in names}
        return {name: spec for name, spec in found.items() if not is_built_in(spec)}

    def _check_models(self, where: str, names: Iterable[str]) -> None:
        """Raise an error for a name that is no model's; the problems of model files are said if there are any."""
        known = [*models.model_names(), *self._files.names]
        names = [name for name in names if not is_path(name)]
        if not self._files.problems:
            check_names(where, names, known)
        for name in set(names).difference(known):
            self._files.find(name, models.model_names())

    def _labels_of(self, listed: tuple[str, ...]) -> tuple[LabelSet, ...]:
        """Return the labels of the models that a case lists or the command line names; none if one's are not known."""
        names = dict.fromkeys((*listed, *self.choices.models))
        if any(name not in (*models.model_names(), *self._files.names) and not is_path(name) for name in names):
            return ()
        found = [find_model(name, self._files).labels for name in names]
        return tuple(labels for labels in found if labels is not None) if None not in found else ()

    @cached_property
    def _cases(self) -> tuple[Case, ...]:
        files: dict[str, Path] = {}
        cases: list[Case] = []
        for path in self.choices.case_dirs:
            if not path.exists():
                raise UsageError(f"no cases: {path} does not exist; name a directory with --segcore-cases DIR")
            cases += load_cases(path, self._labels_of)
        for case in cases:
            where = f"{case.source_file}:{case.line}: case {case.name}"
            if case.name in files:
                raise UsageError(f"two cases are named {case.name}: in {files[case.name]} and in {case.source_file}")
            files[case.name] = case.source_file
            self._check_models(f"{where}: models:", case.models)
            for rule in case.limits:
                self._check_models(f"{where}: limits: when: model:", rule.when.model)
                check_names(f"{where}: limits: when: runtime:", rule.when.runtime, RUNTIMES)
        return select_cases(cases, self.choices)

    @cached_property
    def _devices(self) -> tuple[str, ...]:
        if self.choices.devices:
            return tuple(dict.fromkeys(str(detect_device(name)) for name in self.choices.devices))
        return tuple(info.name for info in find_devices() if info.available)
