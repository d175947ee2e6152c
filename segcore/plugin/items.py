"""What the fixtures return: items that can be checked or timed, and that record their results."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture
from pytest_benchmark.stats import Metadata

from segcore.core.errors import EnvironmentFaultError, OutputError
from segcore.core.files import sha256_file, write_file
from segcore.core.limits import Limits
from segcore.core.record_accuracy import ParityRecord
from segcore.core.records import AccuracyRecord, BenchmarkRecord, CheckRecord, WarningRecord
from segcore.evaluation.expectations import check_expectations, describe_failure
from segcore.evaluation.parity import (
    is_reference,
    logits_parity,
    masks_parity,
    photo_logits,
    reference_backend,
    reference_of,
)
from segcore.evaluation.pictures import save_pictures
from segcore.inference.allocator import give_back_freed_memory
from segcore.inference.pipeline import SegmentationResult, Segmenter
from segcore.inference.recording import record_of
from segcore.inference.runtimes import RUNTIMES
from segcore.inputs.datasets.label_map import by_name
from segcore.inputs.images import load_pair
from segcore.judgement.statistics import bounds_quantile, quantile_name, rounds_needed
from segcore.measurement.conditions import sample_warnings
from segcore.measurement.energy import EnergyMeter
from segcore.measurement.neighbours import Usage
from segcore.measurement.profiling import profile
from segcore.measurement.reference import around
from segcore.measurement.timing import PipelineCall, Stages
from segcore.plugin.arguments import DefaultRounds
from segcore.plugin.plan import PlanItem
from segcore.plugin.session import BenchSession

MAX_ROUNDS = 28
"""Most rounds for bounding a median: enough in 99 % of series with an autocorrelation of 0.8 between rounds."""


@dataclass(frozen=True)
class _Rounds:
    """Seconds of rounds, of their stages, and of the reference task around each."""

    samples: tuple[float, ...]
    reference: tuple[float, ...]
    stages: Stages


@dataclass
class BenchItem:
    """A planned item with its model loaded and its photo found."""

    plan: PlanItem
    node: str
    session: BenchSession

    def __post_init__(self) -> None:
        self.started_s = self.session.elapsed_s
        self.segmenter: Segmenter = self.session.resources.segmenter(self.plan)
        self.session.labels.setdefault(self.segmenter.labels.digest, self.segmenter.labels)
        record = self.segmenter.int8_record
        if record and record not in self.session.int8:
            self.session.int8.append(record)
        self.photo: Path = self.session.resources.photo(self.plan.case)
        self.cold_start_s = self.session.resources.cold_start_s(self.photo, self.plan.size)

    def new_record(self, result: SegmentationResult, **fields: Any) -> BenchmarkRecord:
        """Return the record of what ran; `fields` are its results."""
        mask = self.session.resources.mask(self.plan.case) if self.plan.kind == "accuracy" else None
        return record_of(
            self.segmenter,
            kind=self.plan.kind,
            case=self.plan.case.name,
            input_shape=result.input_shape,
            size=self.plan.size,
            threads=self.plan.threads,
            scenario=self.plan.scenario,
            photo_sha256=sha256_file(self.photo),
            mask_sha256=sha256_file(mask) if mask else None,
            limits=self.plan.limits,
            tags=self.plan.case.tags,
            order=self.session.order[self.plan.key],
            started_s=round(self.started_s, 3),
            cold_start_s=self.cold_start_s,
            **fields,
        )


@dataclass
class AccuracyItem(BenchItem):
    """One photo compared with its case's expectations."""

    def check(self) -> AccuracyRecord:
        """Segment the photo, write class map, margins and overlay, and record the result, passed or not."""
        result = self.segmenter.run([self.photo], size=self.plan.size, margins=True)[0]
        mask = self.session.resources.mask(self.plan.case)
        target = load_pair(self.photo, mask, upright=True)[1] if mask else None
        if target is not None and self.plan.case.mask_labels:
            target = by_name(target, self.plan.case.mask_labels, result.labels)
        found = check_expectations(self.plan.case, result, target)
        if not is_reference(self.segmenter):
            check, parity = self._parity()
            found = found.model_copy(update={"checks": (*found.checks, check), "parity": parity})
        if name := self.segmenter.spec.reference:
            reference = self.session.resources.reference(self.segmenter.spec, self.plan.device)
            wanted = reference.run([self.photo], size=self.plan.size, margins=True)[0]
            check = masks_parity(wanted, result).check(self.plan.limits.max_parity_drift, name)
            found = found.model_copy(update={"checks": (*found.checks, check)})
        pictures = self.session.pictures
        warnings: tuple[WarningRecord, ...] = ()
        try:
            found = save_pictures(result, found, pictures.parent, f"{pictures.name}/{self.plan.id}")
        except OutputError as error:  # the figures are kept
            warnings = (self.session.not_written(error),)
        seconds = sum(result.timings.values())
        self.session.add(self.node, (seconds,), self.new_record(result, accuracy=found, warnings=warnings))
        return found

    def _parity(self) -> tuple[CheckRecord, ParityRecord]:
        wanted, logits = (
            photo_logits(segmenter, self.photo, self.plan.size)
            for segmenter in (reference_of(self.segmenter), self.segmenter)
        )
        reference = " ".join(reference_backend(self.segmenter.spec))
        found = logits_parity(wanted, logits, len(self.segmenter.labels))
        return found.check(self.plan.limits.max_parity_drift, reference), found.record(reference)

    def explain(self, found: AccuracyRecord) -> str:
        """Return which expectations do not hold, what was found instead, and the path of the overlay."""
        return describe_failure(found, self.session.pictures.parent)


@dataclass
class SpeedItem(BenchItem):
    """One photo, or a batch of copies of it, to be timed: ``benchmark(item)``."""

    benchmark: BenchmarkFixture

    def __post_init__(self) -> None:
        super().__post_init__()
        self.call = PipelineCall(self.segmenter, [self.photo] * self.plan.batch, self.plan.size, self._rounds_done)
        self._calls_before = 0
        self._reference: list[float] = []
        self._in_round = False
        self._quiet: Usage | None = None
        self._energy = EnergyMeter(self.session.energy_counter(self.plan.device))
        self._memory_known = False
        self._rounds_free = isinstance(self.benchmark._min_rounds, DefaultRounds)
        if self._rounds_free:
            self.benchmark._min_rounds = math.ceil(rounds_needed(0.5) / self.session.processes)
        if not self.benchmark.disabled:
            self.benchmark._timer = self.session.round_timer(self.benchmark._timer, self._before_round)

    def _before_round(self) -> None:
        """Run the reference task once before each round; pytest-benchmark reads its timer at both ends of a round."""
        self._in_round = len(self._reference) == self._rounds_done()
        if self._in_round:
            self._run_reference()

    def _run_reference(self) -> None:
        self._reference.append(self.session.reference(self.plan.device)())

    def _rounds_done(self) -> int | None:
        stats = self.benchmark.stats  # created when pytest-benchmark starts its rounds
        return None if stats is None else len(stats.stats.data)

    def warm_up(self) -> None:
        """Call the pipeline until its caches are filled, then start counting memory and energy."""
        check_clock()
        give_back_freed_memory()  # of the previous item
        self.call.warm_up(again=self.plan.call_key in self.session.warm)
        self.session.warm.add(self.plan.call_key)
        self._quiet = self.session.neighbours.wait()
        runtime = RUNTIMES[self.plan.runtime]
        self._memory_known = runtime.memory_is_known(self.plan.device) and self.segmenter.device.reset_peak_memory()
        self._calls_before = self.call.count
        self._energy.start()

    def __call__(self) -> SegmentationResult:
        """Run the pipeline once; return the result of the first photo.

        pytest-benchmark asks for the result once more after the last round: that of the round is returned.
        """
        if not self._rounds_done() or self._in_round or self.benchmark.cprofile:
            self.result = self.call()[0]
        return self.result

    def record(self) -> None:
        """Add the record to the benchmark, unless benchmarks are disabled or timing ended in an error."""
        stats = self.benchmark.stats
        if stats is None or not stats.stats.data or self.benchmark.has_error:
            return
        samples = stats.stats.data
        if self._rounds_free and self.session.processes == 1:
            self._bound_median(samples, stats)
        self._run_reference()
        energy = self._energy.stop(self.call.count - self._calls_before)
        self.session.look_at_board(self.plan.device)
        rounds, other_load = self._undisturbed(samples, stats)
        samples[:] = rounds.samples
        record = self.new_record(
            self.result,
            stages=rounds.stages,
            peak_memory_bytes=self.segmenter.device.peak_memory_bytes() if self._memory_known else None,
            energy=energy,
            reference=rounds.reference,
            other_load=other_load,
        )
        total = len(samples) * self.session.processes
        warnings = (*sample_warnings(samples, total), *too_few_rounds(total, record.limits), *too_few_threads(record))
        warnings += self._write_trace()  # after everything is measured
        self.benchmark.extra_info["segcore"] = record.model_copy(update={"warnings": warnings}).model_dump(mode="json")

    def _bound_median(self, samples: list[float], stats: Metadata) -> None:
        """Measure more rounds, up to `MAX_ROUNDS`, while those so far are too correlated to bound the median."""
        runner = self.benchmark._make_runner(self, (), {})
        while len(samples) < MAX_ROUNDS and not bounds_quantile(samples, 0.5):
            stats.update(runner(range(stats.iterations)))

    def _undisturbed(self, samples: list[float], stats: Metadata) -> tuple[_Rounds, float | None]:
        """Return the rounds, measured again while other processes disturb them; and the load of others meanwhile."""
        runner, count = self.benchmark._make_runner(self, (), {}), len(samples)

        def kept() -> _Rounds:
            stages = self.call.stages(count, stats.iterations)
            return _Rounds(tuple(samples), around(self._reference[: count + 1]), stages)

        def again() -> tuple[_Rounds, float]:
            samples.clear()
            self._reference.clear()
            for _ in range(count):
                stats.update(runner(range(stats.iterations)))
            self._run_reference()
            return kept(), 0.0

        if self._quiet is None:  # it was not warmed up
            return kept(), None
        neighbours = self.session.neighbours
        found = neighbours.repeat(neighbours.since(self._quiet, kept()), again)
        return found.result, found.load

    def _write_trace(self) -> tuple[WarningRecord, ...]:
        """Write a trace if traces are requested; return a warning if there is none or it cannot be written."""
        if not self.session.choices.profile or self.plan.kind != "latency":
            return ()
        profilable = self.segmenter.is_profilable
        trace = profile(self.segmenter, self.photo, size=self.plan.size).trace if profilable else None
        if trace is None:
            return (WarningRecord(code="no-trace", text=f"{self.plan.runtime} writes no trace of its own"),)
        try:
            write_file(self.session.choices.profile / f"{self.plan.id}.json", trace)
        except OutputError as error:
            return (self.session.not_written(error),)
        return ()


def check_clock() -> None:
    """Raise EnvironmentFaultError if the clock stands still, as freezegun stops it: waits would never end."""
    start = time.perf_counter()
    if all(time.perf_counter() == start for _ in range(1000)):
        raise EnvironmentFaultError("time.perf_counter() stands still: nothing can be timed while freezegun stops it")


def too_few_rounds(rounds: int, limits: Limits) -> tuple[WarningRecord, ...]:
    """Return one warning for each percentile that a limit names and that so many rounds cannot bound."""
    return tuple(
        WarningRecord(
            code="percentile-rounds",
            value=rounds_needed(q) - rounds,
            text=f"{quantile_name(q)} needs {rounds_needed(q)} rounds, there are {rounds}: raise --benchmark-max-time",
        )
        for q in sorted({*limits.slowdowns, *limits.latencies_ms})
        if rounds < rounds_needed(q)
    )


def too_few_threads(record: BenchmarkRecord) -> tuple[WarningRecord, ...]:
    """Return a warning if the runtime uses another number of threads than requested."""
    used = record.runtime_options.get("threads", "")
    if not record.threads or used in ("", str(record.threads)):
        return ()
    text = f"{record.runtime} uses {used} threads, not the {record.threads} requested: it sees no more cores"
    return (WarningRecord(code="threads", value=float(used), text=text),)
