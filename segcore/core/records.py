"""The schema of a run file: what segcore adds to pytest-benchmark's JSON.

pytest-benchmark writes one object per benchmark with the raw samples under ``stats.data``. segcore adds a
`BenchmarkRecord` to each benchmark's ``extra_info.segcore`` and one `RunRecord` as the top-level ``segcore`` object.
segcore computes statistics from the samples when it reads a run; it stores none.

Every model is frozen and refuses unknown keys; a reader refuses a schema version that is not in `READABLE_VERSIONS`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from segcore.core.limits import Limits

SCHEMA_VERSION = 3
"""Version written. Warnings have fields since version 2; in version 1 they are text. Version 3 adds what the gate needs
to know of a run: hashes of photos, the selection on the command line, bounds of checks."""
READABLE_VERSIONS = (1, 2, 3)

STAGES = ("decode", "preprocess", "transfer", "forward", "postprocess", "colorize")
"""Stages of the pipeline, in order."""
Kind = Literal["accuracy", "latency", "throughput", "load", "dataset"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which the items of a model run."""
TIMED: tuple[Kind, ...] = ("latency", "throughput", "load")
"""Kinds whose samples are the result; the samples of other kinds only document how long the item took."""
ITEM_FIELDS = ("case", "model", "runtime", "precision", "device", "size", "batch", "threads", "scenario")
"""What identifies an item among those of its kind: fields of `BenchmarkRecord`."""
SELECTABLE = ("case", "tag", "model", "device", "runtime", "precision", "size", "batch", "threads", "scenario")
"""What ``--segcore-NAME`` can select items by."""
WeightsKind = Literal["pretrained", "random", "checkpoint"]
OutcomeKind = Literal["passed", "failed", "skipped", "error"]
Scenario = Literal["offline", "single-stream", "multi-stream", "server"]
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
    "no-trace",
    "other",
]


class Record(BaseModel):
    """Base of all records: frozen, unknown keys refused, NaN and infinity kept so that a reader can refuse them."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class WarningRecord(Record):
    """One reason why a figure, or all figures of a run, may be unreliable."""

    code: WarningCode
    """``other`` for a warning in a run file of schema version 1, which has only text."""
    value: float | None = None
    """Size of the effect: a share or relative change, or a count of rounds, threads or events."""
    text: str

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, data: Any) -> Any:
        return {"code": "other", "text": data} if isinstance(data, str) else data


class WeightsRecord(Record):
    """The weights of a model: kind, name (enum, file name or seed) and the SHA-256 of their file or state."""

    kind: WeightsKind
    name: str
    sha256: str

    @property
    def warning(self) -> str:
        """Suffix of the model's name in tables if the weights are random, else an empty string."""
        return " (random weights)" if self.kind == "random" else ""


class CheckRecord(Record):
    """Result of one expectation of a case."""

    name: str
    """For example ``dominant`` or ``fraction of cat``."""
    wanted: str
    found: str
    passed: bool


class AccuracyRecord(Record):
    """Prediction of a model for one photo, and how it meets the expectations.

    Fractions are shares of all pixels at the photo's own resolution (0 to 1). IoUs need a ground-truth mask.
    Paths are relative to the directory of the run file.
    """

    dominant: str
    fractions: dict[str, float]
    checks: tuple[CheckRecord, ...] = ()
    iou: dict[str, float] | None = None
    miou: float | None = None
    pixel_accuracy: float | None = None
    metric: str | None = None
    """Name of the convention behind the three numbers above; different names are not comparable."""
    class_map: str | None = None
    """Indexed PNG of the class map at the photo's resolution."""
    margin_map: str | None = None
    """Greyscale PNG of the top-1 minus top-2 logit margin at model scale; see `MARGIN_PNG_STEP`."""
    photo: str | None = None
    """JPEG of the photo, for reports."""
    overlay: str | None = None

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

    name: str
    miou: float
    picture: str | None = None
    """JPEG of photo, mask and prediction side by side; relative to the directory of the run file."""


class DatasetRecord(Record):
    """Accuracy over a dataset under one protocol, in addition to its `AccuracyRecord`.

    All figures are shares (0 to 1), by name: ``miou``, ``dice``, ``iou cat`` and so on
    (`segcore.evaluation.metrics.SCORES`); undefined figures (a class in neither masks nor predictions) are omitted.
    """

    name: str
    """For example ``voc-val``."""
    sha256: str
    """Of the names of the requested images, in order."""
    images: int
    """Number of scored images."""
    failed: dict[str, str] = {}
    """Reason by name of the images that could not be scored."""
    protocol: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    """95 % confidence intervals by bootstrap over images."""
    published: dict[str, float] = {}
    """Scores that the publisher of the weights reports for the same dataset and protocol."""
    matrix: tuple[tuple[int, ...], ...] | None = None
    """Pixels by target class and predicted class; None if the scores are means over images."""
    worst: tuple[WorstRecord, ...] = ()


class EnergyRecord(Record):
    """Energy used during an item according to a counter of the machine, including that of other processes."""

    joules: float
    """From the end of the warm-up to the end of the item."""
    calls: int
    """Calls of the pipeline on the whole batch in that time."""
    counter: str
    """For example ``RAPL package-0 + dram``."""


class LoadTrialRecord(Record):
    """One rate that a search tried."""

    rate: float
    """Queries per second."""
    validity: Validity
    latencies_s: tuple[float, ...]
    """Of each query, from when it was due to its end."""


class LoadRecord(Record):
    """Result of a load scenario.

    The samples of the item are the latencies of its queries, with two exceptions: offline, the times of its batches;
    in a search of the highest rate, the latencies of the queries that were first served one by one.
    """

    seed: int
    """Of the arrivals in the server scenario."""
    rate: float | None = None
    """Queries per second that were requested in the server scenario; None if the rate was searched."""
    max_p99_ms: float | None = None
    """Limit on the 99th percentile in the server scenario."""
    validity: Validity | None = None
    """Whether the limit was kept, by MLPerf's early stopping rule; None without a limit."""
    queries: int
    """Queries behind the figures below: for a search, of the run at the highest rate that kept the limit."""
    over: int = 0
    """How many of them took longer than the limit."""
    images_per_s: float | None = None
    bounds_s: dict[str, float] = {}
    """Bounds on p50, p90 and p99 of the latency at 99 % confidence; omitted where the queries are too few."""
    highest_rate: float | None = None
    """Result of a search: the highest rate that was proven to keep the limit."""
    lowest_failed_rate: float | None = None
    """The lowest rate above it that was not."""
    trials: tuple[LoadTrialRecord, ...] = ()


class BenchmarkRecord(Record):
    """One measured item: ``extra_info.segcore`` of one benchmark."""

    kind: Kind
    case: str
    model: str
    weights: WeightsRecord
    runtime: str = "torch"
    runtime_options: dict[str, str] = {}
    precision: str = "fp32"
    build_s: float | None = None
    """Seconds of exporting, quantising and compiling, not part of any sample; 0.0 if everything was cached."""
    device: str
    """Device type: ``cpu``, ``cuda`` or ``mps``; ``cuda:1`` if an index was given."""
    size: int
    """Shorter side at model scale, pixels."""
    batch: int = 1
    threads: int | None = None
    """Intra-op threads of an item in a sweep over threads; None means those of the run (`MachineRecord`)."""
    scenario: Scenario | None = None
    """Of a load item."""
    input_shape: tuple[int, int, int, int]
    """(B, 3, H, W) of the model's input."""
    preprocess: str
    """Name of the preprocessing convention; a change makes runs incomparable."""
    photo_sha256: str | None = None
    """SHA-256 of the photo's file; None for a dataset."""
    mask_sha256: str | None = None
    """SHA-256 of the ground-truth mask's file, of an accuracy item that has one."""
    stages: dict[str, tuple[float, ...]] = {}
    """Seconds per round by stage: see `STAGES`."""
    gmacs: float | None = None
    """Giga multiply-accumulates of one forward pass of the whole batch."""
    gbytes: float | None = None
    """Minimum of gigabytes that the convolutions of one forward pass move; see `segcore.inference.models.gbytes`."""
    peak_memory_bytes: int | None = None
    """Peak over the rounds: of torch's allocator on CUDA, of the resident set size on a Linux CPU."""
    energy: EnergyRecord | None = None
    """None if the machine has no readable counter."""
    accuracy: AccuracyRecord | None = None
    dataset: DatasetRecord | None = None
    load: LoadRecord | None = None
    limits: Limits = Limits()
    tags: tuple[str, ...] = ()
    order: int = 0
    """Position in the run, from 0."""
    started_s: float = 0.0
    """Seconds from the start of the run to the first round."""
    warnings: tuple[WarningRecord, ...] = ()

    @property
    def joules_per_image(self) -> float | None:
        """Energy per image, None if it was not measured."""
        return self.energy.joules / (self.energy.calls * self.batch) if self.energy else None

    def fits(self, selection: Mapping[str, Collection[str]]) -> bool:
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

    name: str
    driver: str
    memory_bytes: int | None = None


class MachineRecord(Record):
    """What determines the speed of a machine; the speeds of two runs are comparable only if all fields are equal."""

    cpu: str
    cores_physical: int | None
    cores_usable: int
    """Logical processors that this process may run on (affinity)."""
    cgroup_cpus: float | None
    """CPU quota of the control group in processors, None if unlimited."""
    instruction_sets: tuple[str, ...]
    memory_bytes: int
    system: str
    """Operating system and architecture, without patch levels."""
    gpus: tuple[GpuRecord, ...] = ()
    python: str
    torch: str
    torch_build: str
    """BLAS, oneDNN, OpenMP and CPU capability of torch's build."""
    intra_op_threads: int
    inter_op_threads: int
    thread_settings: dict[str, str] = {}
    """Environment variables that set thread counts, if they are set."""


class CalibrationRecord(Record):
    """Peak rates of a device, measured in the same session (medians of repeated rounds)."""

    device: str
    matmul_gmacs_per_s: float
    conv_gmacs_per_s: float
    copy_gbytes_per_s: float


class GitRecord(Record):
    """Commit that was measured."""

    commit: str
    branch: str | None
    dirty: bool


class OutcomeRecord(Record):
    """How one collected item ended, and why if it did not pass."""

    item: str
    kind: str
    outcome: OutcomeKind
    reason: str = ""
    where: str = ""
    """File or URL that the reason is about and does not name, so that equal reasons can be grouped."""
    key: str | None = None
    """`BenchmarkRecord.key` of the item, also if it was not measured."""


class RunRecord(Record):
    """The top-level ``segcore`` object of a run file."""

    schema_version: int = SCHEMA_VERSION
    name: str
    started: str
    """UTC, ISO 8601."""
    duration_s: float
    complete: bool
    """False if the run was interrupted; the items measured before are in the file."""
    command: tuple[str, ...]
    machine: MachineRecord
    conditions: dict[str, str] = {}
    """Volatile state of the system (load, governor, GC), not part of the machine's identity."""
    calibration: tuple[CalibrationRecord, ...] = ()
    versions: dict[str, str]
    git: GitRecord | None = None
    selection: dict[str, tuple[str, ...]] = {}
    """Values of `SELECTABLE` that the command line restricted the run to, by name."""
    deselected: tuple[str, ...] = ()
    """`BenchmarkRecord.key` of the items that the command line deselected by name, keyword or marker."""
    outcomes: tuple[OutcomeRecord, ...] = ()
    warnings: tuple[WarningRecord, ...] = ()


class Benchmark(Record):
    """One item of a run that was read."""

    name: str
    samples: tuple[float, ...]
    """Seconds per round (per batch), in the order measured."""
    info: BenchmarkRecord


class Run(Record):
    """A valid run file that was read."""

    path: Path
    record: RunRecord
    benchmarks: tuple[Benchmark, ...] = Field(default=())

    def leaves_out(self, info: BenchmarkRecord) -> bool:
        """Return whether the command line left an item out of the run."""
        return info.key in self.record.deselected or not info.fits(self.record.selection)

    @property
    def name(self) -> str:
        """Name the run was saved under."""
        return self.record.name
