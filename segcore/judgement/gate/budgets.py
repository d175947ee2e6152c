"""Judge what is neither time per call nor accuracy: memory and energy of items; size, build and cold start of models.

Memory and sizes hardly differ from run to run, and are compared as they are. Energy, build time and cold start differ
like latency, and are judged by an interval on the logarithm: its noise is measured over the processes and runs that
have the figure, or else assumed, as for latency.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from statistics import median

from segcore.core.limits import Figure, Limits
from segcore.core.records import Benchmark, BenchmarkRecord, Run
from segcore.judgement.estimate import Arm
from segcore.judgement.gate.comparable import machine_differences
from segcore.judgement.gate.verdict import Row, Unit, Verdict, decide
from segcore.judgement.statistics import (
    MIN_MEASURED_DF,
    Interval,
    assumed_noise,
    assumed_run_noise,
    measured_noise,
    mover_difference,
    t_quantile,
)

Values = tuple[float, ...]
LimitsOf = Callable[[BenchmarkRecord | None, BenchmarkRecord], Limits]


@dataclass(frozen=True)
class _Budget:
    """One figure with its limits; values are in the unit of the limit."""

    figure: Figure
    aspect: str
    limit: str
    unit: Unit
    values: Callable[[Arm], Values]
    """Of the records of an arm, as far as they have any."""
    noisy: bool = True
    on_machine: bool = True


def _each(read: Callable[[BenchmarkRecord], float | None], factor: float = 1.0) -> Callable[[Arm], Values]:
    return lambda arm: tuple(factor * value for b in arm if (value := read(b.info)) is not None)


def _builds(arm: Arm) -> Values:
    """Return the seconds of each record that knows them: 0.0 if nothing was built, none if it was built some time."""
    seconds = (b.info.build_s or None if b.info.first_build_s is None else b.info.first_build_s for b in arm)
    return tuple(value for value in dict.fromkeys(seconds) if value is not None)


def _cold_starts(arm: Arm) -> Values:
    parts = ((b.info.cold_start_s, *(process.cold_start_s for process in b.info.processes)) for b in arm)
    return tuple(1e3 * value for values in parts for value in values if value is not None)


_OF_ITEMS = (
    _Budget("memory", "peak memory", "max_memory_mb", "MB", _each(lambda r: r.peak_memory_bytes, 1e-6), noisy=False),
    _Budget("energy", "energy per image", "max_joules_per_image", "J", _each(lambda r: r.joules_per_image)),
)
_SIZE = _each(lambda r: r.model_bytes, 1e-6)
_OF_MODELS = (
    _Budget("model", "model size", "max_model_mb", "MB", _SIZE, noisy=False, on_machine=False),
    _Budget("build", "build time", "max_build_s", "s", _builds),
    _Budget("cold_start", "cold start", "max_cold_start_ms", "ms", _cold_starts),
)


def judge_item(base: Arm, head: Arm, limits: Limits, *, comparable: bool = True) -> Iterator[Row]:
    """Yield a row for each budget of a timed item; `base` is empty if the item is new.

    If the runs are not `comparable`, only absolute limits are judged.
    """
    for budget in _OF_ITEMS:
        yield from _judge(budget, head[0].info.key, base, head, limits, comparable=comparable)


def judge_models(baseline: Sequence[Run], current: Sequence[Run], limits_of: LimitsOf) -> Iterator[Row]:
    """Yield a row for each budget of the models that were loaded in the current runs.

    `limits_of` returns the limits of an item by its records in both runs; the strictest of a model's items hold.
    """
    old, new = _by_model(baseline), _by_model(current)
    machine = baseline[0].record.machine
    same_machine = not any(machine_differences(machine, run.record.machine) for run in (*baseline[1:], *current))
    for name, head in new.items():
        base = old.get(name, ())
        before = {benchmark.info.key: benchmark.info for benchmark in base}
        every = (limits_of(before.get(benchmark.info.key), benchmark.info) for benchmark in head)
        limits = reduce(Limits.stricter, every)
        for budget in _OF_MODELS:
            comparable = same_machine or not budget.on_machine
            yield from _judge(budget, name, base, head, limits, comparable=comparable)


def _by_model(runs: Sequence[Run]) -> Mapping[str, Arm]:
    """Return the items of each loaded model, by for example ``model[embedded-openvino.int8-cpu]``."""
    found: dict[str, list[Benchmark]] = {}
    for benchmark in (benchmark for run in runs for benchmark in run.benchmarks):
        info = benchmark.info
        precision = "" if info.precision == "fp32" else f".{info.precision}"
        threads = f"-t{info.threads}" if info.threads else ""
        name = f"model[{info.model}-{info.runtime}{precision}-{info.device}{threads}]"
        found.setdefault(name, []).append(benchmark)
    return found


def _judge(budget: _Budget, item: str, base: Arm, head: Arm, limits: Limits, *, comparable: bool) -> Iterator[Row]:
    most: float | None = getattr(limits, budget.limit)
    growth = limits.max_growth.get(budget.figure)
    old, new = budget.values(base), budget.values(head)
    device = head[0].info.device
    if growth is not None and base and (any(old) or any(new)):
        if old and not new:
            yield Row(item, budget.aspect, "missing", "the baseline has it and the current run does not")
        elif new and not old:
            yield Row(item, budget.aspect, "incomparable", "the baseline does not have it: record the baseline again")
        elif new and not comparable:
            yield Row(item, budget.aspect, "incomparable", "the runs are of different machines or settings")
        elif new:
            yield _change(budget, item, (old, new), growth, device)
    if most is not None:
        yield _absolute(budget, item, new, most, device)


def _change(budget: _Budget, item: str, values: tuple[Values, Values], allowed: float, device: str) -> Row:
    old, new = values
    intervals, source = _intervals(budget, values, device)
    found = mover_difference(*intervals)
    verdict, reason = _verdict(found, math.log1p(allowed), source, improved_below=0.0)
    return Row(
        item=item,
        aspect=budget.aspect,
        verdict=verdict,
        reason=reason,
        unit=budget.unit,
        old=median(old),
        new=median(new),
        change=Interval(*map(math.expm1, found.bounds)),
        limit=f"{allowed:+.1%}",
    )


def _absolute(budget: _Budget, item: str, new: Values, most: float, device: str) -> Row:
    aspect, limit = f"{budget.aspect} limit", f"<= {most:g} {budget.unit}"
    if new and not any(new):
        return Row(item, aspect, "pass", "nothing was built", budget.unit, limit=limit)
    if not new:
        return Row(item, aspect, "inconclusive", "it was not measured", budget.unit, limit=limit)
    (found,), source = _intervals(budget, (new,), device)
    verdict, reason = _verdict(found, math.log(most), source)
    if min(new) > most:
        verdict, reason = "regressed", f"{'every figure' if len(new) > 1 else 'it'} is beyond the limit"
    return Row(item, aspect, verdict, reason, budget.unit, new=median(new), limit=limit)


def _verdict(found: Interval, limit: float, source: str, improved_below: float = -math.inf) -> tuple[Verdict, str]:
    verdict = decide(found, limit, improved_below)
    near = "too near the limit: more processes or runs would decide; " if verdict == "inconclusive" else ""
    return verdict, near + source


def _intervals(budget: _Budget, arms: Sequence[Values], device: str) -> tuple[list[Interval], str]:
    """Return the interval of the log of each arm's median, and what its width rests on."""
    logs = [[math.log(max(value, 1e-12)) for value in arm] for arm in arms]
    centres = [median(arm) for arm in logs]
    if not budget.noisy:
        return [Interval(value, value, value) for value in centres], "compared as it is"
    measured = measured_noise(logs, least_df=MIN_MEASURED_DF if len(arms) > 1 else 2)
    noise, runs = measured or assumed_noise(device), assumed_run_noise(device)
    between = runs.sd * t_quantile(runs.df) if measured else 0.0  # what is assumed is that of whole runs
    halves = [math.hypot(noise.sd * t_quantile(noise.df) / math.sqrt(len(arm)), between) for arm in logs]
    found = [Interval(value - half, value, value + half) for value, half in zip(centres, halves, strict=True)]
    return found, f"noise {noise.sd:.1%}, {noise.source}"
