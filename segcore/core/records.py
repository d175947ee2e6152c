"""The schema of a run file: what segcore adds to pytest-benchmark's JSON.

pytest-benchmark writes one object per benchmark with the raw samples under ``stats.data``. segcore adds a
`BenchmarkRecord` to each benchmark's ``extra_info.segcore`` and one `RunRecord` as the top-level ``segcore`` object.
segcore computes statistics from the samples when it reads a run; it stores none.

Every model is frozen and refuses unknown keys; a reader refuses a schema version that is not in `READABLE_VERSIONS`.
Run files come from other machines and other people's branches: numbers are finite and have a range, text is printable
and has a length (`Text`), and what can be a choice is one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from segcore.core.errors import UsageError
from segcore.core.labels import LABEL_SETS, VOC, LabelSet
from segcore.core.limits import Limits
from segcore.core.text import bounded

SCHEMA_VERSION = 3
"""Version written. Warnings have fields since version 2; in version 1 they are text. Version 3 adds what the gate needs
to know of a run: hashes of photos, the selection on the command line, bounds of checks."""
READABLE_VERSIONS = (1, 2, 3)

Stage = Literal["decode", "preprocess", "transfer", "forward", "postprocess", "colorize"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""Stages of the pipeline, in order."""
Kind = Literal["accuracy", "latency", "throughput", "load", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which the items of a model run."""
TIMED: tuple[Kind, ...] = ("latency", "throughput", "load")
"""Kinds whose samples are the result; the samples of other kinds only document how long the item took."""
ITEM_FIELDS = ("case", "model", "runtime", "precision", "device", "size", "batch", "threads", "scenario")
"""What identifies an item among those of its kind: fields of `BenchmarkRecord`."""
Selectable = Literal["case", "tag", "model", "device", "runtime", "precision", "size", "batch", "threads", "scenario"]
SELECTABLE: tuple[Selectable, ...] = get_args(Selectable)
"""What ``--segcore-NAME`` can select items by."""
WeightsKind = Literal["pretrained", "random", "checkpoint"]
OutcomeKind = Literal["passed", "failed", "skipped", "error"]
Scenario = Literal["offline", "single-stream", "multi-stream", "server"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Device = Annotated[str, Field(pattern=r"^(cpu|cuda|mps)(:[0-9]{1,3})?$")]
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

Text = Annotated[str, AfterValidator(bounded)]
"""Any text; what cannot be printed becomes a space, and what is too long is cut off."""
MOST = 1e15
"""Larger than any figure of a run; sums, products and ratios of such numbers stay finite."""
LEAST = 1e-12
"""Smaller than any positive figure of a run."""
Number = Annotated[float, Field(ge=-MOST, le=MOST, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, le=MOST, allow_inf_nan=False)]
Positive = Annotated[float, Field(ge=LEAST, le=MOST, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1 + 1e-9, allow_inf_nan=False)]
"""Of a whole, 0 to 1; a mean of shares may be rounded up."""
Count = Annotated[int, Field(ge=0, lt=2**63)]
PositiveCount = Annotated[int, Field(ge=1, le=10**9)]
Pixels = Annotated[int, Field(ge=0, le=10**10)]
"""Of one image; sums over images fit into 64 bits."""
ClassPixels = tuple[Pixels, Pixels, Pixels, Pixels, Pixels, Pixels]
"""Of one class in one image: pixels that are right, in the mask and predicted, and the same of bands along contours."""
MAX_COUNTED = 50_000
"""Most images whose counts are kept in a run file."""


class Record(BaseModel):
    """Base of all records: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WarningRecord(Record):
    """One reason why a figure, or all figures of a run, may be unreliable."""

    code: WarningCode
    """``other`` for a warning in a run file of schema version 1, which has only text."""
    value: Number | None = None
    """Size of the effect: a share or relative change, or a count of rounds, threads or events."""
    text: Text

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return {"code": "other", "text": data} if isinstance(data, str) else data


class WeightsRecord(Record):
    """The weights of a model: kind, name (enum, file name or seed) and the SHA-256 of their file or state."""

    kind: WeightsKind
    name: Text
    sha256: Text

    @property
    def warning(self) -> str:
        """Suffix of the model's name in tables if the weights are random, else an empty string."""
        return " (random weights)" if self.kind == "random" else ""


class LabelsRef(Record):
    """Which label set an item has; `RunRecord.labels` has its classes."""

    name: Text
    classes: PositiveCount
    sha256: Text
    """`segcore.core.labels.LabelSet.digest`: of what figures depend on."""

    @classmethod
    def of(cls, labels: LabelSet) -> Self:
        """Return the reference to a label set."""
        return cls(name=labels.name, classes=len(labels), sha256=labels.digest)

    def __str__(self) -> str:
        """Return for example ``voc (21 classes, sha256 c602f59c0b5e)``."""
        return f"{self.name} ({self.classes} classes, sha256 {self.sha256[:12]})"


class LabelsRecord(Record):
    """A label set: see `segcore.core.labels.LabelSet`."""

    name: Text
    names: tuple[Text, ...]
    colors: tuple[Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")], ...]
    """``#rrggbb`` of each class."""
    background: Count | None = None
    ignore: Count | None = None

    @classmethod
    def of(cls, labels: LabelSet) -> Self:
        """Return the record of a label set."""
        colors = tuple("#{:02x}{:02x}{:02x}".format(*color) for color in labels.colors)
        kept = {"background": labels.background, "ignore": labels.ignore}
        return cls(name=labels.name, names=labels.names, colors=colors, **kept)

    @cached_property
    def labels(self) -> LabelSet:
        """The label set, without aliases."""
        colors = tuple((*bytes.fromhex(color[1:]),) for color in self.colors)
        return LabelSet(self.name, self.names, colors, {}, self.background, self.ignore)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        try:
            _ = self.labels
        except UsageError as error:
            raise PydanticCustomError("labels", "{problem}", {"problem": str(error)}) from None
        return self


class ModelFileRecord(Record):
    """The model file behind a model, or the file that describes itself."""

    file: Text
    """Its name."""
    sha256: Text
    """Of what it says, however it is written: source, labels, input and output."""
    source: Text
    """Kind of the source, such as ``onnx``."""
    assumptions: tuple[Text, ...] = ()
    """What nobody has said of the model and was assumed."""


class CheckRecord(Record):
    """Result of one expectation of a case."""

    name: Text
    """For example ``dominant`` or ``fraction of cat``."""
    wanted: Text
    found: Text
    passed: bool
    least: Number | None = None
    """Lower bound of what is wanted, if it is a number."""
    most: Number | None = None
    """Upper bound."""

    def loosens(self, before: CheckRecord) -> bool:
        """Return whether more passes here than before; also if that cannot be told, because no bounds are known."""
        if self.wanted == before.wanted:
            return False
        if {before.least, before.most} == {None} or {self.least, self.most} == {None}:
            return True
        lower = before.least is not None and (self.least is None or self.least < before.least)
        return lower or (before.most is not None and (self.most is None or self.most > before.most))


class AccuracyRecord(Record):
    """Prediction of a model for one photo, and how it meets the expectations.

    Fractions are shares of all pixels at the photo's own resolution (0 to 1). IoUs need a ground-truth mask.
    Paths are relative to the directory of the run file.
    """

    dominant: Text
    fractions: dict[Text, Share]
    checks: tuple[CheckRecord, ...] = ()
    iou: dict[Text, Share] | None = None
    miou: Share | None = None
    pixel_accuracy: Share | None = None
    metric: Text | None = None
    """Name of the convention behind the three numbers above; different names are not comparable."""
    class_map: Text | None = None
    """Indexed PNG of the class map at the photo's resolution."""
    margin_map: Text | None = None
    """Greyscale PNG of the top-1 minus top-2 logit margin at model scale; see `MARGIN_PNG_STEP`."""
    photo: Text | None = None
    """JPEG of the photo, for reports."""
    overlay: Text | None = None

    @property
    def scores(self) -> dict[str, float]:
        """Scores by the names that reports use: ``mIoU``, ``pixel accuracy``, ``IoU cat``."""
        named = {"mIoU": self.miou, "pixel accuracy": self.pixel_accuracy}
        named |= {f"IoU {name}": value for name, value in (self.iou or {}).items()}
        return {name: value for name, value in named.items() if value is not None}

    @property
    def passed(self) -> bool:
        """Whether every expectation holds."""
        return all(check.passed for check in self.checks)


MARGIN_PNG_STEP = 1 / 32
"""Logits per grey level of a stored margin map; 255 means 255 * step or more."""


class WorstRecord(Record):
    """One of the images with the lowest scores."""

    name: Text
    miou: Share
    picture: Text | None = None
    """JPEG of photo, mask and prediction side by side; relative to the directory of the run file."""


class DatasetRecord(Record):
    """Accuracy over a dataset under one protocol, in addition to its `AccuracyRecord`.

    All figures are shares (0 to 1), by name: ``miou``, ``dice``, ``iou cat`` and so on
    (`segcore.core.scores.score_names`); undefined figures (a class in neither masks nor predictions) are omitted.
    """

    name: Text
    """For example ``voc-val``."""
    sha256: Text
    """Of the names of the requested images, in order."""
    label_map: dict[Text, Text] = {}
    """What the dataset's classes count as: a class of the model or ``ignore``, by name, if a file says so."""
    images: Count
    """Number of scored images."""
    failed: dict[Text, Text] = {}
    """Reason by name of the images that could not be scored."""
    protocol: Text
    scores: dict[Text, Share]
    intervals: dict[Text, tuple[Share, Share]]
    """95 % confidence intervals by bootstrap over images, of every score."""
    published: dict[Text, Share] = {}
    """Scores that the publisher of the weights reports for the same dataset and protocol."""
    matrix: tuple[tuple[Count, ...], ...] | None = None
    """Pixels by target class and predicted class; None if the scores are means over images,
    and for more than 256 classes."""
    counts: dict[Text, dict[Text, ClassPixels]] = {}
    """Pixels of each scored image, by its name and by class, from which two runs are compared image by image; none in
    older runs, and with more than `MAX_COUNTED` images."""
    worst: tuple[WorstRecord, ...] = ()

    @property
    def per_image(self) -> bool:
        """Whether the scores are means over images, rather than of all pixels together."""
        return self.protocol == "per-image"

    @model_validator(mode="after")
    def _every_score_has_an_interval(self) -> Self:
        if without := [name for name in self.scores if name not in self.intervals]:
            raise PydanticCustomError("interval", "no interval for the score {name}", {"name": without[0]})
        return self


class EnergyRecord(Record):
    """Energy used during an item according to a counter of the machine, including that of other processes."""

    joules: Positive
    """From the end of the warm-up to the end of the item."""
    calls: PositiveCount
    """Calls of the pipeline on the whole batch in that time."""
    counter: Text
    """For example ``RAPL package-0 + dram``."""


class LoadTrialRecord(Record):
    """One rate that a search tried."""

    rate: Amount
    """Queries per second."""
    validity: Validity
    latencies_s: tuple[Amount, ...]
    """Of each query, from when it was due to its end."""


class LoadRecord(Record):
    """Result of a load scenario.

    The samples of the item are the latencies of its queries, with two exceptions: offline, the times of its batches;
    in a search of the highest rate, the latencies of the queries that were first served one by one.
    """

    seed: Count
    """Of the arrivals in the server scenario."""
    rate: Positive | None = None
    """Queries per second that were requested in the server scenario; None if the rate was searched."""
    max_p99_ms: Positive | None = None
    """Limit on the 99th percentile in the server scenario."""
    validity: Validity | None = None
    """Whether the limit was kept, by MLPerf's early stopping rule; None without a limit."""
    queries: Count
    """Queries behind the figures below: for a search, of the run at the highest rate that kept the limit."""
    over: Count = 0
    """How many of them took longer than the limit."""
    images_per_s: Amount | None = None
    bounds_s: dict[Literal["p50", "p90", "p99"], Amount] = {}
    """Bounds on p50, p90 and p99 of the latency at 99 % confidence; omitted where the queries are too few."""
    highest_rate: Positive | None = None
    """Result of a search: the highest rate that was proven to keep the limit."""
    lowest_failed_rate: Positive | None = None
    """The lowest rate above it that was not."""
    trials: tuple[LoadTrialRecord, ...] = ()


MAX_OTHER_LOAD = 0.10
"""Largest share of the machine's processor time that other processes may take; beyond, they disturb a measurement."""


class ProcessRecord(Record):
    """What one process measured of a speed item."""

    samples: tuple[Positive, ...] = Field(min_length=1)
    """Seconds per round (per batch), in the order measured."""
    reference: tuple[Positive, ...] = ()
    """Seconds of the reference task before each round: see `segcore.measurement.reference`."""
    other_load: Share | None = None
    """Share of the machine's processor time that other processes used meanwhile; None if unknown."""


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
    device: Device
    """Device type: ``cpu``, ``cuda`` or ``mps``; ``cuda:1`` if an index was given."""
    size: PositiveCount
    """Shorter side at model scale, pixels."""
    batch: PositiveCount = 1
    threads: PositiveCount | None = None
    """Intra-op threads of an item in a sweep over threads; None means those of the run (`MachineRecord`)."""
    scenario: Scenario | None = None
    """Of a load item."""
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
    """Seconds of the reference task before each round of the main process."""
    other_load: Share | None = None
    """As in `ProcessRecord`, of the main process."""
    processes: tuple[ProcessRecord, ...] = ()
    """Further processes that measured the item; the samples of the main process are the benchmark's own."""
    stages: dict[Stage, tuple[Amount, ...]] = {}
    """Seconds per round by stage: see `STAGES`."""
    gmacs: Positive | None = None
    """Giga multiply-accumulates of one forward pass of the whole batch."""
    gbytes: Positive | None = None
    """Minimum of gigabytes that the convolutions of one forward pass move; see `segcore.inference.models.gbytes`."""
    peak_memory_bytes: Count | None = None
    """Peak over the rounds: of torch's allocator on CUDA, of the resident set size on a Linux CPU."""
    energy: EnergyRecord | None = None
    """None if the machine has no readable counter."""
    accuracy: AccuracyRecord | None = None
    dataset: DatasetRecord | None = None
    load: LoadRecord | None = None
    limits: Limits = Limits()
    tags: tuple[Text, ...] = ()
    order: Count = 0
    """Position in the run, from 0."""
    started_s: Amount = 0.0
    """Seconds from the start of the run to the first round."""
    warnings: tuple[WarningRecord, ...] = ()

    @property
    def joules_per_image(self) -> float | None:
        """Energy per image, None if it was not measured."""
        return self.energy.joules / (self.energy.calls * self.batch) if self.energy else None

    def fits(self, selection: Mapping[Selectable, Collection[str]]) -> bool:
        """Return whether values of `SELECTABLE` select the item; some apply to some kinds of items alone."""
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

    Args:
        kind: of the item; the batch size is part of the id for throughput, and for load if it is not 1.
        fields: the values of `ITEM_FIELDS`.
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


class GpuRecord(Record):
    """One accelerator: its name, driver and memory in bytes."""

    name: Text
    driver: Text
    memory_bytes: Count | None = None


class MachineRecord(Record):
    """What determines the speed of a machine; the speeds of two runs are comparable only if all fields are equal."""

    cpu: Text
    cores_physical: PositiveCount | None
    cores_usable: PositiveCount
    """Logical processors that this process may run on (affinity)."""
    cgroup_cpus: Positive | None
    """CPU quota of the control group in processors, None if unlimited."""
    instruction_sets: tuple[Text, ...]
    memory_bytes: Count
    system: Text
    """Operating system and architecture, without patch levels."""
    gpus: tuple[GpuRecord, ...] = ()
    python: Text
    torch: Text
    torch_build: Text
    """BLAS, oneDNN, OpenMP and CPU capability of torch's build."""
    intra_op_threads: PositiveCount
    inter_op_threads: PositiveCount
    thread_settings: dict[Text, Text] = {}
    """Environment variables that set thread counts, if they are set."""


class CalibrationRecord(Record):
    """Peak rates of a device, measured in the same session (medians of repeated rounds)."""

    device: Device
    matmul_gmacs_per_s: Positive
    conv_gmacs_per_s: Positive
    copy_gbytes_per_s: Positive


class GitRecord(Record):
    """Commit that was measured."""

    commit: Text
    branch: Text | None
    dirty: bool


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


class RunRecord(Record):
    """The top-level ``segcore`` object of a run file."""

    schema_version: int = SCHEMA_VERSION
    name: Text
    started: Text
    """UTC, ISO 8601."""
    duration_s: Amount
    complete: bool
    """False if the run was interrupted; the items measured before are in the file."""
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
    """`BenchmarkRecord.key` of the items that the command line deselected by name, keyword or marker."""
    outcomes: tuple[OutcomeRecord, ...] = ()
    warnings: tuple[WarningRecord, ...] = ()
    labels: tuple[LabelsRecord, ...] = ()
    """The label sets of the items, each once."""


class Benchmark(Record):
    """One item of a run that was read."""

    name: Text
    samples: tuple[float, ...]
    """Seconds per round (per batch) of the main process, in the order measured."""
    info: BenchmarkRecord

    @property
    def processes(self) -> tuple[tuple[float, ...], ...]:
        """Samples of each process, the main one first; a copy of another process's samples is no further process."""
        return tuple(dict.fromkeys((self.samples, *(process.samples for process in self.info.processes))))

    def quiet(self, least: int) -> Benchmark:
        """Return the item without the processes that others disturbed, unless fewer than `least` are left.

        What others used was measured apart from the times, so leaving these out does not favour quick processes.
        """
        own = ProcessRecord.model_construct(
            samples=self.samples, reference=self.info.reference, other_load=self.info.other_load
        )
        kept = [p for p in (own, *self.info.processes) if (p.other_load or 0.0) <= MAX_OTHER_LOAD]
        if len(kept) < least or len(kept) > len(self.info.processes):
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
        """When the run started and all its samples: equal for a run and its copies alone."""
        return (self.record.started, *((benchmark.info.key, benchmark.samples) for benchmark in self.benchmarks))

    def leaves_out(self, info: BenchmarkRecord) -> bool:
        """Return whether the command line left an item out of the run."""
        return info.key in self.record.deselected or not info.fits(self.record.selection)

    def labels_of(self, info: BenchmarkRecord) -> LabelSet | None:
        """Return the label set of an item, None if neither the run nor segcore knows it."""
        known = (*(record.labels for record in self.record.labels), *LABEL_SETS.values())
        return next((labels for labels in known if labels.digest == info.labels.sha256), None)

    @property
    def name(self) -> str:
        """Name the run was saved under."""
        return self.record.name
