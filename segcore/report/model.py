"""What a report says, whatever the medium: the verdict, what changed, the cases, every item, and where it all ran."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from segcore.core.errors import RecordError
from segcore.core.labels import NUM_CLASSES, VOC_CLASSES, voc_colormap
from segcore.core.records import AccuracyRecord, Benchmark, OutcomeKind, OutcomeRecord, Run
from segcore.judgement.drift import pixel_drift
from segcore.judgement.gate.verdict import VERDICTS, GateResult, Row
from segcore.report.pictures import load_indices, load_photo
from segcore.report.wording import change_words, value_words

Tone = Literal["good", "warn", "bad"]
TONES: dict[str, Tone] = {
    "pass": "good",
    "improved": "good",
    "inconclusive": "warn",
    "incomparable": "warn",
    "regressed": "bad",
    "missing": "bad",
}


TRACE = 0.001
"""Share of the pixels below which a class has no entry of its own in a legend."""


@dataclass(frozen=True)
class Headline:
    """The verdict in one word and in one line with counts."""

    word: str
    line: str
    tone: Tone


@dataclass(frozen=True)
class Changed:
    """One row of a gate, in words."""

    verdict: str
    tone: Tone
    name: str
    was: str
    now: str
    change: str
    limit: str
    reason: str


@dataclass(frozen=True)
class Share:
    """One class in a photo: its colour (``#rrggbb``) and its share of the pixels (0 to 1), now and in the baseline."""

    name: str
    colour: str
    share: float
    before: float | None


@dataclass(frozen=True)
class CaseReport:
    """What one model saw in one photo."""

    run: Run
    benchmark: Benchmark
    accuracy: AccuracyRecord
    before: tuple[Run, AccuracyRecord] | None
    """The same item in the baseline."""
    title: str
    subtitle: str
    shares: tuple[Share, ...]
    scores: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Pictures:
    """What can be shown of a case; None where the run has no such picture, or `notes` say why it cannot be shown."""

    photo: npt.NDArray[np.uint8] | None = None
    """uint8 RGB (H, W, 3)."""
    class_map: npt.NDArray[np.uint8] | None = None
    changed: npt.NDArray[np.bool_] | None = None
    """True where the class differs from the baseline's, (H, W)."""
    changed_words: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Failure:
    """Items that did not pass, for one reason."""

    outcome: OutcomeKind
    reason: str
    items: tuple[str, ...]

    @property
    def count(self) -> int:
        """How many items."""
        return len(self.items)


@dataclass(frozen=True)
class ReportModel:
    """Everything told about some runs; the last of them is the one that is judged."""

    runs: tuple[Run, ...]
    baseline: Run | None
    gate: GateResult | None
    headline: Headline
    changed: tuple[Changed, ...]
    warnings: tuple[str, ...]
    failures: tuple[Failure, ...]
    """What failed, ended in error or was skipped, in this order."""
    item_warnings: tuple[tuple[str, str], ...]
    """(item, warning) for each warning about an item's figures."""
    cases: tuple[CaseReport, ...]

    @property
    def current(self) -> Run:
        """The run that is judged."""
        return self.runs[-1]

    @property
    def all_runs(self) -> tuple[Run, ...]:
        """The baseline, unless it is among the runs anyway, and the runs."""
        known = self.baseline is None or any(run.path == self.baseline.path for run in self.runs)
        return self.runs if known or self.baseline is None else (self.baseline, *self.runs)


def build_report(runs: Sequence[Run], baseline: Run | None = None, gate: GateResult | None = None) -> ReportModel:
    """Return the story of some runs.

    Args:
        runs: at least one; the last is the one that is judged.
        baseline: what it was held against.
        gate: the result of that, as `segcore.judgement.gate` returned it for baseline and last run.
    """
    current = runs[-1]
    record = current.record
    random = sorted({b.info.model for b in current.benchmarks if b.info.weights.kind == "random"})
    warnings = [f"Random weights ({', '.join(random)}): latency only, the classes mean nothing."] if random else []
    if gate:  # its notes have all that follows, of both runs
        warnings += gate.notes
    else:
        warnings += [] if record.complete else ["The run was interrupted: what it had measured until then is shown."]
        warnings += [warning.text for warning in record.warnings]
    rows = sorted(gate.rows, key=lambda row: VERDICTS.index(row.verdict)) if gate else []
    return ReportModel(
        runs=tuple(runs),
        baseline=baseline,
        gate=gate,
        headline=headline(current, gate),
        changed=tuple(_changed(row) for row in rows if row.verdict != "pass"),
        warnings=tuple(dict.fromkeys(warnings)),
        failures=_troubles(record.outcomes),
        item_warnings=tuple((b.info.key, warning.text) for b in current.benchmarks for warning in b.info.warnings),
        cases=_cases(current, baseline),
    )


def _troubles(outcomes: Sequence[OutcomeRecord]) -> tuple[Failure, ...]:
    found: dict[tuple[OutcomeKind, str], list[str]] = {}
    for outcome in outcomes:
        found.setdefault((outcome.outcome, outcome.reason), []).append(outcome.key or outcome.item)
    ordered = sorted(found.items(), key=lambda entry: _OUTCOMES.index(entry[0][0]))
    return tuple(Failure(kind, reason, tuple(items)) for (kind, reason), items in ordered if kind != "passed")


def headline(run: Run, gate: GateResult | None = None) -> Headline:
    """Return the verdict of a gate, or without one what the run's own items and expectations say."""
    if gate is not None:
        counts = ", ".join(f"{count} {verdict}" for verdict, count in gate.counts.items())
        word, tone = _GATE_WORDS[gate.exit_code]
        return Headline(word, f"{word}: {counts or 'nothing was judged'}", tone)
    counts_by = Counter(outcome.outcome for outcome in run.record.outcomes)
    unmet = [b for b in run.benchmarks if b.info.accuracy and not all(c.passed for c in b.info.accuracy.checks)]
    counts = ", ".join(f"{counts_by[kind]} {kind}" for kind in _OUTCOMES if counts_by[kind])
    if set(counts_by) == {"passed"} and run.record.complete and not unmet:
        counts = f"all {counts_by['passed']} items" if counts_by["passed"] > 1 else "1 item"
    counts = counts or f"{len(run.benchmarks)} item{'s' * (len(run.benchmarks) != 1)} measured"
    if unmet and not counts_by["failed"]:
        counts = f"{len(unmet)} not as expected, {counts}"
    if unmet or counts_by["failed"] or counts_by["error"]:
        return Headline("Failed", f"Failed: {counts}", "bad")
    if not run.record.complete or not run.benchmarks:
        return Headline("Incomplete", f"Incomplete: {counts}", "warn")
    return Headline("Passed", f"Passed: {counts}", "good")


_OUTCOMES: tuple[OutcomeKind, ...] = ("failed", "error", "passed", "skipped")
_GATE_WORDS: dict[int, tuple[str, Tone]] = {0: ("Passed", "good"), 1: ("Failed", "bad"), 3: ("Undecided", "warn")}


def _changed(row: Row) -> Changed:
    return Changed(
        verdict=row.verdict,
        tone=TONES[row.verdict],
        name=row.item if row.aspect in ("item", "outcome") else f"{row.item} {row.aspect}",
        was=value_words(row.old, row.unit),
        now=value_words(row.new, row.unit),
        change=change_words(row.change, row.unit),
        limit=row.limit,
        reason=row.reason,
    )


def _cases(run: Run, baseline: Run | None) -> tuple[CaseReport, ...]:
    """One story per item with accuracy; those of one photo together, photos that are not as expected first."""
    old = {b.info.key: b.info.accuracy for b in baseline.benchmarks} if baseline else {}
    found = []
    for benchmark in run.benchmarks:
        info = benchmark.info
        if info.accuracy is None or info.kind == "dataset":
            continue
        twin = old.get(info.key)
        weights = f", {info.weights.kind} weights" if info.weights.kind != "pretrained" else ""
        runtime = "" if (info.runtime, info.precision) == ("torch", "fp32") else f", {info.runtime} {info.precision}"
        found.append(
            CaseReport(
                run=run,
                benchmark=benchmark,
                accuracy=info.accuracy,
                before=(baseline, twin) if baseline and twin else None,
                title=info.case,
                subtitle=f"{info.model} at {info.size}{runtime} on {info.device}{weights}",
                shares=_shares(info.accuracy, twin),
                scores=_scores(info.accuracy),
            )
        )
    failed = {case.title for case in found if not case.accuracy.passed}
    order = {title: place for place, title in enumerate(dict.fromkeys(case.title for case in found))}
    return tuple(sorted(found, key=lambda case: (case.title not in failed, order[case.title])))


def open_pictures(case: CaseReport) -> Pictures:
    """Return the pictures of a case; whatever cannot be read is said in the notes."""
    notes: list[str] = []
    photo = class_map = changed = None
    words = ""
    accuracy = case.accuracy
    try:
        photo = load_photo(case.run, accuracy.photo) if accuracy.photo else None
        class_map = load_indices(case.run, accuracy.class_map) if accuracy.class_map else None
        if case.before and case.before[1].class_map and class_map is not None:
            old = load_indices(case.before[0], case.before[1].class_map)
            words = _drift_words(case.before[0], case.before[1], old, case.run, accuracy, class_map)
            changed = old != class_map
    except RecordError as error:
        notes.append(str(error))
    return Pictures(photo, class_map, changed, words, tuple(notes))


def _drift_words(
    baseline: Run,
    before: AccuracyRecord,
    old: npt.NDArray[np.uint8],
    run: Run,
    after: AccuracyRecord,
    new: npt.NDArray[np.uint8],
) -> str:
    margins = [load_indices(r, a.margin_map) if a.margin_map else None for r, a in ((baseline, before), (run, after))]
    try:
        drift = pixel_drift(old, new, *margins)
    except ValueError as error:
        raise RecordError(f"{run.path.name}: no changed pixels can be shown: {error}") from None
    if not drift.changed:
        return "No pixel changed class."
    split = f", {100 * drift.numeric:.2f} % within numeric noise" if drift.numeric else ""
    return f"{100 * drift.changed:.2f} % of the pixels changed class{split}."


def _shares(accuracy: AccuracyRecord, before: AccuracyRecord | None) -> tuple[Share, ...]:
    colours = voc_colormap(NUM_CLASSES)
    shares = []
    for name, share in sorted(accuracy.fractions.items(), key=lambda pair: -pair[1]):
        colour = colours[VOC_CLASSES.index(name)].tolist() if name in VOC_CLASSES else (128, 128, 128)
        old = before.fractions.get(name, 0.0) if before else None
        shares.append(Share(name, "#{:02x}{:02x}{:02x}".format(*colour), share, old))
    return tuple(shares)


def _scores(accuracy: AccuracyRecord) -> tuple[tuple[str, str], ...]:
    found = [("mIoU", accuracy.miou), ("pixel accuracy", accuracy.pixel_accuracy)]
    found += [(f"IoU {name}", value) for name, value in (accuracy.iou or {}).items()]
    scores = [(name, f"{100 * value:.1f} %") for name, value in found if value is not None]
    return tuple(scores + ([("convention", accuracy.metric)] if accuracy.metric and scores else []))
