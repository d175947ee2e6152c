"""The schema of a run file: what segcore adds to pytest-benchmark's JSON.

Each benchmark has a `BenchmarkRecord` in ``extra_info.segcore``, its raw samples in ``stats.data``, and the run a
`RunRecord` in ``segcore``. No statistics are stored. Run files come from other machines and other people's branches:
unknown keys are refused, numbers are finite and have a range, text is printable and has a length (`Text`), and what can
be a choice is one. The names of the modules beside this one can be imported from here.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from segcore.core.bench_options import Scenario
from segcore.core.labels import LABEL_SETS, VOC, LabelSet
from segcore.core.limits import Limits
from segcore.core.record_accuracy import (
    MARGIN_PNG_STEP,
    MAX_COUNTED,
    AccuracyRecord,
    CheckRecord,
    ClassPixels,
    DatasetRecord,
    WorstRecord,
)
from segcore.core.record_fields import (
    LEAST,
    MOST,
    Amount,
    Count,
    Device,
    Number,
    Positive,
    PositiveCount,
    Precision,
    Record,
    Share,
    Text,
)
from segcore.core.record_int8 import Int8Record
from segcore.core.record_machine import CalibrationRecord, GitRecord, GpuRecord, MachineRecord
from segcore.core.record_models import LabelsRecord, LabelsRef, ModelFileRecord, WeightsRecord

SCHEMA_VERSION = 3
"""Version written. Warnings are text in version 1; version 3 added hashes of photos, selection and bounds of checks."""
READABLE_VERSIONS = (1, 2, 3)

Stage = Literal["decode", "preprocess", "transfer", "forward", "postprocess", "colorize"]
STAGES: tuple[Stage, ...] = get_args(Stage)
Kind = Literal["accuracy", "latency", "throughput", "load", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TIMED: tuple[Kind, ...] = ("latency", "throughput", "load")
"""Kinds whose samples are the result; the samples of other kinds only document how long the item took."""
ITEM_FIELDS = ("case", "model", "runtime", "precision", "device", "size", "batch", "threads", "scenario")
"""Fields of `BenchmarkRecord` that identify an item among those of its kind."""
Selectable = Literal["case", "tag", "model", "device", "runtime", "precision", "size", "batch", "threads", "scenario"]
SELECTABLE: tuple[Selectable, ...] = get_args(Selectable)
OutcomeKind = Literal["passed", "failed", "skipped", "error"]
Validity = Literal["valid", "invalid", "undecided"]
"""Whether a percentile is proven to be within a limit, proven to be beyond it, or neither."""
WarningCode = Literal[
    "other-load",
    "stolen",
    "throttled",
    "frequency",
    "battery",
    "debug-build",
    "machine-speed",
    "rounds",
    "percentile-rounds",
    "not-finite",
    "spread",
    "trend",
    "threads",
    "reference",
    "neighbours",
    "no-trace",
    "not-written",
    "other",
]


class WarningRecord(Record):
    """One reason why a figure, or all figures of a run, may be unreliable."""

    code: WarningCode
    """``other`` for text of schema version 1."""
    value: Number | None = None
    """Size of the effect: a share or relative change, or a count of rounds, threads or events."""
    text: Text

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return {"code": "other", "text": data} if isinstance(data, str) else data


class EnergyRecord(Record):
    """Energy used from the end of the warm-up to the end of an item, including that of other processes."""

    joules: Positive
    calls: PositiveCount
    """Of the pipeline, on the whole batch."""
    counter: Text


class LoadTrialRecord(Record):
    """One rate, in queries per second, that a search tried."""

    rate: Amount
    validity: Validity
    latencies_s: tuple[Amount, ...]
    """Of each query, from when it was due to its end."""


class LoadRecord(Record):
    """Result of a load scenario.

    The samples of the item are the latencies of its queries; offline, the times of its batches; in a search of the
    highest rate, the latencies of the queries that were first served one by one.
    """

    seed: Count
    rate: Positive | None = None
    """Queries per second that the server scenario was asked for; None if the rate was searched."""
    max_p99_ms: Positive | None = None
    validity: Validity | None = None
    """Whether the limit was kept, by MLPerf's early stopping rule; None without a limit."""
    queries: Count
    """Queries behind the figures below: for a search, of the run at the highest rate that kept the limit."""
    over: Count = 0
    """Queries of these that took longer than the limit."""
    images_per_s: Amount | None = None
    bounds_s: dict[Literal["p50", "p90", "p99"], Amount] = {}
    """Bounds on p50, p90 and p99 of the latency at 99 % confidence; omitted where the queries are too few."""
    highest_rate: Positive | None = None
    """The highest rate that a search proved to keep the limit."""
    lowest_failed_rate: Positive | None = None
    """The lowest rate above it that was tried and did not keep the limit."""
    trials: tuple[LoadTrialRecord, ...] = ()


MAX_OTHER_LOAD = 0.10
"""Largest share of the machine's processor time that other processes may take; beyond, they disturb a measurement."""
MIN_QUIET = 3
"""Fewest undisturbed processes of a run for leaving out the disturbed ones."""


class ProcessRecord(Record):
    """What one process measured of a speed item."""

    samples: tuple[Positive, ...] = Field(min_length=1)
    """Seconds per round (per batch), in the order measured."""
    reference: tuple[Positive, ...] = ()
    """Seconds of the reference task around each round: see `segcore.measurement.reference`."""
    other_load: Share | None = None
    """Share of the machine's processor time that other processes used meanwhile; None if unknown."""
    cold_start_s: Positive | None = None
    """Seconds from asking for the model to its first result, of the item that asked first; without exporting it."""


class BenchmarkRecord(Record):
    """One measured item: ``extra_info.segcore`` of one benchmark."""

    kind: Kind
    case: Text
    model: Text
    weights: WeightsRecord
    model_file: ModelFileRecord | None = None
    """None for a built-in model, and for a network that was passed in."""
    runtime: Text = "torch"
    runtime_options: dict[Text, Text] = {}
    precision: Precision = "fp32"
    build_s: Amount | None = None
    """Seconds of exporting, quantising and compiling, not part of any sample; 0.0 if everything was cached."""
    first_build_s: Amount | None = None
    """Seconds of building, with what an earlier process has built and the cache kept; None if it is unknown."""
    model_bytes: Count | None = None
    """Size of the file that the runtime loads, or of the network's weights in torch, in their precision."""
    device: Device
    """Device type: ``cpu``, ``cuda`` or ``mps``; ``cuda:1`` if an index was given."""
    size: PositiveCount
    """Shorter side at model scale, pixels."""
    batch: PositiveCount = 1
    threads: PositiveCount | None = None
    """Intra-op threads of an item in a sweep over threads; None means those of the run (`MachineRecord`)."""
    scenario: Scenario | None = None
    input_shape: tuple[PositiveCount, PositiveCount, PositiveCount, PositiveCount]
    """(B, 3, H, W) of the model's input."""
    labels: LabelsRef = LabelsRef.of(VOC)
    """VOC in files that name none: those of schema version 1 and 2, and early ones of 3."""
    preprocess: Text
    """Name of the preprocessing convention; a change makes runs incomparable."""
    photo_sha256: Text | None = None
    """SHA-256 of the photo's file; None for a dataset."""
    mask_sha256: Text | None = None
    """SHA-256 of the ground-truth mask's file, of an accuracy item that has one."""
    reference: tuple[Positive, ...] = ()
    """Seconds of the reference task around each round of the main process."""
    other_load: Share | None = None
    cold_start_s: Positive | None = None
    processes: tuple[ProcessRecord, ...] = ()
    """Further processes that measured the item; what the main process measured is in the fields above."""
    stages: dict[Stage, tuple[Amount, ...]] = {}
    """Seconds per round."""
    gmacs: Positive | None = None
    """Giga multiply-accumulates of one forward pass of the whole batch."""
    gbytes: Positive | None = None
    """Minimum of gigabytes that the convolutions of one forward pass move; see `segcore.inference.models.gbytes`."""
    peak_memory_bytes: Count | None = None
    """Peak over the rounds: of torch's allocator on CUDA, of the resident set size on a Linux CPU."""
    energy: EnergyRecord | None = None
    accuracy: AccuracyRecord | None = None
    dataset: DatasetRecord | None = None
    load: LoadRecord | None = None
    limits: Limits = Limits()
    tags: tuple[Text, ...] = ()
    order: Count = 0
    started_s: Amount = 0.0
    """Seconds from the start of the run to the first round."""
    warnings: tuple[WarningRecord, ...] = ()

    @property
    def joules_per_image(self) -> float | None:
        """Energy per image, None if it was not measured."""
        return self.energy.joules / (self.energy.calls * self.batch) if self.energy else None

    def fits(self, selection: Mapping[Selectable, Collection[str]]) -> bool:
        """Return whether values of `SELECTABLE` select the item; some of them apply to some kinds of items only."""
        kinds: dict[str, tuple[Kind, ...]] = {
            "batch": ("throughput", "load"),
            "threads": ("throughput",),
            "scenario": ("load",),
        }
        return all(
            not set(values).isdisjoint(self.tags if name == "tag" else (str(getattr(self, name)),))
            for name, values in selection.items()
            if self.kind in kinds.get(name, KINDS)
        )

    @property
    def key(self) -> str:
        """Identity of the item across runs, for example ``latency[chelsea-embedded-torch-cpu-320]``."""
        return f"{self.kind}[{item_id(self.kind, {name: getattr(self, name) for name in ITEM_FIELDS})}]"


def item_id(kind: Kind, fields: Mapping[str, Any]) -> str:
    """Return the id of an item among those of its kind, for example ``chelsea-embedded-torch.bf16-cpu-320-b4-t2``.

    `fields` are the values of `ITEM_FIELDS`; the batch size is named for throughput, and for load if it is not 1.
    """
    precision = "" if fields["precision"] == "fp32" else f".{fields['precision']}"
    batched = kind == "throughput" or (kind == "load" and fields["batch"] > 1)
    batch = f"-b{fields['batch']}" if batched else ""
    threads = f"-t{fields['threads']}" if fields["threads"] else ""
    scenario = f"-{fields['scenario']}" if fields["scenario"] else ""
    runtime = f"{fields['runtime']}{precision}"
    return f"{fields['case']}-{fields['model']}-{runtime}-{fields['device']}-{fields['size']}{batch}{threads}{scenario}"


def thread_words(info: BenchmarkRecord) -> str:
    """Return for example ``2 threads`` for an item in a sweep over threads, else an empty string."""
    return f"{info.threads} thread{'s' * (info.threads > 1)}" if info.threads else ""


class OutcomeRecord(Record):
    """How one collected item ended, and why if it did not pass."""

    item: Text
    kind: Kind
    outcome: OutcomeKind
    reason: Text = ""
    where: Text = ""
    """File or URL that the reason is about and does not name, so that equal reasons can be grouped."""
    key: Text | None = None
    """`BenchmarkRecord.key` of the item, also if it was not measured."""
    skipped_by_case: bool = False
    """Whether the case has a `skip_reason`."""


class CaseRecord(Record):
    """Where a case of the run is written: a path with ``/``, relative to the repository or the working directory."""

    name: Text
    file: Text
    line: PositiveCount


class RunRecord(Record):
    """The top-level ``segcore`` object of a run file."""

    schema_version: int = SCHEMA_VERSION
    name: Text
    started: Text
    """UTC, ISO 8601."""
    duration_s: Amount
    complete: bool
    """False if the run was interrupted."""
    command: tuple[Text, ...]
    machine: MachineRecord
    conditions: dict[Text, Text] = {}
    """Volatile state of the system (load, governor, GC), not part of the machine's identity."""
    calibration: tuple[CalibrationRecord, ...] = ()
    versions: dict[Text, Text]
    git: GitRecord | None = None
    selection: dict[Selectable, tuple[Text, ...]] = {}
    """Values of `SELECTABLE` that the command line restricted the run to, by name."""
    deselected: tuple[Text, ...] = ()
    """`BenchmarkRecord.key` of the items that the command line deselected: by name, keyword, marker, or as passed."""
    paths: tuple[Text, ...] = ()
    """Beginnings of node ids (files, directories, tests) that the command line restricted the run to; empty: none."""
    outcomes: tuple[OutcomeRecord, ...] = ()
    warnings: tuple[WarningRecord, ...] = ()
    labels: tuple[LabelsRecord, ...] = ()
    int8: tuple[Int8Record, ...] = ()
    """What `segcore quantize` found of each network in int8."""

    def peak_gmacs_per_s(self, device: str, precision: Precision) -> float | None:
        """Return the fastest product in a precision, or in fp32 if that is faster; None if it was not calibrated."""
        rates = {c.precision: c.peak_gmacs_per_s for c in self.calibration if c.device == device}
        return max(rates[precision], rates.get("fp32", 0.0)) if precision in rates else None

    cases: tuple[CaseRecord, ...] = ()


class Benchmark(Record):
    """One item of a run that was read."""

    name: Text
    samples: tuple[float, ...]
    """Seconds per round (per batch) of the main process, in the order measured."""
    info: BenchmarkRecord

    @property
    def processes(self) -> tuple[tuple[float, ...], ...]:
        """Samples of each process, the main one first; copies of another's samples count once."""
        return tuple(dict.fromkeys((self.samples, *(process.samples for process in self.info.processes))))

    def quiet(self) -> Benchmark:
        """Return the item without the processes that others disturbed, unless fewer than `MIN_QUIET` are left."""
        own = ProcessRecord.model_construct(
            samples=self.samples, reference=self.info.reference, other_load=self.info.other_load
        )
        kept = [p for p in (own, *self.info.processes) if (p.other_load or 0.0) <= MAX_OTHER_LOAD]
        if len(kept) < MIN_QUIET or len(kept) > len(self.info.processes):
            return self
        main, *further = kept
        update = {"reference": main.reference, "other_load": main.other_load, "processes": tuple(further)}
        return Benchmark(name=self.name, samples=main.samples, info=self.info.model_copy(update=update))

    @property
    def all_samples(self) -> tuple[float, ...]:
        """Samples of all processes, one process after the other."""
        return tuple(seconds for samples in self.processes for seconds in samples)

    @property
    def references(self) -> tuple[tuple[float, ...], ...]:
        """Seconds of the reference task in each of `processes`; empty if any of them has none."""
        found = {process.samples: process.reference for process in reversed(self.info.processes)}
        found[self.samples] = self.info.reference
        references = tuple(found[samples] for samples in self.processes)
        return references if all(references) else ()


class Run(Record):
    """A valid run file that was read."""

    path: Path
    record: RunRecord
    benchmarks: tuple[Benchmark, ...] = Field(default=())

    @property
    def measured(self) -> tuple[object, ...]:
        """When the run started and all its samples: equal only for a run and its copies."""
        return (self.record.started, *((benchmark.info.key, benchmark.samples) for benchmark in self.benchmarks))

    @property
    def nodes(self) -> dict[str, str]:
        """Node ids of the items that were to run, by key."""
        return {outcome.key: outcome.item for outcome in self.record.outcomes if outcome.key}

    def leaves_out(self, info: BenchmarkRecord, node: str | None) -> bool:
        """Return whether the command line left an item of another run, with that node id, out of this one."""
        paths = self.record.paths if node else ()
        elsewhere = paths and not any(f"{node}:".startswith((f"{path}/", f"{path}:", f"{path}[")) for path in paths)
        return info.key in self.record.deselected or bool(elsewhere) or not info.fits(self.record.selection)

    def labels_of(self, info: BenchmarkRecord) -> LabelSet | None:
        """Return the label set of an item, None if neither the run nor segcore knows it."""
        known = (*(record.labels for record in self.record.labels), *LABEL_SETS.values())
        return next((labels for labels in known if labels.digest == info.labels.sha256), None)

    @property
    def name(self) -> str:
        """Name the run was saved under."""
        return self.record.name
