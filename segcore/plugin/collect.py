"""From the command line to a plan: cases, models, devices and runtimes as they are, and names checked against them."""

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
    """Makes the plan of each kind of item; looks at cases and devices once.

    Args:
        choices: the command line.

    Raises:
        UsageError: a model or runtime that does not exist is asked for.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        check_names("--segcore-model", choices.models, models.model_names())
        check_names("--segcore-runtime", choices.runtimes, RUNTIMES)

    @cached_property
    def cases(self) -> tuple[Case, ...]:
        """The cases asked for.

        Raises:
            CaseError: case files are wrong; the message lists every problem.
            UsageError: there are none, not those asked for, or one names a model or runtime that does not exist.
        """
        for path in self.choices.case_dirs:
            if not path.exists():
                raise UsageError(f"no cases: {path} does not exist; name a directory of case files with --cases DIR")
        cases = [case for path in self.choices.case_dirs for case in load_cases(path)]
        files: dict[str, Path] = {}
        for case in cases:  # within one directory the loader has seen to it
            if case.name in files:
                raise UsageError(f"two cases are named {case.name}: in {files[case.name]} and in {case.source_file}")
            files[case.name] = case.source_file
            _check_case(case)
        return select_cases(cases, self.choices)

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """The devices asked for, else every one available.

        Raises:
            DeviceError: one that was asked for is not available.
        """
        if self.choices.devices:
            return tuple(dict.fromkeys(str(detect_device(name)) for name in self.choices.devices))
        return tuple(info.name for info in find_devices() if info.available)

    def items(self, kind: Kind) -> tuple[PlanItem, ...]:
        """Return the items of one kind."""
        return plan_items(kind, self.cases, self.choices, self.devices)


def _check_case(case: Case) -> None:
    """Refuse names that no model or runtime bears: such a case would not run, such a rule would never hold."""
    where = f"{case.source_file}:{case.line}: case {case.name}"
    check_names(f"{where}: models:", case.models, models.model_names())
    for rule in case.limits:
        check_names(f"{where}: limits: when: model:", rule.when.model, models.model_names())
        check_names(f"{where}: limits: when: runtime:", rule.when.runtime, RUNTIMES)
