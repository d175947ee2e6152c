"""Runs of one undecided item at two commits."""

from __future__ import annotations

from typing import Any

from segcore.core.records import GitRecord, OutcomeRecord, Run
from tests.support.factories import make_machine
from tests.support.judged_runs import a_run, an_item, steady

KEY = "latency[cat-embedded-torch-cpu-320]"
NODE = "bench/test_latency.py::test_latency[cat]"
HERE = make_machine()


def measured(name: str, *, dirty: bool = False, git: bool = True, node: str = NODE, **fields: Any) -> Run:
    outcome = OutcomeRecord(item=node, kind="latency", outcome="passed", key=KEY)
    commit = GitRecord(commit=("a" if name == "old" else "b") * 40, branch="main", dirty=dirty)
    base = {"git": commit if git else None, "outcomes": (outcome,), "command": ("pytest", "bench/")}
    return a_run(an_item(steady(seed=len(name))), name=name, **base | fields)
