"""Judge accuracy of one item: expectations, IoU and mIoU against the baseline, and drift.

A prediction is a deterministic function of photo, weights and code, so there is no interval: any drop beyond the limit
is a regression.
"""

from __future__ import annotations

from collections.abc import Iterator

from segcore.core.limits import Limits
from segcore.core.records import BenchmarkRecord
from segcore.judgement.drift import Drift
from segcore.judgement.gate.verdict import Row, Verdict
from segcore.judgement.statistics import Interval


def judge_expectations(info: BenchmarkRecord) -> Iterator[Row]:
    """Yield a row for each check of the current run: a failed one has regressed, with or without a baseline."""
    for check in info.accuracy.checks if info.accuracy else ():
        verdict: Verdict = "pass" if check.passed else "regressed"
        yield Row(info.key, check.name, verdict, f"found {check.found}", limit=check.wanted)


def judge_scores(old: BenchmarkRecord, new: BenchmarkRecord, limits: Limits) -> Iterator[Row]:
    """Yield a row for each score of the baseline: did it fall by more than allowed?"""
    before, after = (record.accuracy.scores if record.accuracy else {} for record in (old, new))
    for name, value in before.items():
        found = after.get(name)
        allowed = limits.max_miou_drop if name == "mIoU" else limits.max_iou_drop
        if found is None:
            yield Row(new.key, name, "missing", "not in the current run", "share", value)
            continue
        drop = value - found
        yield Row(
            item=new.key,
            aspect=name,
            verdict="regressed" if drop > allowed else "improved" if drop < 0 else "pass",
            reason=f"{found - value:+.4f}",
            unit="share",
            old=value,
            new=found,
            change=Interval(-drop, -drop, -drop),
            limit=f"{-allowed:+.3f}",
        )


def judge_drift(info: BenchmarkRecord, drift: Drift | str, limits: Limits) -> Row:
    """Return the row for the share of pixels whose class changed; a string is the reason why it is unknown."""
    if isinstance(drift, str):
        return Row(info.key, "changed pixels", "missing", drift)
    return Row(
        item=info.key,
        aspect="changed pixels",
        verdict="pass" if drift.real <= limits.max_drift else "regressed",
        reason=f"{drift.changed:.2%} changed: {drift.numeric:.2%} numeric noise (small margin), {drift.real:.2%} real",
        unit="share",
        new=drift.real,
        limit=f"<= {limits.max_drift:.2%}",
    )


def judge_dominant(old: BenchmarkRecord, new: BenchmarkRecord) -> Iterator[Row]:
    """Yield a row for the dominant class, unless there are expectations, which say more."""
    if old.accuracy and new.accuracy and not new.accuracy.checks:
        before, after = old.accuracy.dominant, new.accuracy.dominant
        yield Row(new.key, "dominant class", "pass" if before == after else "regressed", f"was {before}, is {after}")
