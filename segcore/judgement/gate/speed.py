"""Judging latency and throughput of one item, from the raw samples of one or several processes per arm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from segcore.core.limits import Limits
from segcore.core.records import BenchmarkRecord
from segcore.judgement.gate.verdict import Row, Verdict
from segcore.judgement.statistics import (
    Interval,
    ProcessNoise,
    arm_interval,
    change_interval,
    log_quantile,
    measured_noise,
    processes_needed,
    quantile_name,
    rounds_needed,
)

Arm = Sequence[Sequence[float]]
"""Samples of each process, in seconds."""
_QUIET = ProcessNoise(sd=0.0, df=math.inf, source="none")


def judge_change(base: Arm, head: Arm, info: BenchmarkRecord, limits: Limits, noise: ProcessNoise) -> Iterator[Row]:
    """Yield a row for each quantile that has a limit: has it become slower than allowed?"""
    for q, allowed in limits.slowdowns.items():
        used = _noise((base, head), q, noise)
        change = change_interval(base, head, q, used)
        verdict = _held_against(change, math.log1p(allowed))
        yield Row(
            item=info.key,
            aspect=quantile_name(q),
            verdict="improved" if verdict == "pass" and change.high < 0 else verdict,
            reason=_reason(change, change_interval(base, head, q, _QUIET), math.log1p(allowed), q, (base, head), used),
            unit="ms",
            old=1e3 * math.exp(_centre(base, q)),
            new=1e3 * math.exp(_centre(head, q)),
            change=Interval(*map(_relative, (change.low, change.value, change.high))),
            limit=f"{allowed:+.1%}",
        )


def judge_absolute(head: Arm, info: BenchmarkRecord, limits: Limits, noise: ProcessNoise) -> Iterator[Row]:
    """Yield a row for each absolute limit on latency or throughput; no baseline is needed."""
    bounds = [(q, ms / 1e3, f"<= {ms:g} ms") for q, ms in limits.latencies_ms.items()]
    if limits.min_throughput is not None:
        bounds.append((0.5, info.batch / limits.min_throughput, f">= {limits.min_throughput:g} images/s"))
    for q, longest_s, words in bounds:
        used = _noise((head,), q, noise)
        found = arm_interval(head, q, used)
        reason = _reason(found, arm_interval(head, q, _QUIET), math.log(longest_s), q, (head,), used)
        per_second = words.endswith("images/s")
        seconds = math.exp(found.value)
        yield Row(
            item=info.key,
            aspect="throughput" if per_second else f"{quantile_name(q)} latency",
            verdict=_held_against(found, math.log(longest_s)),
            reason=reason,
            unit="images/s" if per_second else "ms",
            new=info.batch / seconds if per_second else 1e3 * seconds,
            limit=words,
        )


def _held_against(interval: Interval, limit: float) -> Verdict:
    if interval.low > limit:
        return "regressed"
    return "pass" if interval.high <= limit else "inconclusive"


def _relative(log_ratio: float) -> float:
    """Return a ratio minus one; a bound that does not exist stays infinite."""
    return math.expm1(log_ratio) if abs(log_ratio) < 700 else log_ratio


def _centre(arm: Arm, q: float) -> float:
    return sum(log_quantile(samples, q) for samples in arm) / len(arm)


def _noise(arms: Sequence[Arm], q: float, otherwise: ProcessNoise) -> ProcessNoise:
    return measured_noise([[log_quantile(samples, q) for samples in arm] for arm in arms]) or otherwise


def _reason(full: Interval, within: Interval, limit: float, q: float, arms: Sequence[Arm], noise: ProcessNoise) -> str:
    """Say which noise was reckoned with and, of an interval that straddles its limit, what would decide."""
    known = f"noise between processes {noise.sd:.1%}, {noise.source}"
    if _held_against(full, limit) != "inconclusive":
        return known
    rounds = min(len(samples) for arm in arms for samples in arm)
    if not math.isfinite(full.low + full.high):
        needed = max(rounds_needed(q), rounds + 1)
        return f"{rounds} rounds cannot bound the {quantile_name(q)}: about {needed} would, more if they are correlated"
    distance = abs(limit - full.value)
    total, inner = (
        (full.high - full.value, within.high - within.value)
        if full.value < limit
        else (full.value - full.low, within.value - within.low)
    )
    between = math.sqrt(max(0.0, total**2 - inner**2))
    if distance > between:
        needed = math.ceil(rounds * inner**2 / (distance**2 - between**2))
        return f"about {max(1, needed - rounds)} more rounds would decide, at the spread of these {rounds}; {known}"
    processes = processes_needed(distance, noise)
    if processes is None:
        return f"too near the limit for any number of rounds or processes; {known}"
    return (
        f"more rounds in one process cannot decide: about {processes} processes of each would, "
        f"or the paired gate (--against); {known}"
    )
