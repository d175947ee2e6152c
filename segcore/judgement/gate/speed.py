"""Judge latency and throughput of one item from the raw samples of one or several processes per arm.

Times that no machine reaches are refused: the item did not do its work, or the run file was edited.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from segcore.core.limits import Limits
from segcore.core.records import TIMED, Benchmark, RunRecord
from segcore.judgement.estimate import Arm, Estimate, estimate, run_log_quantile
from segcore.judgement.gate.verdict import Row, Verdict, decide
from segcore.judgement.reference import SpeedCurve
from segcore.judgement.statistics import (
    Interval,
    ProcessNoise,
    bounds_quantile,
    processes_needed,
    quantile_name,
    rounds_needed,
)

MAX_EFFICIENCY_FP32 = 10.0
"""More than any kernel exceeds the measured rates of plain matrix products and convolutions."""
MAX_EFFICIENCY_OTHERS = 100.0
"""Of other precisions, over fp32: tensor cores multiply 8-bit numbers some thirty times faster."""
MAX_GAIN = 100.0
"""More than an item becomes faster from one run to the next on the same machine."""


def judge_change(
    base: Arm,
    head: Arm,
    key: str,
    limits: Limits,
    known: ProcessNoise | None,
    curve: SpeedCurve | None = None,
    apart_s: float = 0.0,
) -> Iterator[Row]:
    """Yield a row for each quantile with a limit: has it become slower than allowed?

    `base` and `head` are the item in the runs of either side; `known` is the noise from run to run, given or learned,
    `curve` that of the two runs, if there is one, and `apart_s` the seconds between them.
    """
    for q, allowed in limits.slowdowns.items():
        found = estimate((base, head), q, known, curve, apart_s)
        verdict, reason = _decide(found, (base, head), q, math.log1p(allowed), improved_below=0.0)
        yield Row(
            item=key,
            aspect=quantile_name(q),
            verdict=verdict,
            reason=reason,
            unit="ms",
            old=1e3 * math.exp(_mean_log_quantile(base, q)),
            new=1e3 * math.exp(_mean_log_quantile(head, q)),
            change=Interval(*map(_relative, found.interval.bounds)),
            limit=f"{allowed:+.1%}",
            rounds=_rounds_wanted(head, q) if verdict == "inconclusive" else None,
        )


def judge_absolute(head: Arm, limits: Limits, known: ProcessNoise | None) -> Iterator[Row]:
    """Yield a row for each absolute limit: throughput items have one on throughput, the others on latency.

    A limit that every round breaks is broken, however few rounds there are. Arguments as for `judge_change`.
    """
    info = head[0].info
    per_second = info.kind == "throughput"
    bounds = [(q, ms / 1e3, f"<= {ms:g} ms") for q, ms in limits.latencies_ms.items() if not per_second]
    if limits.min_throughput is not None and per_second:
        bounds.append((0.5, info.batch / limits.min_throughput, f">= {limits.min_throughput:g} images/s"))
    for q, longest_s, limit in bounds:
        found = estimate((head,), q, known)
        verdict, reason = _decide(found, (head,), q, math.log(longest_s))
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


def _decide(
    found: Estimate, arms: Sequence[Arm], q: float, limit: float, improved_below: float = -math.inf
) -> tuple[Verdict, str]:
    """Return the verdict on an estimate of arms, and the reason; limits are logarithms."""
    verdict, reason = decide(found.interval, limit, improved_below), found.reason
    if verdict == "inconclusive":
        rounds = min(len(item.all_samples) for arm in arms for item in arm)
        if math.isfinite(found.interval.low + found.interval.high):
            reason = f"{_missing_evidence(found, limit, rounds)}; {reason}"
        else:
            needed = f"about {max(rounds_needed(q), rounds + 1)} would, more if they are correlated"
            reason = f"{rounds} rounds cannot bound the {quantile_name(q)}: {needed}"
    return verdict, reason


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
        return "a run on each side cannot decide: measure both in turns"
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


def implausible_gain(base: Arm, head: Arm) -> str:
    """Return what makes a timed item implausibly fast in `head`, whatever its run says of itself; empty if nothing."""
    if head[0].info.kind not in TIMED:
        return ""
    gain = math.exp(_mean_log_quantile(base, 0.5) - _mean_log_quantile(head, 0.5))
    return f"{gain:,.0f} times as fast as the baseline" if gain > MAX_GAIN else ""


def implausible_rate(benchmark: Benchmark, run: RunRecord) -> str:
    """Return what makes the times of an item implausible, by the peak rates of its run; empty if nothing does."""
    info = benchmark.info
    peak = run.peak_gmacs_per_s(info.device, "fp32")
    if info.kind not in ("latency", "throughput") or not info.gmacs or not peak:
        return ""
    rate = info.gmacs / min(benchmark.all_samples)
    if rate <= peak * (MAX_EFFICIENCY_FP32 if info.precision == "fp32" else MAX_EFFICIENCY_OTHERS):
        return ""
    return f"{rate:,.0f} GMAC/s in {info.precision}, of at most {peak:,.0f} measured in fp32"
