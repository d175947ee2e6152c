"""Judge latency and throughput of one item from the raw samples of one or several processes per arm."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from segcore.core.limits import Limits
from segcore.core.records import BenchmarkRecord
from segcore.judgement.gate.verdict import Row, Verdict
from segcore.judgement.statistics import (
    Interval,
    Processes,
    ProcessNoise,
    arm_interval,
    change_interval,
    log_quantile,
    measured_noise,
    processes_needed,
    quantile_name,
    rounds_needed,
)

_NO_NOISE = ProcessNoise(sd=0.0, df=math.inf, source="none")


def judge_change(
    base: Processes, head: Processes, info: BenchmarkRecord, limits: Limits, noise: ProcessNoise
) -> Iterator[Row]:
    """Yield a row for each quantile with a limit: has it become slower than allowed?

    Args:
        base: samples of the baseline.
        head: samples of the current run.
        info: the item.
        limits: on the slowdown.
        noise: between processes, used if the arms have too few processes to measure it.
    """
    for q, allowed in limits.slowdowns.items():
        estimate = partial(change_interval, base, head, q)
        change, verdict, reason = _judge((base, head), q, estimate, math.log1p(allowed), noise)
        yield Row(
            item=info.key,
            aspect=quantile_name(q),
            verdict="improved" if verdict == "pass" and change.high < 0 else verdict,
            reason=reason,
            unit="ms",
            old=1e3 * math.exp(_mean_log_quantile(base, q)),
            new=1e3 * math.exp(_mean_log_quantile(head, q)),
            change=Interval(*map(_relative, (change.low, change.value, change.high))),
            limit=f"{allowed:+.1%}",
        )


def judge_absolute(head: Processes, info: BenchmarkRecord, limits: Limits, noise: ProcessNoise) -> Iterator[Row]:
    """Yield a row for each absolute limit: throughput items have one on throughput, the others on latency.

    A limit that every round breaks is broken, however few rounds there are. Arguments as for `judge_change`.
    """
    per_second = info.kind == "throughput"
    bounds = [(q, ms / 1e3, f"<= {ms:g} ms") for q, ms in limits.latencies_ms.items() if not per_second]
    if limits.min_throughput is not None and per_second:
        bounds.append((0.5, info.batch / limits.min_throughput, f">= {limits.min_throughput:g} images/s"))
    for q, longest_s, limit in bounds:
        found, verdict, reason = _judge((head,), q, partial(arm_interval, head, q), math.log(longest_s), noise)
        if min(map(min, head)) > longest_s:
            verdict, reason = "regressed", "every round is beyond the limit"
        seconds = math.exp(found.value)
        yield Row(
            item=info.key,
            aspect="throughput" if per_second else f"{quantile_name(q)} latency",
            verdict=verdict,
            reason=reason,
            unit="images/s" if per_second else "ms",
            new=info.batch / seconds if per_second else 1e3 * seconds,
            limit=limit,
        )


def _judge(
    arms: Sequence[Processes],
    q: float,
    estimate: Callable[[ProcessNoise], Interval],
    limit: float,
    otherwise: ProcessNoise,
) -> tuple[Interval, Verdict, str]:
    """Return the interval with process noise, the verdict on it, and the reason; `limit` is a logarithm."""
    noise = measured_noise([[log_quantile(samples, q) for samples in arm] for arm in arms]) or otherwise
    interval = estimate(noise)
    reason = f"noise between processes {noise.sd:.1%}, {noise.source}"
    if interval.low > limit:
        return interval, "regressed", reason
    if interval.high <= limit:
        return interval, "pass", reason
    rounds = min(len(samples) for arm in arms for samples in arm)
    if not math.isfinite(interval.low + interval.high):
        needed = max(rounds_needed(q), rounds + 1)
        reason = (
            f"{rounds} rounds cannot bound the {quantile_name(q)}: about {needed} would, more if they are correlated"
        )
        return interval, "inconclusive", reason
    missing = _missing_evidence(interval, estimate(_NO_NOISE), limit, rounds, noise)
    return interval, "inconclusive", f"{missing}; {reason}"


def _missing_evidence(full: Interval, within: Interval, limit: float, rounds: int, noise: ProcessNoise) -> str:
    """Return what would decide: more rounds, more processes, or neither; `within` is without process noise."""
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
    processes = processes_needed(distance, noise)
    if processes is None:
        return "too near the limit for any number of rounds or processes"
    return (
        f"more rounds in one process cannot decide: about {processes} processes of each would, "
        "or the paired gate (--against)"
    )


def _relative(log_ratio: float) -> float:
    """Return a ratio minus one; an infinite bound stays infinite."""
    return math.expm1(log_ratio) if abs(log_ratio) < 700 else log_ratio


def _mean_log_quantile(arm: Processes, q: float) -> float:
    return sum(log_quantile(samples, q) for samples in arm) / len(arm)
