"""Verdicts and figures in the formats that other services read; one small writer each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from segcore.core.records import CaseRecord, Run
from segcore.judgement.gate.verdict import GateResult
from segcore.report.exports.action_benchmark import bigger_is_better, smaller_is_better
from segcore.report.exports.bencher import bencher
from segcore.report.exports.gitlab import code_quality
from segcore.report.exports.junit import junit
from segcore.report.exports.verdicts import Verdicts, gate_verdicts, run_verdicts
from segcore.report.metrics import Metric, metrics

VERDICT_FORMATS: Mapping[str, Callable[[Verdicts], str]] = {"junit": junit, "gitlab": code_quality}
"""Writers of verdicts by the name of their format."""
FIGURE_FORMATS: Mapping[str, Callable[[Sequence[Metric]], str]] = {
    "bencher": bencher,
    "customSmallerIsBetter": smaller_is_better,
    "customBiggerIsBetter": bigger_is_better,
}
"""Writers of figures by the name of their format."""


def export_run(name: str, run: Run, baseline: Run | None = None, gate: GateResult | None = None) -> str:
    """Return a run in a format: its verdicts against the baseline, if there is one, or its figures."""
    if name in FIGURE_FORMATS:
        return FIGURE_FORMATS[name](metrics(run))
    if gate is None or baseline is None:
        return VERDICT_FORMATS[name](run_verdicts(run))
    return export_gate(name, gate, (baseline, run))


def export_gate(name: str, result: GateResult, runs: Sequence[Run] = ()) -> str:
    """Return the verdicts of a gate in a format.

    Args:
        name: of `VERDICT_FORMATS`.
        result: the verdicts.
        runs: that were judged, for the places of their cases; the last says it if several do.
    """
    cases: dict[str, CaseRecord] = {case.name: case for run in runs for case in run.record.cases}
    return VERDICT_FORMATS[name](gate_verdicts(result, tuple(cases.values())))
