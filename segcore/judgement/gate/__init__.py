"""The gate: runs in, verdicts out; a pure function that fails closed.

Every item of the baseline gets at least one row, unless the command line left it out of the current run. Whatever
cannot be judged gets a verdict that is not a pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from segcore.core.errors import UsageError
from segcore.core.limits import Limits
from segcore.core.records import TIMED, Benchmark, BenchmarkRecord, OutcomeRecord, Run, RunRecord
from segcore.judgement.drift import Drift
from segcore.judgement.gate.accuracy import judge_dominant, judge_drift, judge_expectations, judge_scores
from segcore.judgement.gate.budgets import judge_item, judge_models
from segcore.judgement.gate.comparable import changes, item_differences, machine_differences, other_weights
from segcore.judgement.gate.images import ImageVerdicts, counts_problem, has_counts, judge_images, unjudged_note
from segcore.judgement.gate.rules import ACCEPT, is_dropped, judge_loosened, limits_of, loosened
from segcore.judgement.gate.speed import implausible_gain, implausible_rate, judge_absolute, judge_change
from segcore.judgement.gate.verdict import GateResult, Row, Verdict, worst
from segcore.judgement.reference import SpeedCurve, curves_of
from segcore.judgement.statistics import ProcessNoise, usable
from segcore.results.machines import full_names

__all__ = ["GateResult", "Row", "Verdict", "judge"]

NOTHING_SELECTED = "not selected in the current run, like all other items of the baseline"
LEFT_OUT = "not selected in the current run, and --require-all is given"
Item = tuple[Benchmark, ...]
"""One item in each process of an arm."""


def judge(
    baseline: Sequence[Run],
    current: Sequence[Run],
    defaults: Limits,
    *,
    noise: Mapping[str, ProcessNoise] | None = None,
    drift: Mapping[str, Drift | str] | None = None,
    accept_changed_limits: bool = False,
    require_all: bool = False,
) -> GateResult:
    """Judge the current run against the baseline, each of them one run or several processes of it.

    Args:
        baseline: at least one run.
        current: at least one run.
        defaults: limits for items whose case sets none; a `max_drift` among them holds between different weights too.
        noise: known noise from run to run, by `BenchmarkRecord.key`; assumed for other items.
        drift: change of the stored class maps, by key: see `segcore.judgement.drift.run_drift`.
        accept_changed_limits: judge by the limits, checks and cases of the current run alone. Otherwise those of the
            baseline hold as well, and a change that loosens or drops one has regressed.
        require_all: what the current run says that its command line left out is missing as well.

    Raises:
        UsageError: there is nothing to judge.
    """
    old, new = _by_key(baseline), _by_key(current)
    if not old and not new:
        raise UsageError(f"nothing to judge: neither {baseline[0].path} nor {current[0].path} has an item of segcore")
    moved = _moved(old, new)
    pairs = {key: (item[0], new[moved.get(key, key)][0]) for key, item in old.items() if moved.get(key, key) in new}
    added = [key for key in new if key not in old and key not in moved.values()]
    curves = curves_of(pairs) if len(baseline) == len(current) == 1 else {}
    judging = _Judging(
        baseline, current, defaults, noise or {}, drift or {}, accept_changed_limits, require_all, curves
    )
    images = judging.image_verdicts(old, new)
    absent = [key for key in old if key not in new and key not in moved]
    left_out = [key for key in absent if judging.leaves_out(old[key][0].info)]
    if require_all or len(left_out) == len(old):  # nothing would be judged
        left_out = []
    accepted = [key for key in absent if accept_changed_limits and key not in left_out and is_dropped(key, current)]
    rows: list[Row] = []
    for key, before in old.items():
        if key not in (*left_out, *accepted):
            rows += judging.known_item(key, before, new.get(moved.get(key, key), ()), images.get(key, ()))
    if not rows:
        rows.append(Row("run", "item", "incomparable", "no item of a baseline is left to judge"))
    for key in added:
        rows += judging.new_item(key, new[key])
    rows += judge_models(baseline, current, judging.limits)
    rows += _failures(baseline, current, rows)
    if not all(run.record.complete for run in current) and all(row.verdict != "missing" for row in rows):
        rows.append(Row("run", "item", "missing", "the current run was interrupted"))
    notes = (
        *changes(baseline[0], current[0], pairs),
        *(() if judging.judges_any_drift else _unjudged_drift(pairs, judging.drift)),
        *(f"{key}: {note}" for key, verdicts in sorted(images.items()) for note in unjudged_note(verdicts)),
        *_listed("new, not in the baseline", added),
        *_listed("not selected in the current run, and so not judged", left_out),
        *_listed("dropped or skipped by the change, which was accepted", accepted),
        *(_loosened(pairs, defaults) if accept_changed_limits else ()),
        *_notes(baseline, current),
    )
    names = full_names((baseline[0], current[0]))
    return GateResult(names[0], names[1], tuple(rows), notes)


@dataclass(frozen=True)
class _Judging:
    """The arguments of `judge`, with the judgement of a single item."""

    baseline: Sequence[Run]
    current: Sequence[Run]
    defaults: Limits
    noise: Mapping[str, ProcessNoise]
    drift: Mapping[str, Drift | str]
    accept: bool
    require_all: bool
    curves: Mapping[str, SpeedCurve]

    @property
    def judges_any_drift(self) -> bool:
        """Whether drift is judged between different weights too: somebody has asked for a limit."""
        return "max_drift" in self.defaults.model_fields_set

    def image_verdicts(self, old: Mapping[str, Item], new: Mapping[str, Item]) -> dict[str, tuple[ImageVerdicts, ...]]:
        """Return, by key, the verdicts on each process of the items that can be compared image by image."""
        found: dict[str, tuple[ImageVerdicts, ...]] = {}
        for key in old.keys() & new.keys():
            before, after = old[key], new[key]
            dataset = before[0].info.dataset
            counted = all(has_counts(b.info) and not counts_problem(b.info) for b in (*before, *after))
            if dataset and counted and not self._differences(before, after):
                limits = self._limits(before, after)
                found[key] = tuple(judge_images(dataset, b.info, limits) for b in after)
        return found

    @cached_property
    def _nodes(self) -> dict[str, str]:
        """Node ids of the baseline, by key; none if an item that both have is elsewhere in one of them."""
        nodes = self.baseline[0].nodes
        alike = all(nodes.get(key, node) == node for run in self.current for key, node in run.nodes.items())
        return nodes if alike else {}

    @cached_property
    def _apart_s(self) -> float:
        """Seconds between the runs that are furthest apart."""
        return max(seconds_between(old.record, new.record) for old in self.baseline for new in self.current)

    def leaves_out(self, info: BenchmarkRecord) -> bool:
        """Return whether the command line left an item of the baseline out of the current runs."""
        return all(run.leaves_out(info, self._nodes.get(info.key)) for run in self.current)

    def known_item(self, key: str, before: Item, after: Item, images: Sequence[ImageVerdicts] = ()) -> Iterator[Row]:
        """Yield the rows of an item in the baseline; `images` are its verdicts from `image_verdicts`."""
        if not after:
            problem: str | None = LEFT_OUT if self.require_all else NOTHING_SELECTED
            if not self.leaves_out(before[0].info):
                problem = _why_missing(before[0].info, self.current)
        else:
            problem = _problem(before, self.baseline, "baseline") or _problem(after, self.current, "current run")
            if not problem and (gain := implausible_gain(before, after)):
                problem = f"the current run has impossible times: {gain}"
        if problem:
            yield Row(key, "item", "missing", problem)
            return
        info, limits = after[0].info, self._limits(before, after)
        if differences := self._differences(before, after):
            yield Row(key, "item", "incomparable", "; ".join(differences))
        elif before[0].info.kind in TIMED:
            known, curve = self.noise.get(info.key), self.curves.get(key)
            yield from judge_change(before, after, info.key, limits, known, curve, self._apart_s)
        elif images:
            yield from _worst_by_aspect(row for verdicts in images for row in verdicts.rows)
        else:
            yield from _worst_by_aspect(row for b in after for row in self._accuracy(before[0].info, b.info, limits))
        if not self.accept:
            yield from judge_loosened(before[0].info, info, self.defaults)
        yield from self._absolute(before, after)

    def new_item(self, key: str, after: Item) -> Iterator[Row]:
        """Yield the rows of an item that is not in the baseline: only absolute limits apply."""
        if problem := _problem(after, self.current, "current run"):
            yield Row(key, "item", "missing", problem)
        else:
            yield from self._absolute((), after)

    def _accuracy(self, before: BenchmarkRecord, after: BenchmarkRecord, limits: Limits) -> Iterator[Row]:
        yield from judge_scores(before, after, limits)
        if before.key in self.drift and (self.judges_any_drift or not other_weights(before, after)):
            yield judge_drift(after, self.drift[before.key], limits)
        else:
            yield from judge_dominant(before, after)

    def _absolute(self, before: Item, after: Item) -> Iterator[Row]:
        if after[0].info.kind in TIMED:
            limits = self._limits(before, after)
            yield from judge_absolute(after, limits, self.noise.get(after[0].info.key))
            comparable = not before or not self._differences(before, after)
            yield from judge_item(before, after, limits, comparable=comparable)
        yield from _worst_by_aspect(row for b in after for row in judge_expectations(b.info))

    def _limits(self, before: Item, after: Item) -> Limits:
        return self.limits(before[0].info if before else None, after[0].info)

    def limits(self, before: BenchmarkRecord | None, after: BenchmarkRecord) -> Limits:
        """Return the limits of an item by its records in both runs, or in the current one."""
        return limits_of(before, after, self.defaults, accept=self.accept)

    def _differences(self, before: Item, after: Item) -> list[str]:
        """Return what makes the item incomparable between any two of the processes."""
        first, timed = before[0].info, before[0].info.kind in TIMED
        found = [d for b in (*before[1:], *after) for d in item_differences(first, b.info, speed=timed)]
        if timed:
            machine = self.baseline[0].record.machine
            for run in (*self.baseline[1:], *self.current):
                found += machine_differences(machine, run.record.machine)
        return list(dict.fromkeys(found))


def seconds_between(one: RunRecord, other: RunRecord) -> float:
    """Return the seconds between the starts of two runs; infinity if one does not say when it started."""
    try:
        first, second = (datetime.fromisoformat(run.started) for run in (one, other))
        return abs((second - first).total_seconds())
    except (ValueError, TypeError):  # not a date; only one has a time zone
        return math.inf


def _by_key(runs: Sequence[Run]) -> dict[str, Item]:
    found: dict[str, Item] = {}
    for run in runs:
        for benchmark in run.benchmarks:
            found[benchmark.info.key] = (*found.get(benchmark.info.key, ()), benchmark)
    return found


def _moved(old: Mapping[str, Item], new: Mapping[str, Item]) -> dict[str, str]:
    """Pair the items of runs that have none in common, where just the instrument differs: incomparable, not missing.

    If the runs share an item, an absent one was dropped, whatever new one resembles it.
    """
    if old.keys() & new.keys():
        return {}

    def by_work(items: Mapping[str, Item]) -> dict[tuple[object, ...], list[str]]:
        found: dict[tuple[object, ...], list[str]] = {}
        for key, item in items.items():
            info = item[0].info
            work = (info.kind, info.case, info.model, info.size, info.batch, info.scenario)
            found.setdefault(work, []).append(key)
        return found

    others = by_work(new)
    pairs = [(keys, others.get(work, [])) for work, keys in by_work(old).items()]
    return {keys[0]: found[0] for keys, found in pairs if len(keys) == len(found) == 1}


def _problem(item: Item, runs: Sequence[Run], which: str) -> str | None:
    """Return why the records of an item cannot be judged; None if they can."""
    if len(item) < len(runs):
        return f"only {len(item)} of the {len(runs)} processes of the {which} have it"
    for run, benchmark in zip(runs, item, strict=True):
        if not usable(benchmark.all_samples):
            return f"the {which} has no times, or one that is not a positive number"
        if problem := implausible_rate(benchmark, run.record):
            return f"the {which} has impossible times: {problem}"
        if benchmark.info.kind not in TIMED and benchmark.info.accuracy is None:
            return f"the {which} has no accuracy for it"
        if problem := counts_problem(benchmark.info):
            return f"the {which} contradicts itself: {problem}"
    return None


def _why_missing(info: BenchmarkRecord, current: Sequence[Run]) -> str:
    for outcome in _outcomes(current):
        if outcome.key == info.key and outcome.skipped_by_case:
            return f"skipped by its case: {outcome.reason}; {ACCEPT}"
        if outcome.key == info.key:
            return f"{outcome.outcome} in the current run: {outcome.reason or 'no reason recorded'}"
    interrupted = not all(run.record.complete for run in current)
    return "the current run does not have it" + (": it was interrupted" if interrupted else f"; {ACCEPT}")


def _failures(baseline: Sequence[Run], current: Sequence[Run], rows: Sequence[Row]) -> Iterator[Row]:
    """Yield a row for each item that failed, broke, or passed before and was skipped now, unless it has a bad row."""
    bad = {row.item for row in rows if row.verdict in ("regressed", "missing")}
    judged = {row.item for row in rows}
    passed = {outcome.key for outcome in _outcomes(baseline) if outcome.outcome == "passed"} & judged
    for outcome in _outcomes(current):
        item = outcome.key or outcome.item
        skipped = outcome.outcome == "skipped" and outcome.key in passed  # after it was measured, as with xfail
        if (skipped or outcome.outcome in ("failed", "error")) and item not in bad:
            bad.add(item)
            verdict: Verdict = "regressed" if outcome.outcome == "failed" else "missing"
            yield Row(item, "outcome", verdict, f"{outcome.outcome}: {outcome.reason or 'no reason recorded'}")


def _outcomes(runs: Sequence[Run]) -> Iterable[OutcomeRecord]:
    return (outcome for run in runs for outcome in run.record.outcomes)


def _worst_by_aspect(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield, of the rows of several processes, the worst of each aspect."""
    by_aspect: dict[str, list[Row]] = {}
    for row in rows:
        by_aspect.setdefault(row.aspect, []).append(row)
    return (worst(same) for same in by_aspect.values())


def _unjudged_drift(
    pairs: Mapping[str, tuple[Benchmark, Benchmark]], drift: Mapping[str, Drift | str]
) -> Iterator[str]:
    """Yield the drift between different weights, which is shown and not judged."""
    shown = [
        f"{key} {found if isinstance(found, str) else f'{found.changed:.2%}'}"
        for key, found in drift.items()
        if key in pairs and other_weights(*(benchmark.info for benchmark in pairs[key]))
    ]
    if shown:
        yield f"changed pixels, not judged between different weights: {', '.join(shown)}"


def _loosened(pairs: Mapping[str, tuple[Benchmark, Benchmark]], defaults: Limits) -> Iterator[str]:
    found = {
        f"{key} {aspect}: {words}"
        for key, (before, after) in pairs.items()
        for aspect, words in loosened(before.info, after.info, defaults)
    }
    yield from _listed("loosened by the change, which was accepted", sorted(found))


def _listed(what: str, keys: Sequence[str]) -> Iterator[str]:
    if keys:
        yield f"{what}: {', '.join(keys)}"


def _notes(baseline: Sequence[Run], current: Sequence[Run]) -> Iterator[str]:
    for runs, which in ((baseline, "baseline"), (current, "current run")):
        for run in runs:
            if not run.record.complete:
                yield f"the {which} {run.name} was interrupted and is incomplete"
            for warning in run.record.warnings:
                yield f"the {which} {run.name}: {warning.text}"
