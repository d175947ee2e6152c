"""The gate: runs in, verdicts out; a pure function that fails closed.

Every item of the baseline gets at least one row, and whatever cannot be judged says so in a verdict that is no pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from segcore.core.errors import UsageError
from segcore.core.limits import Limits
from segcore.core.records import Benchmark, BenchmarkRecord, OutcomeRecord, Run
from segcore.judgement.drift import Drift
from segcore.judgement.gate.accuracy import judge_dominant, judge_drift, judge_expectations, judge_scores
from segcore.judgement.gate.comparable import item_differences, machine_differences
from segcore.judgement.gate.speed import judge_absolute, judge_change
from segcore.judgement.gate.verdict import GateResult, Row, Verdict, worst
from segcore.judgement.statistics import ProcessNoise, assumed_noise, usable

__all__ = ["GateResult", "Row", "Verdict", "judge"]

TIMED = ("latency", "throughput")
"""Kinds whose samples are judged; how long the others took is beside their point."""

Arm = tuple[Benchmark, ...]
"""One item in every process of an arm."""


def judge(
    baseline: Sequence[Run],
    current: Sequence[Run],
    defaults: Limits,
    *,
    noise: Mapping[str, ProcessNoise] | None = None,
    drift: Mapping[str, Drift | str] | None = None,
) -> GateResult:
    """Hold the current run against the baseline, each of them one run or several processes of it.

    Args:
        baseline: at least one run.
        current: at least one run.
        defaults: limits for what a case leaves open.
        noise: what is known of the noise between processes, by `BenchmarkRecord.key`; assumed where it is not.
        drift: what became of the stored class maps, by key: see `segcore.judgement.drift.run_drift`.

    Raises:
        UsageError: there is nothing to judge.
    """
    old, new = _by_key(baseline), _by_key(current)
    if not old and not new:
        raise UsageError(f"nothing to judge: neither {baseline[0].path} nor {current[0].path} has an item of segcore")
    moved = _moved(old, new)
    fresh = [key for key in new if key not in old and key not in moved.values()]
    judging = _Judging(baseline, current, defaults, noise or {}, drift or {})
    rows: list[Row] = []
    for key, before in old.items():
        rows += judging.known(key, before, new.get(moved.get(key, key), ()))
    for key in fresh:
        rows += judging.fresh(key, new[key])
    rows += _ended_badly(current, rows)
    return GateResult(baseline[0].name, current[0].name, tuple(rows), tuple(_notes(baseline, current, fresh)))


@dataclass(frozen=True)
class _Judging:
    """One item at a time, with what all of them have in common."""

    baseline: Sequence[Run]
    current: Sequence[Run]
    defaults: Limits
    noise: Mapping[str, ProcessNoise]
    drift: Mapping[str, Drift | str]

    def known(self, key: str, before: Arm, after: Arm) -> Iterator[Row]:
        """Yield the rows of an item that the baseline has."""
        problem = _problem(before, self.baseline, "baseline") or _problem(after, self.current, "current run")
        if not after:
            problem = _why_missing(key, self.current)
        if problem:
            yield Row(key, "item", "missing", problem)
            return
        differences = self._differences(before, after)
        if differences:
            yield Row(key, "item", "incomparable", "; ".join(differences))
        elif before[0].info.kind in TIMED:
            limits, noise = self._known(after)
            yield from judge_change(_samples(before), _samples(after), after[0].info, limits, noise)
        else:
            yield from _worst_of_each(row for b in after for row in self._accuracy(before[0].info, b.info))
        yield from self._absolute(after)

    def fresh(self, key: str, after: Arm) -> Iterator[Row]:
        """Yield the rows of an item that the baseline does not have: only absolute limits apply."""
        problem = _problem(after, self.current, "current run")
        if problem:
            yield Row(key, "item", "missing", problem)
        else:
            yield from self._absolute(after)

    def _accuracy(self, before: BenchmarkRecord, after: BenchmarkRecord) -> Iterator[Row]:
        limits = after.limits.over(self.defaults)
        yield from judge_scores(before, after, limits)
        if before.key in self.drift:
            yield judge_drift(after, self.drift[before.key], limits)
        else:
            yield from judge_dominant(before, after)

    def _absolute(self, after: Arm) -> Iterator[Row]:
        if after[0].info.kind in TIMED:
            yield from judge_absolute(_samples(after), after[0].info, *self._known(after))
        yield from _worst_of_each(row for b in after for row in judge_expectations(b.info))

    def _known(self, after: Arm) -> tuple[Limits, ProcessNoise]:
        info = after[0].info
        return info.limits.over(self.defaults), self.noise.get(info.key) or assumed_noise(info.device)

    def _differences(self, before: Arm, after: Arm) -> list[str]:
        """Return, in words, what makes the item incomparable between any two of the processes."""
        first, timed = before[0].info, before[0].info.kind in TIMED
        found = [d for b in (*before[1:], *after) for d in item_differences(first, b.info, speed=timed)]
        if timed:
            machine = self.baseline[0].record.machine
            for run in (*self.baseline[1:], *self.current):
                found += machine_differences(machine, run.record.machine)
        return list(dict.fromkeys(found))


def _by_key(runs: Sequence[Run]) -> dict[str, Arm]:
    found: dict[str, Arm] = {}
    for run in runs:
        for benchmark in run.benchmarks:
            found[benchmark.info.key] = (*found.get(benchmark.info.key, ()), benchmark)
    return found


def _samples(arm: Arm) -> list[tuple[float, ...]]:
    return [benchmark.samples for benchmark in arm]


def _moved(old: Mapping[str, Arm], new: Mapping[str, Arm]) -> dict[str, str]:
    """Pair items of one arm alone that differ in device, runtime, precision or threads: incomparable, not missing."""

    def same(info: BenchmarkRecord) -> tuple[object, ...]:
        return (info.kind, info.case, info.model, info.size, info.batch)

    free = {same(arm[0].info): key for key, arm in new.items() if key not in old}
    return {key: free[same(arm[0].info)] for key, arm in old.items() if key not in new and same(arm[0].info) in free}


def _problem(arm: Arm, runs: Sequence[Run], which: str) -> str | None:
    """Say why the records of an item cannot be judged; None if they can."""
    if len(arm) < len(runs):
        return f"only {len(arm)} of the {len(runs)} processes of the {which} have it"
    for benchmark in arm:
        if not usable(benchmark.samples):
            return f"the {which} has a time that is not a positive number, or none"
        if benchmark.info.kind not in TIMED and benchmark.info.accuracy is None:
            return f"the {which} has no accuracy for it"
    return None


def _why_missing(key: str, current: Sequence[Run]) -> str:
    for outcome in _outcomes(current):
        if outcome.key == key:
            return f"{outcome.outcome} in the current run: {outcome.reason or 'no reason recorded'}"
    return "the current run does not have it" + (
        "" if all(run.record.complete for run in current) else ": it was interrupted"
    )


def _ended_badly(current: Sequence[Run], rows: Sequence[Row]) -> Iterator[Row]:
    """Yield a row for every item that failed or ended in error and has no bad row yet."""
    known = {row.item for row in rows if row.verdict in ("regressed", "missing")}
    for outcome in _outcomes(current):
        item = outcome.key or outcome.item
        if outcome.outcome in ("failed", "error") and item not in known:
            known.add(item)
            verdict: Verdict = "regressed" if outcome.outcome == "failed" else "missing"
            yield Row(item, "outcome", verdict, f"{outcome.outcome}: {outcome.reason or 'no reason recorded'}")


def _outcomes(runs: Sequence[Run]) -> Iterable[OutcomeRecord]:
    return (outcome for run in runs for outcome in run.record.outcomes)


def _worst_of_each(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield, of several processes' rows, the worst of each aspect."""
    by_aspect: dict[str, list[Row]] = {}
    for row in rows:
        by_aspect.setdefault(row.aspect, []).append(row)
    return (worst(same) for same in by_aspect.values())


def _notes(baseline: Sequence[Run], current: Sequence[Run], fresh: Sequence[str]) -> Iterator[str]:
    """Yield what a reader must know besides the rows."""
    if fresh:
        yield f"new, with no baseline to be held against: {', '.join(fresh)}"
    for runs, which in ((baseline, "baseline"), (current, "current run")):
        for run in runs:
            if not run.record.complete:
                yield f"the {which} {run.name} was interrupted: it has what was measured by then"
            for warning in run.record.warnings:
                yield f"the {which} {run.name}: {warning.text}"
