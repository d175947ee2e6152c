"""Devices and machines side by side: speed, efficiency and dataset scores of the same work in any number of runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import geometric_mean

from segcore.core.errors import UsageError, nearest_hint
from segcore.core.records import TIMED, Benchmark, BenchmarkRecord, DatasetRecord, Run, thread_words
from segcore.judgement.estimate import run_log_quantile
from segcore.judgement.paired_accuracy import image_differences, image_pairs, score_changes
from segcore.judgement.statistics import CONFIDENCE, Interval, log_quantile, usable
from segcore.results.machines import distinct_names

LineKey = tuple[str, str, str, int, int]
"""Kind, model, runtime, size and batch: the first fields of `Line`."""
DatasetKey = tuple[str, int, str]
"""Dataset, images and protocol: the first fields of `ScoreLine`."""


@dataclass(frozen=True)
class Column:
    """One device in one run."""

    label: str
    """Run and device, for example ``laptop-1a2b3c4 cpu``."""
    machine: str
    """Product name of the processor or accelerator."""


@dataclass(frozen=True)
class Cell:
    """Speed of one line in one column."""

    seconds: float
    """Of one call: geometric mean, over the cases, of the medians."""
    images_per_s: float
    gmacs_per_s: float | None
    """Achieved in the forward pass; None if the model's cost is unknown."""
    efficiency: float | None
    """GMAC/s as a share of the `Achieved.peak`; None if that is unknown or was disturbed."""
    disturbed: bool
    """Whether the calibration was, in one of the cases."""
    ratio: float | None = None
    """Speed relative to the reference column, above 1 is faster; None if that does not have the line."""
    best: bool = False
    """Whether no other column took less time."""


@dataclass(frozen=True)
class Line:
    """The same work in each column that has it."""

    kind: str
    model: str
    runtime: str
    size: int
    batch: int
    cases: tuple[str, ...]
    """Cases in every column of the line; only these are compared."""
    cells: Mapping[str, Cell]
    """By column label."""

    @property
    def title(self) -> str:
        """Kind, model, size and batch in words."""
        batch = f" batch {self.batch}" if self.kind == "throughput" else ""
        return f"{self.kind} {self.model}{_unless_torch(self.runtime)} @{self.size}{batch}"


@dataclass(frozen=True)
class ScoreCell:
    """One score in one column."""

    what: str
    """Model, runtime and size, for example ``embedded @320``."""
    share: float
    low: float
    high: float
    """95 % confidence interval by bootstrap over images."""
    difference: float | None
    """From the reference column; None if that does not have the line."""
    best: bool
    """Whether no other column scored higher."""
    difference_low: float | None = None
    """95 % interval of the difference, image by image; None if one of the runs has no counts of its images."""
    difference_high: float | None = None


@dataclass(frozen=True)
class ScoreLine:
    """One score on the same images under the same protocol, in each column that has it, for any model and size."""

    dataset: str
    images: int
    protocol: str
    score: str
    """For example ``miou`` or ``iou cat``."""
    cells: Mapping[str, ScoreCell]
    """By column label."""


@dataclass(frozen=True)
class Comparison:
    """Runs side by side."""

    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    scores: tuple[ScoreLine, ...]
    reference: str
    """Label of the column that ratios and differences refer to."""
    without: tuple[str, ...] = ()
    """Names of the runs that have neither a time nor a score of a dataset."""


def compare(runs: Sequence[Run], reference: str | None = None) -> Comparison:
    """Return runs side by side; ratios refer to the column with this label or run name, by default to the first.

    Raises:
        UsageError: there is no such column, or there is neither a time nor a score of a dataset.
    """
    columns: dict[str, Column] = {}
    scored: dict[tuple[str, str, DatasetKey], dict[str, BenchmarkRecord]] = {}
    timed: dict[LineKey, dict[str, dict[str, tuple[Run, Benchmark]]]] = {}
    names = distinct_names(runs, "{}#{}")
    shown: set[str] = set()
    for run, name in zip(runs, names, strict=True):
        for benchmark in run.benchmarks:
            info, label = benchmark.info, f"{name} {benchmark.info.device}"
            if info.dataset:
                what = (info.dataset.name, info.dataset.images, info.dataset.protocol)
                others = scored.setdefault((info.dataset.sha256, info.labels.sha256, what), {})
                label = f"{label} {_what(info)}" if label in others else label
                others[label] = info
            if info.kind in TIMED and not info.load and usable(benchmark.all_samples):
                key = (info.kind, info.model, _runtime(info), info.size, info.batch)
                timed.setdefault(key, {}).setdefault(label, {})[info.case] = (run, benchmark)
            elif not info.dataset:
                continue
            columns.setdefault(label, Column(label, _machine(run, info.device)))
            shown.add(name)
    if not columns:
        files = ", ".join(str(run.path) for run in runs)
        raise UsageError(f"nothing to compare: no times and no dataset scores in {files}")
    chosen = _reference(reference, columns)
    lines = tuple(_line(key, cells, chosen) for key, cells in sorted(timed.items()))
    scores = tuple(line for key, cells in sorted(scored.items()) for line in _score_lines(key[-1], cells, chosen))
    without = tuple(name for name in names if name not in shown)
    return Comparison(tuple(columns.values()), lines, scores, chosen, without)


@dataclass(frozen=True)
class Achieved:
    """Rate of a forward pass, beside what the machine reached in the same session and precision."""

    gmacs_per_s: float
    peak: float | None
    """GMAC/s of the fastest product of the calibration; None if it was not calibrated in this precision."""

    @property
    def disturbed(self) -> bool:
        """Whether the calibration is below the model's own rate, and so cannot be the machine's peak."""
        return self.peak is not None and self.gmacs_per_s > self.peak

    @property
    def share(self) -> float | None:
        """Rate as a share of the peak; None if that is unknown or was disturbed."""
        return None if self.peak is None or self.disturbed else self.gmacs_per_s / self.peak


def disturbed_calibrations(run: Run) -> tuple[str, ...]:
    """Return a sentence for each device and precision whose calibration lies under the rate of an item."""
    fastest: dict[tuple[str, str], tuple[float, float, str]] = {}
    for benchmark in run.benchmarks:
        info = benchmark.info
        known = achieved(run, benchmark) if info.kind in TIMED and not info.load else None
        if known and known.peak is not None and known.disturbed:
            key, rate = (info.device, info.precision), (known.gmacs_per_s, known.peak, info.key)
            fastest[key] = max(rate, fastest.get(key, rate))
    return tuple(
        f"calibration of {device} in {precision} was disturbed: it reached {peak:,.0f} GMAC/s, and {item} {rate:,.0f}; "
        "close other programs, and measure again for a share of the peak"
        for (device, precision), (rate, peak, item) in fastest.items()
    )


def achieved(run: Run, benchmark: Benchmark) -> Achieved | None:
    """Return GMAC/s of the forward pass beside the calibrated peak of its precision, or None if unknown."""
    info = benchmark.info
    if info.threads not in (None, run.record.machine.intra_op_threads):
        return None  # calibration ran with another number of threads
    forward = info.stages.get("forward") or benchmark.samples
    calibrated = any(c.device == info.device for c in run.record.calibration)
    if info.gmacs is None or not calibrated or not usable(forward):
        return None
    rate = info.gmacs / math.exp(log_quantile(forward, 0.5))
    return Achieved(rate, run.record.peak_gmacs_per_s(info.device, info.precision))


def _line(key: LineKey, found: Mapping[str, Mapping[str, tuple[Run, Benchmark]]], reference: str) -> Line:
    *_, batch = key
    shared = set.intersection(*(set(cases) for cases in found.values()))
    # Columns without a common case show what they have; a ratio would compare different photos.
    cells = {}
    for label, by_case in found.items():
        cases = [by_case[case] for case in sorted(shared or by_case)]
        seconds = math.exp(sum(run_log_quantile(b, 0.5) for _, b in cases) / len(cases))
        known = [rate for run_and_item in cases if (rate := achieved(*run_and_item)) is not None]
        shares = [rate.share for rate in known if rate.share is not None]
        cells[label] = Cell(
            seconds=seconds,
            images_per_s=batch / seconds,
            gmacs_per_s=geometric_mean(rate.gmacs_per_s for rate in known) if len(known) == len(cases) else None,
            efficiency=geometric_mean(shares) if len(shares) == len(cases) else None,
            disturbed=any(rate.disturbed for rate in known),
        )
    if shared:
        fastest = min(cell.seconds for cell in cells.values())
        before = cells[reference].seconds if reference in cells else None
        for label, cell in cells.items():
            ratio = None if before is None else before / cell.seconds
            cells[label] = replace(cell, ratio=ratio, best=cell.seconds == fastest and len(cells) > 1)
    return Line(*key, cases=tuple(sorted(shared)), cells=cells)


def _score_lines(key: DatasetKey, found: Mapping[str, BenchmarkRecord], reference: str) -> Iterator[ScoreLine]:
    records = {label: (_what(info), info.dataset) for label, info in found.items() if info.dataset}
    changes = _changes({label: record for label, (_, record) in records.items()}, reference)
    for name in dict.fromkeys(name for _, record in records.values() for name in record.scores):
        shares = {label: record.scores[name] for label, (_, record) in records.items() if name in record.scores}
        most, before = max(shares.values()), shares.get(reference)
        cells = {}
        for label, share in shares.items():
            what, record = records[label]
            change = changes.get(label, {}).get(name)
            if change and change.high - change.low >= 1:  # says nothing
                change = None
            cells[label] = ScoreCell(
                what,
                share,
                *record.intervals[name],
                difference=None if before is None else share - before,
                best=share == most and len(shares) > 1,
                difference_low=change.low if change else None,
                difference_high=change.high if change else None,
            )
        yield ScoreLine(*key, score=name, cells=cells)


def _changes(records: Mapping[str, DatasetRecord], reference: str) -> dict[str, dict[str, Interval]]:
    """Return the differences of each column to the reference, by score, where both have the counts of their images."""
    first = records.get(reference)
    return {
        label: score_changes(image_pairs(first, record), (1 - CONFIDENCE) / 2)
        for label, record in records.items()
        if first and label != reference and first.counts and not image_differences(first.counts, record.counts)
    }


def _what(info: BenchmarkRecord) -> str:
    return f"{info.model}{_unless_torch(_runtime(info))} @{info.size}"


def _unless_torch(runtime: str) -> str:
    return "" if runtime == "torch" else f" {runtime}"


def _runtime(info: BenchmarkRecord) -> str:
    precision = "" if info.precision == "fp32" else f".{info.precision}"
    threads = f" {thread_words(info)}" if info.threads else ""
    return f"{info.runtime}{precision}{threads}{info.weights.warning}"


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
