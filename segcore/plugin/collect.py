"""From the command line to the planned items: case files are read, devices found and names checked."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from segcore.core.errors import UsageError
from segcore.core.records import Kind
from segcore.inference import models
from segcore.inference.devices import detect_device, find_devices
from segcore.inference.runtimes import RUNTIMES
from segcore.inputs.cases import Case, load_cases
from segcore.plugin.options import Choices, check_names
from segcore.plugin.plan import PlanItem, plan_items, select_cases


class Collector:
    """Plan the items of each kind; cases and devices are read once."""

    def __init__(self, choices: Choices) -> None:
        self.choices = choices

    def items(self, kind: Kind) -> tuple[PlanItem, ...]:
        """Return the items of one kind.

        Raises:
            CaseError: case files are invalid; the message lists every problem.
            DeviceError: a selected device is not available.
            UsageError: a name of a case, tag, model or runtime is unknown.
        """
        check_names("--segcore-model", self.choices.models, models.model_names())
        check_names("--segcore-runtime", self.choices.runtimes, RUNTIMES)
        return plan_items(kind, self._cases, self.choices, self._devices)

    @cached_property
    def _cases(self) -> tuple[Case, ...]:
        files: dict[str, Path] = {}
        cases: list[Case] = []
        for path in self.choices.case_dirs:
            if not path.exists():
                raise UsageError(f"no cases: {path} does not exist; name a directory with --segcore-cases DIR")
            cases += load_cases(path)
        for case in cases:
            where = f"{case.source_file}:{case.line}: case {case.name}"
            if case.name in files:
                raise UsageError(f"two cases are named {case.name}: in {files[case.name]} and in {case.source_file}")
            files[case.name] = case.source_file
            check_names(f"{where}: models:", case.models, models.model_names())
            for rule in case.limits:
                check_names(f"{where}: limits: when: model:", rule.when.model, models.model_names())
                check_names(f"{where}: limits: when: runtime:", rule.when.runtime, RUNTIMES)
        return select_cases(cases, self.choices)

    @cached_property
    def _devices(self) -> tuple[str, ...]:
        if self.choices.devices:
            return tuple(dict.fromkeys(str(detect_device(name)) for name in self.choices.devices))
        return tuple(info.name for info in find_devices() if info.available)
