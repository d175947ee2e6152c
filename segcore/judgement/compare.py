"""Devices and machines side by side: speed, efficiency and dataset scores of the same work in any number of runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from segcore.core.errors import UsageError, nearest_hint
from segcore.core.records import Benchmark, BenchmarkRecord, Run, thread_words
from segcore.judgement.statistics import log_quantile, usable

TIMED = ("latency", "throughput")

DatasetKey = tuple[str, int, str]
"""Dataset, images and protocol: the first fields of `ScoreLine`."""


@dataclass(frozen=True)
class Column:
    """One device in one run."""

    label: str
    """Run and device, for example ``laptop-1a2b3c4 cpu``."""
    machine: str
    """Processor, or accelerator, by product name."""


@dataclass(frozen=True)
class Cell:
    """What one column did of one row."""

    seconds: float
    """Of one call: the geometric mean over the row's cases of their medians."""
    images_per_s: float
    gmacs_per_s: float | None
    """Achieved in the forward pass; None where the model's cost is not known."""
    efficiency: float | None
    """That as a share of the matrix product that the run's calibration reached on the same device."""
    ratio: float | None
    """Speed relative to the reference column, above 1 is faster; None where that has no such row."""
    best: bool
    """No other column did the row in less time."""


@dataclass(frozen=True)
class Line:
    """One kind of work: the same cases, model, size and batch, in each column that did it."""

    kind: str
    model: str
    runtime: str
    size: int
    batch: int
    cases: tuple[str, ...]
    """Those that every column of the row has: more would not be the same work."""
    cells: Mapping[str, Cell]
    """By column label; columns that did not do it are absent."""

    @property
    def title(self) -> str:
        """Kind, model, size and batch in words."""
        batch = f" batch {self.batch}" if self.kind == "throughput" else ""
        runtime = "" if self.runtime == "torch" else f" {self.runtime}"
        return f"{self.kind} {self.model}{runtime} @{self.size}{batch}"


@dataclass(frozen=True)
class ScoreCell:
    """What one column scored."""

    what: str
    """Model, runtime and size, for example ``embedded @320``."""
    share: float
    low: float
    high: float
    """95 % confidence interval by bootstrap over images."""
    difference: float | None
    """From the reference column; None where that has no such line."""
    best: bool
    """No other column scored more."""


@dataclass(frozen=True)
class ScoreLine:
    """One score on the same images under the same protocol, in each column that has it: of whatever model and size."""

    dataset: str
    images: int
    protocol: str
    score: str
    """For example ``miou`` or ``iou cat``."""
    cells: Mapping[str, ScoreCell]
    """By column label; columns that do not have it are absent."""


@dataclass(frozen=True)
class Comparison:
    """The table."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    scores: tuple[ScoreLine, ...]
    reference: str
    """Label of the column that ratios and differences refer to."""


def compare(runs: Sequence[Run], reference: str | None = None) -> Comparison:
    """Return what the runs have in common and apart.

    Args:
        runs: at least one.
        reference: label, or run name, of the column that ratios refer to; the first when None.

    Raises:
        UsageError: there is no such column, or there is neither a time nor a score of a dataset.
    """
    names = _labels(runs)
    columns: dict[str, Column] = {}
    scored: dict[tuple[str, DatasetKey], dict[str, BenchmarkRecord]] = {}
    found: dict[tuple[str, str, str, int, int], dict[str, dict[str, tuple[Run, Benchmark]]]] = {}
    for run, name in zip(runs, names, strict=True):
        for benchmark in run.benchmarks:
            info, label = benchmark.info, f"{name} {benchmark.info.device}"
            if info.dataset:
                what = (info.dataset.name, info.dataset.images, info.dataset.protocol)
                others = scored.setdefault((info.dataset.sha256, what), {})
                label = f"{label} {_what(info)}" if label in others else label
                others[label] = info
            timed = info.kind in TIMED and usable(benchmark.samples)
            if timed or info.dataset:
                columns.setdefault(label, Column(label, _machine(run, info.device)))
            if timed:
                key = (info.kind, info.model, _runtime(info), info.size, info.batch)
                found.setdefault(key, {}).setdefault(label, {})[info.case] = (run, benchmark)
    if not columns:
        files = ", ".join(str(run.path) for run in runs)
        raise UsageError(f"nothing was timed, and no dataset scored, in {files}: no table to make")
    chosen = _reference(reference, columns)
    lines = tuple(_line(key, cells, chosen) for key, cells in sorted(found.items()))
    scores = tuple(line for key, cells in sorted(scored.items()) for line in _score_lines(key[1], cells, chosen))
    return Comparison(tuple(columns.values()), lines, scores, chosen)


def achieved(run: Run, benchmark: Benchmark) -> tuple[float, float] | None:
    """Return GMAC/s of the forward pass, and its share of the calibrated matrix product; None where unknown."""
    info = benchmark.info
    if info.threads not in (None, run.record.machine.intra_op_threads):
        return None  # calibration had other threads
    forward = info.stages.get("forward") or benchmark.samples
    peak = next((c.matmul_gmacs_per_s for c in run.record.calibration if c.device == info.device), math.nan)
    if info.gmacs is None or not math.isfinite(info.gmacs) or not usable(forward) or not 0 < peak < math.inf:
        return None
    rate = info.gmacs / math.exp(log_quantile(forward, 0.5))
    return rate, rate / peak


def _line(
    key: tuple[str, str, str, int, int], found: Mapping[str, Mapping[str, tuple[Run, Benchmark]]], reference: str
) -> Line:
    kind, model, runtime, size, batch = key
    shared = set.intersection(*(set(cases) for cases in found.values()))
    # Columns without a common case are shown by what they have; a ratio would compare different photos.
    seconds, rates = {}, {}
    for label, by_case in found.items():
        cases = sorted(shared or by_case)
        logs = [log_quantile(by_case[case][1].samples, 0.5) for case in cases]
        seconds[label] = math.exp(sum(logs) / len(logs))
        each = [achieved(*by_case[case]) for case in cases]
        known = [value for value in each if value is not None]
        rates[label] = _geometric(known) if len(known) == len(each) else (None, None)
    fastest = min(seconds.values())
    cells = {
        label: Cell(
            seconds=value,
            images_per_s=batch / value,
            gmacs_per_s=rates[label][0],
            efficiency=rates[label][1],
            ratio=seconds[reference] / value if shared and reference in seconds else None,
            best=bool(shared) and value == fastest and len(seconds) > 1,
        )
        for label, value in seconds.items()
    }
    return Line(kind, model, runtime, size, batch, tuple(sorted(shared)), cells)


def _score_lines(key: DatasetKey, found: Mapping[str, BenchmarkRecord], reference: str) -> Iterator[ScoreLine]:
    records = {label: (_what(info), info.dataset) for label, info in found.items() if info.dataset}
    for name in dict.fromkeys(name for _, record in records.values() for name in record.scores):
        shares = {label: record.scores[name] for label, (_, record) in records.items() if name in record.scores}
        most, before = max(shares.values()), shares.get(reference)
        cells = {
            label: ScoreCell(
                records[label][0],
                share,
                *records[label][1].intervals[name],
                difference=None if before is None else share - before,
                best=share == most and len(shares) > 1,
            )
            for label, share in shares.items()
        }
        yield ScoreLine(*key, score=name, cells=cells)


def _what(info: BenchmarkRecord) -> str:
    runtime = _runtime(info)
    return f"{info.model}{'' if runtime == 'torch' else f' {runtime}'} @{info.size}"


def _geometric(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    logs = [(math.log(a), math.log(b)) for a, b in pairs]
    return math.exp(sum(a for a, _ in logs) / len(logs)), math.exp(sum(b for _, b in logs) / len(logs))


def _runtime(info: BenchmarkRecord) -> str:
    precision = "" if info.precision == "fp32" else f".{info.precision}"
    threads = f" {thread_words(info)}" if info.threads else ""
    return f"{info.runtime}{precision}{threads}{info.weights.warning}"


def _labels(runs: Sequence[Run]) -> list[str]:
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else f"{name}#{names[: n + 1].count(name)}" for n, name in enumerate(names)]


def _machine(run: Run, device: str) -> str:
    machine = run.record.machine
    if device.startswith("cpu") or not machine.gpus:
        return f"{machine.cpu}, {machine.intra_op_threads} threads"
    index = int(device.partition(":")[2] or 0)
    return machine.gpus[min(index, len(machine.gpus) - 1)].name


def _reference(wanted: str | None, columns: Mapping[str, Column]) -> str:
    if wanted is None:
        return next(iter(columns))
    for label in columns:
        if wanted in (label, label.rpartition(" ")[0]):
            return label
    hint = nearest_hint(wanted, columns)
    raise UsageError(f"no column {wanted!r}{hint}; the columns are: {', '.join(columns)}")
