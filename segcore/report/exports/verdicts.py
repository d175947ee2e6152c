"""What the formats of verdicts share: each verdict with its figures as text, and where its case is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from segcore.core.records import CaseRecord, OutcomeKind, Run
from segcore.judgement.gate.accuracy import judge_expectations
from segcore.judgement.gate.verdict import GateResult, Row
from segcore.judgement.gate.verdict import Verdict as Word
from segcore.report.gate import headline
from segcore.report.wording import change_text, value_text

Outcome = Literal["passed", "failed", "error", "skipped"]
OUTCOMES: dict[Word, Outcome] = {
    "pass": "passed",
    "improved": "passed",
    "regressed": "failed",
    "missing": "error",
    "inconclusive": "skipped",
    "incomparable": "skipped",
}
"""What readers that know four outcomes make of a verdict; the exit code of the gate fails a job that is undecided."""


@dataclass(frozen=True)
class Place:
    """Where something is written: a file of the repository, and a line of it, from 1."""

    file: str
    line: int


@dataclass(frozen=True)
class Judged:
    """The verdict on one aspect of one item."""

    item: str
    aspect: str
    outcome: Outcome
    verdict: str
    """Of the gate, or the outcome of a test."""
    reason: str
    figures: tuple[tuple[str, str], ...]
    """Old, new, change and limit, as far as there are any."""
    place: Place


@dataclass(frozen=True)
class Verdicts:
    """What a file of verdicts says."""

    title: str
    rows: tuple[Judged, ...]

    def by_item(self) -> dict[str, list[Judged]]:
        """Return the rows by their item, in order."""
        found: dict[str, list[Judged]] = {}
        for row in self.rows:
            found.setdefault(row.item, []).append(row)
        return found


def gate_verdicts(result: GateResult, cases: Sequence[CaseRecord]) -> Verdicts:
    """Return the verdicts of a gate; `cases` are those of its runs."""
    return Verdicts(headline(result).line, tuple(_of_row(row, cases) for row in result.rows))


def run_verdicts(run: Run) -> Verdicts:
    """Return how the items of a run ended, and which expectations hold: there is no baseline."""
    cases = run.record.cases
    return Verdicts(f"{run.name}", (*_outcomes(run), *(_of_row(row, cases) for row in _expectations(run))))


def _expectations(run: Run) -> Iterator[Row]:
    for benchmark in run.benchmarks:
        yield from judge_expectations(benchmark.info)


def _outcomes(run: Run) -> Iterator[Judged]:
    for found in run.record.outcomes:
        outcome: OutcomeKind = found.outcome
        item = found.key or found.item
        reason = f"{found.reason} ({found.where})" if found.where else found.reason
        yield Judged(item, "outcome", outcome, outcome, reason, (), _place(item, run.record.cases))


def _of_row(row: Row, cases: Sequence[CaseRecord]) -> Judged:
    figures = {
        "old": value_text(row.old, row.unit),
        "new": value_text(row.new, row.unit),
        "change": change_text(row.change, row.unit),
        "limit": row.limit,
    }
    return Judged(
        item=row.item,
        aspect=row.aspect,
        outcome=OUTCOMES[row.verdict],
        verdict=row.verdict,
        reason=row.reason,
        figures=tuple((name, text) for name, text in figures.items() if text),
        place=_place(row.item, cases),
    )


def _place(item: str, cases: Sequence[CaseRecord]) -> Place:
    """Return where an item's case is written; else the file of a test that is no item of ours, or the first case's."""
    rest = item.partition("[")[2]
    fitting = [case for case in cases if rest.startswith(f"{case.name}-")]
    if fitting:
        case = max(fitting, key=lambda case: len(case.name))
        return Place(case.file, case.line)
    if "::" in item:
        return Place(item.partition("::")[0], 1)
    return Place(cases[0].file, cases[0].line) if cases else Place("bench", 1)
