"""Judge latency and throughput of one item from the raw samples of one or several processes per arm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from segcore.core.limits import Limits
from segcore.core.records import BenchmarkRecord
from segcore.judgement.estimate import Arm, Estimate, estimate, run_log_quantile
from segcore.judgement.gate.verdict import Row, Verdict
from segcore.judgement.statistics import (
    Interval,
    ProcessNoise,
    bounds_quantile,
    processes_needed,
    quantile_name,
    rounds_needed,
)


def judge_change(
    base: Arm, head: Arm, info: BenchmarkRecord, limits: Limits, known: ProcessNoise | None
) -> Iterator[Row]:
    """Yield a row for each quantile with a limit: has it become slower than allowed?

    Args:
        base: the item in the runs of the baseline.
        head: the item in the current runs.
        info: the item.
        limits: on the slowdown.
        known: noise from run to run, if it is given or learned.
    """
    for q, allowed in limits.slowdowns.items():
        found, verdict, reason = _judge((base, head), q, math.log1p(allowed), known)
        change = found.interval
        yield Row(
            item=info.key,
            aspect=quantile_name(q),
            verdict="improved" if verdict == "pass" and change.high < 0 else verdict,
            reason=reason,
            unit="ms",
            old=1e3 * math.exp(_mean_log_quantile(base, q)),
            new=1e3 * math.exp(_mean_log_quantile(head, q)),
            change=Interval(*map(_relative, change.bounds)),
            limit=f"{allowed:+.1%}",
            rounds=_rounds_wanted(head, q) if verdict == "inconclusive" else None,
        )


def judge_absolute(head: Arm, info: BenchmarkRecord, limits: Limits, known: ProcessNoise | None) -> Iterator[Row]:
    """Yield a row for each absolute limit: throughput items have one on throughput, the others on latency.

    A limit that every round breaks is broken, however few rounds there are. Arguments as for `judge_change`.
    """
    per_second = info.kind == "throughput"
    bounds = [(q, ms / 1e3, f"<= {ms:g} ms") for q, ms in limits.latencies_ms.items() if not per_second]
    if limits.min_throughput is not None and per_second:
        bounds.append((0.5, info.batch / limits.min_throughput, f">= {limits.min_throughput:g} images/s"))
    for q, longest_s, limit in bounds:
        found, verdict, reason = _judge((head,), q, math.log(longest_s), known)
        if min(min(item.all_samples) for item in head) > longest_s:
            verdict, reason = "regressed", "every round is beyond the limit"
        seconds = math.exp(found.interval.value)
        yield Row(
            item=info.key,
            aspect="throughput" if per_second else f"{quantile_name(q)} latency",
            verdict=verdict,
            reason=reason,
            unit="images/s" if per_second else "ms",
            new=info.batch / seconds if per_second else 1e3 * seconds,
            limit=limit,
            rounds=_rounds_wanted(head, q) if verdict == "inconclusive" else None,
        )


def _judge(arms: Sequence[Arm], q: float, limit: float, known: ProcessNoise | None) -> tuple[Estimate, Verdict, str]:
    """Return the estimate, the verdict on it, and the reason; `limit` is a logarithm."""
    found = estimate(arms, q, known)
    if found.interval.low > limit:
        return found, "regressed", found.reason
    if found.interval.high <= limit:
        return found, "pass", found.reason
    rounds = min(len(item.all_samples) for arm in arms for item in arm)
    if not math.isfinite(found.interval.low + found.interval.high):
        needed = max(rounds_needed(q), rounds + 1)
        reason = (
            f"{rounds} rounds cannot bound the {quantile_name(q)}: about {needed} would, more if they are correlated"
        )
        return found, "inconclusive", reason
    return found, "inconclusive", f"{_missing_evidence(found, limit, rounds)}; {found.reason}"


def _rounds_wanted(head: Arm, q: float) -> int | None:
    """Return how many rounds of each process would bound a quantile, None if there are enough.

    The median of several processes needs no more of them.
    """
    samples = [item.all_samples for item in head]
    processes = min(len(item.processes) for item in head)
    if (q == 0.5 and processes > 1) or all(bounds_quantile(each, q) for each in samples):
        return None
    return math.ceil(max(rounds_needed(q), min(map(len, samples)) + 1) / processes)


def _missing_evidence(found: Estimate, limit: float, rounds: int) -> str:
    """Return what would decide: more rounds, more processes, or neither."""
    full, within = found.interval, found.within
    distance = abs(limit - full.value)
    total, inner = (
        (full.high - full.value, within.high - within.value)
        if full.value < limit
        else (full.value - full.low, within.value - within.low)
    )
    between = math.sqrt(max(0.0, total**2 - inner**2))
    if distance > between:
        needed = math.ceil(rounds * inner**2 / (distance**2 - between**2))
        return f"about {max(1, needed - rounds)} more rounds would decide, at the spread of these {rounds}"
    if found.run_noise:
        return "a run on each side cannot decide: measure both in turns, in the paired gate (--against)"
    processes = processes_needed(distance, found.noise)
    if processes is None:
        return "too near the limit for any number of rounds or processes"
    return (
        f"more rounds in one process cannot decide: about {processes} processes of each would, "
        "or the paired gate (--against)"
    )


def _relative(log_ratio: float) -> float:
    """Return a ratio minus one; an infinite bound stays infinite."""
    return math.expm1(log_ratio) if abs(log_ratio) < 700 else log_ratio


def _mean_log_quantile(arm: Arm, q: float) -> float:
    return sum(run_log_quantile(item, q) for item in arm) / len(arm)
