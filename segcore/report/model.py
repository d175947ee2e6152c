"""What a report shows in any medium: the verdict, what changed, failures, warnings and cases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segcore.core.errors import RecordError
from segcore.core.labels import VOC, ClassMap, LabelSet
from segcore.core.records import AccuracyRecord, Benchmark, OutcomeKind, OutcomeRecord, Run
from segcore.judgement.compare import disturbed_calibrations
from segcore.judgement.drift import Drift, pixel_drift
from segcore.judgement.gate.verdict import GateResult, Row
from segcore.report.gate import Headline, headline, worst_first
from segcore.results.pictures import load_indices, load_margins, load_photo

MIN_SHARE = 0.001
"""Share of the pixels below which a class gets no entry of its own in a legend."""
_OUTCOMES: tuple[OutcomeKind, ...] = ("failed", "error", "passed", "skipped")


@dataclass(frozen=True)
class Share:
    """One class in a photo: its colour (``#rrggbb``) and its share of the pixels (0 to 1), now and in the baseline."""

    name: str
    colour: str
    share: float
    before: float | None


@dataclass(frozen=True)
class CaseReport:
    """Accuracy of one model on one photo."""

    run: Run
    benchmark: Benchmark
    accuracy: AccuracyRecord
    before: tuple[Run, AccuracyRecord] | None
    """The same item in the baseline."""
    title: str
    subtitle: str
    shares: tuple[Share, ...]
    scores: tuple[tuple[str, str], ...]
    labels: LabelSet
    """Of the model, for the colours; VOC's if the run does not say which."""


@dataclass(frozen=True)
class Pictures:
    """Pictures of a case; None if the run has no such picture, or if it cannot be shown for a reason in `notes`."""

    photo: npt.NDArray[np.uint8] | None = None
    """uint8 RGB (H, W, 3)."""
    class_map: ClassMap | None = None
    changed: npt.NDArray[np.bool_] | None = None
    """True where the class differs from the baseline's, (H, W)."""
    change: str = ""
    """Share of the pixels that changed class, as a sentence."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Items that did not pass for one reason."""

    outcome: OutcomeKind
    reason: str
    items: tuple[str, ...]

    @property
    def count(self) -> int:
        """Number of items."""
        return len(self.items)


@dataclass(frozen=True)
class ReportModel:
    """Everything that a report says about some runs."""

    runs: tuple[Run, ...]
    baseline: Run | None
    gate: GateResult | None
    headline: Headline
    changed: tuple[Row, ...]
    """Rows of the gate that did not just pass, worst first."""
    warnings: tuple[str, ...]
    failures: tuple[Failure, ...]
    """Failed, then errors, then skipped."""
    item_warnings: tuple[tuple[str, str], ...]
    """(item, warning) for each warning about an item's figures."""
    cases: tuple[CaseReport, ...]

    @property
    def current(self) -> Run:
        """The run that is judged: the last."""
        return self.runs[-1]

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """The runs, after the baseline unless it is one of them."""
        beside = self.baseline and self.baseline.path not in [run.path for run in self.runs]
        return (self.baseline, *self.runs) if self.baseline and beside else self.runs


def build_report(runs: Sequence[Run], baseline: Run | None = None, gate: GateResult | None = None) -> ReportModel:
    """Return the report of some runs, the last of which is judged; `gate` has the verdicts against the baseline."""
    current = runs[-1]
    record = current.record
    random = sorted({b.info.model for b in current.benchmarks if b.info.weights.kind == "random"})
    warnings = [f"Random weights ({', '.join(random)}): latency only, the classes mean nothing."] if random else []
    if gate:  # its notes include the warnings of both runs
        warnings += (*gate.notes, *(f"to decide: {command}" for command in gate.commands))
    else:
        warnings += [] if record.complete else ["The run was interrupted: only what it measured until then is shown."]
        warnings += [warning.text for warning in record.warnings]
    warnings += disturbed_calibrations(current)
    return ReportModel(
        runs=tuple(runs),
        baseline=baseline,
        gate=gate,
        headline=headline(gate) if gate else run_headline(current),
        changed=tuple(row for row in worst_first(gate.rows) if row.verdict != "pass") if gate else (),
        warnings=tuple(dict.fromkeys(warnings)),
        failures=group_failures(record.outcomes),
        item_warnings=tuple((b.info.key, warning.text) for b in current.benchmarks for warning in b.info.warnings),
        cases=_cases(current, baseline),
    )


def group_failures(outcomes: Sequence[OutcomeRecord]) -> tuple[Failure, ...]:
    """Return what did not pass, grouped by outcome and reason."""
    found: dict[tuple[OutcomeKind, str], list[str]] = {}
    for outcome in outcomes:
        key = (outcome.outcome, outcome.reason)
        found.setdefault(key, []).append(outcome.key or outcome.item)
    ordered = sorted(found.items(), key=lambda entry: _OUTCOMES.index(entry[0][0]))
    return tuple(Failure(kind, reason, tuple(items)) for (kind, reason), items in ordered if kind != "passed")


def run_headline(run: Run) -> Headline:
    """Return the verdict of a run on its own: outcomes and expectations."""
    counts_by = Counter(outcome.outcome for outcome in run.record.outcomes)
    unmet = sum(1 for b in run.benchmarks if b.info.accuracy and not b.info.accuracy.passed)
    counts = ", ".join(f"{counts_by[kind]} {kind}" for kind in _OUTCOMES if counts_by[kind])
    if set(counts_by) == {"passed"} and run.record.complete and not unmet:
        counts = f"all {counts_by['passed']} items" if counts_by["passed"] > 1 else "1 item"
    counts = counts or f"{len(run.benchmarks)} item{'s' * (len(run.benchmarks) != 1)} measured"
    if unmet and not counts_by["failed"]:
        counts = f"{unmet} not as expected, {counts}"
    if unmet or counts_by["failed"] or counts_by["error"]:
        return Headline("Failed", f"Failed: {counts}", "bad")
    if not run.record.complete or not run.benchmarks:
        return Headline("Incomplete", f"Incomplete: {counts}", "warn")
    return Headline("Passed", f"Passed: {counts}", "good")


def _cases(run: Run, baseline: Run | None) -> tuple[CaseReport, ...]:
    """Return the items with accuracy, those of one photo together, photos that are not as expected first."""
    old = {b.info.key: b.info for b in baseline.benchmarks} if baseline else {}
    found = []
    for benchmark in run.benchmarks:
        info = benchmark.info
        if info.accuracy is None or info.kind == "dataset":
            continue
        earlier, labels = old.get(info.key), run.labels_of(info) or VOC
        before = earlier.accuracy if earlier and earlier.labels.sha256 == info.labels.sha256 else None
        weights = f", {info.weights.kind} weights" if info.weights.kind != "pretrained" else ""
        runtime = "" if (info.runtime, info.precision) == ("torch", "fp32") else f", {info.runtime} {info.precision}"
        found.append(
            CaseReport(
                run=run,
                benchmark=benchmark,
                accuracy=info.accuracy,
                before=(baseline, before) if baseline and before else None,
                title=info.case,
                subtitle=f"{info.model} at {info.size}{runtime} on {info.device}{weights}",
                shares=_shares(info.accuracy, before, labels),
                scores=_scores(info.accuracy),
                labels=labels,
            )
        )
    failed = {case.title for case in found if not case.accuracy.passed}
    order = {title: n for n, title in enumerate(dict.fromkeys(case.title for case in found))}
    return tuple(sorted(found, key=lambda case: (case.title not in failed, order[case.title])))


def open_pictures(case: CaseReport) -> Pictures:
    """Return the pictures of a case, with a note on each that cannot be read."""
    photo = class_map = changed = None
    change = ""
    notes: tuple[str, ...] = ()
    accuracy = case.accuracy
    try:
        photo = load_photo(case.run, accuracy.photo) if accuracy.photo else None
        class_map = load_indices(case.run, accuracy.class_map) if accuracy.class_map else None
        baseline, before = case.before or (case.run, None)
        if before and before.class_map and class_map is not None:
            old = load_indices(baseline, before.class_map)
            drift = pixel_drift(old, class_map, load_margins(baseline, before), load_margins(case.run, accuracy))
            change, changed = _change_words(drift), old != class_map
    except RecordError as error:
        notes = (str(error),)
    except ValueError as error:
        notes = (f"{case.run.path.name}: no changed pixels can be shown: {error}",)
    return Pictures(photo, class_map, changed, change, notes)


def _change_words(drift: Drift) -> str:
    if not drift.changed:
        return "No pixel changed class."
    split = f", {drift.numeric:.2%} within numeric noise" if drift.numeric else ""
    return f"{drift.changed:.2%} of the pixels changed class{split}."


def _shares(accuracy: AccuracyRecord, before: AccuracyRecord | None, labels: LabelSet) -> tuple[Share, ...]:
    shares = []
    for name, share in sorted(accuracy.fractions.items(), key=lambda pair: -pair[1]):
        index = labels.find(name)
        colour = (128, 128, 128) if index is None else labels.colors[index]
        old = before.fractions.get(name, 0.0) if before else None
        shares.append(Share(name, "#{:02x}{:02x}{:02x}".format(*colour), share, old))
    return tuple(shares)


def _scores(accuracy: AccuracyRecord) -> tuple[tuple[str, str], ...]:
    scores = [(name, f"{value:.1%}") for name, value in accuracy.scores.items()]
    return tuple(scores + ([("convention", accuracy.metric)] if accuracy.metric and scores else []))
