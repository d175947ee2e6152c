"""The limits and checks that a change is judged by, which it cannot loosen itself.

Those of the baseline hold as well as those of the current run. What the change loosens or drops is a regression, unless
the user accepts it: then those of the current run alone hold, and a note says what has become looser.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from segcore.core.limits import BUDGETS, Limits
from segcore.core.records import TIMED, BenchmarkRecord, Run
from segcore.judgement.gate.verdict import Row

ACCEPT = "--accept-changed-limits accepts that"
_ACCURACY_LIMITS = ("max_iou_drop", "max_miou_drop", "max_drift", "max_parity_drift")


def limits_of(before: BenchmarkRecord | None, after: BenchmarkRecord, defaults: Limits, *, accept: bool) -> Limits:
    """Return the limits of an item: the stricter ones of both runs, or those of the current run."""
    limits = after.limits.over(defaults)
    return limits if before is None or accept else limits.stricter(before.limits.over(defaults))


def loosened(before: BenchmarkRecord, after: BenchmarkRecord, defaults: Limits) -> Iterator[tuple[str, str]]:
    """Yield what a change loosens of the limits that apply to an item and of its checks: aspect, and how in words."""
    absolute = "min_throughput" if before.kind == "throughput" else "max_latency_ms"
    names = (*(("max_slowdown", absolute) if before.kind in TIMED else _ACCURACY_LIMITS), *BUDGETS)
    looser = after.limits.over(defaults).looser_than(before.limits.over(defaults), names)
    if looser:
        yield "limits", "; ".join(looser)
    old, new = ({check.name: check for check in r.accuracy.checks} if r.accuracy else {} for r in (before, after))
    for name, check in old.items():
        if name not in new:
            yield name, f"{check.wanted} was wanted, is not checked"
        elif new[name].loosens(check):
            yield name, f"{check.wanted} was wanted, is {new[name].wanted}"


def judge_loosened(before: BenchmarkRecord, after: BenchmarkRecord, defaults: Limits) -> Iterator[Row]:
    """Yield a row for what a change loosens."""
    for aspect, words in loosened(before, after, defaults):
        yield Row(after.key, aspect, "regressed", f"loosened by the change: {words}; {ACCEPT}")


def is_dropped(key: str, current: Sequence[Run]) -> bool:
    """Return whether an absent item was not collected, or skipped because its case says so, in each complete run."""
    found = [next((outcome for outcome in run.record.outcomes if outcome.key == key), None) for run in current]
    complete = all(run.record.complete for run in current)
    return complete and all(outcome is None or outcome.skipped_by_case for outcome in found)
