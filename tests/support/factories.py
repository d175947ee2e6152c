"""Run files made without a model: real photos that scikit-image ships, masks drawn on them, and seeded latencies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from segcore.core.image_files import save_indexed_png
from segcore.core.labels import VOC, VOC_CLASSES
from segcore.core.records import (
    AccuracyRecord,
    Benchmark,
    BenchmarkRecord,
    CalibrationRecord,
    CheckRecord,
    GitRecord,
    Kind,
    LabelsRecord,
    MachineRecord,
    OutcomeRecord,
    Run,
    RunRecord,
    WeightsRecord,
)
from segcore.inputs.images import as_rgb_array, resource_path
from segcore.results.store import load_run, save_run

CASES = {"chelsea": ("chelsea.png", "cat"), "astronaut": ("astronaut.png", "person")}
"""Case -> file of scikit-image, class drawn into its mask."""
MODELS = {"embedded": (0.9, 0.020), "fcn_resnet101": (141.0, 0.900)}
"""Model -> GMACs at 320 pixels, seconds per call."""
SIZES = (160, 320)
BATCHES = (1, 2, 4)


def make_machine(cpu: str = "Imaginary CPU (family 6)") -> MachineRecord:
    return MachineRecord(
        cpu=cpu,
        cores_physical=2,
        cores_usable=2,
        cgroup_cpus=None,
        instruction_sets=("avx2", "fma"),
        memory_bytes=8 << 30,
        system="Linux x86_64",
        python="CPython 3.11",
        torch="2.9.0",
        torch_build="BLAS_INFO=mkl",
        intra_op_threads=2,
        inter_op_threads=1,
        thread_settings={"OMP_NUM_THREADS": "2"},
    )


def make_run(
    directory: Path,
    name: str = "base",
    *,
    slower: float = 1.0,
    shift: int = 0,
    seed: int = 0,
    rounds: int = 40,
    models: tuple[str, ...] = ("embedded", "fcn_resnet101"),
    outcomes: tuple[OutcomeRecord, ...] = (),
    cpu: str = "Imaginary CPU (family 6)",
    started: str = "2026-11-20T09:30:00+00:00",
) -> Run:
    """Save a run and return it as read again.

    Args:
        directory: of the run file; its pictures go into a folder beside it.
        name: of the run.
        slower: factor on every latency.
        shift: pixels by which the masks are moved, so that some change class.
        seed: of the latencies.
        rounds: samples per item.
        models: which of `MODELS`.
        outcomes: besides those of the items themselves.
        cpu: name of the processor.
        started: UTC, ISO 8601.
    """
    rng = np.random.default_rng(seed)
    items = [
        _latency(rng, model, case, size, rounds, slower) for model in models for case in CASES for size in SIZES
    ] + [_throughput(rng, model, batch, rounds, slower) for model in models for batch in BATCHES]
    items += [_accuracy(directory, name, model, case, shift) for model in models for case in CASES]
    clock = 0.0
    benchmarks = []
    for order, benchmark in enumerate(items):
        info = benchmark.info.model_copy(update={"order": order, "started_s": clock})
        clock += sum(benchmark.samples) + 0.3
        benchmarks.append(Benchmark(name=info.key, samples=benchmark.samples, info=info))
    passed = tuple(OutcomeRecord(item=b.name, kind=b.info.kind, outcome="passed", key=b.info.key) for b in benchmarks)
    record = RunRecord(
        name=name,
        started=started,
        duration_s=clock,
        complete=True,
        command=("pytest", "bench/"),
        machine=make_machine(cpu),
        conditions={"load before": "0.10"},
        calibration=(
            CalibrationRecord(device="cpu", matmul_gmacs_per_s=190.0, conv_gmacs_per_s=165.0, copy_gbytes_per_s=14.0),
        ),
        versions={"python": "3.11.9", "torch": "2.9.0"},
        git=GitRecord(commit="0123456789abcdef0123456789abcdef01234567", branch="main", dirty=False),
        outcomes=(*passed, *outcomes),
        labels=(LabelsRecord.of(VOC),),
    )
    run = Run(path=directory / f"{name}.json", record=record, benchmarks=tuple(benchmarks))
    save_run(run)
    return load_run(run.path)


def _info(kind: Kind, case: str, model: str, size: int, **more: object) -> BenchmarkRecord:
    batch = int(str(more.get("batch", 1)))
    fields: dict[str, object] = {
        "kind": kind,
        "case": case,
        "model": model,
        "weights": WeightsRecord(kind="pretrained", name=f"{model}.safetensors", sha256="ab" * 32),
        "device": "cpu",
        "size": size,
        "input_shape": (batch, 3, size, size),
        "preprocess": "shorter-side-bilinear",
        "gmacs": MODELS[model][0] * (size / 320) ** 2 * batch,
        "gbytes": 0.02 * MODELS[model][0] ** 0.5 * (size / 320) ** 2 * batch,
        **more,
    }
    return BenchmarkRecord.model_validate(fields)


def _samples(rng: np.random.Generator, seconds: float, rounds: int) -> tuple[float, ...]:
    spikes = np.where(rng.random(rounds) < 0.04, 1.3, 1.0)
    return tuple((seconds * np.exp(rng.normal(0, 0.02, rounds)) * spikes).tolist())


def _latency(rng: np.random.Generator, model: str, case: str, size: int, rounds: int, slower: float) -> Benchmark:
    samples = _samples(rng, MODELS[model][1] * (size / 320) ** 2 * slower, rounds)
    shares = {"preprocess": 0.08, "forward": 0.85, "postprocess": 0.07}
    stages = {stage: tuple(share * s for s in samples) for stage, share in shares.items()}
    info = _info("latency", case, model, size, stages=stages, peak_memory_bytes=300_000_000)
    return Benchmark(name=info.key, samples=samples, info=info)


def _throughput(rng: np.random.Generator, model: str, batch: int, rounds: int, slower: float) -> Benchmark:
    info = _info("throughput", "chelsea", model, 320, batch=batch)
    samples = _samples(rng, MODELS[model][1] * (batch**0.9) * slower, rounds)
    return Benchmark(name=info.key, samples=samples, info=info)


def _accuracy(directory: Path, run: str, model: str, case: str, shift: int) -> Benchmark:
    file, label = CASES[case]
    photo = as_rgb_array(resource_path(f"skimage:{file}"))
    class_map = drawn_mask(photo.shape[0], photo.shape[1], VOC_CLASSES.index(label), shift)
    folder = directory / f"{run}-maps"
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo).save(folder / f"{case}.jpg", quality=85)
    save_indexed_png(class_map, folder / f"{model}-{case}.png")
    share = float((class_map > 0).mean())
    accuracy = AccuracyRecord(
        dominant=label,
        fractions={label: share, "background": 1 - share},
        checks=(
            CheckRecord(name="dominant", wanted=label, found=label, passed=True),
            CheckRecord(name=f"fraction of {label}", wanted="at least 10 %", found=f"{share:.1%}", passed=share >= 0.1),
        ),
        class_map=f"{folder.name}/{model}-{case}.png",
        photo=f"{folder.name}/{case}.jpg",
    )
    info = _info("accuracy", case, model, 320, accuracy=accuracy)
    return Benchmark(name=info.key, samples=(MODELS[model][1],), info=info)


def drawn_mask(height: int, width: int, label: int, shift: int = 0) -> npt.NDArray[np.uint8]:
    """An ellipse of one class in the middle, moved right by `shift` pixels; uint8 (H, W)."""
    y, x = np.mgrid[:height, :width]
    inside = ((y / height - 0.55) / 0.4) ** 2 + (((x - shift) / width - 0.5) / 0.3) ** 2 <= 1
    return np.where(inside, label, 0).astype(np.uint8)


HOSTILE = "</script><script>window.pwned=1</script><img src=x onerror=window.pwned=1>\"'`|@all {{7*7}} \x1b[2J"
"""What a name from a pull request might be: it breaks out of scripts, attributes, markdown, templates and terminals."""
_KEPT = ("kind", "outcome", "code", "key", "photo", "class_map", "device", "precision")
"""Fields whose values are chosen from a list, must stay different from item to item, or name a file."""


def make_hostile(run: Run) -> Run:
    """Save a copy of a run in which every text is `HOSTILE`, and return it as read again."""
    record = RunRecord.model_validate(_poisoned(run.record.model_dump(exclude={"labels"})))
    benchmarks = tuple(
        Benchmark(name=HOSTILE, samples=b.samples, info=BenchmarkRecord.model_validate(_poisoned(b.info.model_dump())))
        for kind in ("latency", "throughput", "accuracy")
        for b in [next(b for b in run.benchmarks if b.info.kind == kind)]
    )
    hostile = Run(path=run.path.with_name("hostile.json"), record=record, benchmarks=benchmarks)
    save_run(hostile)
    return load_run(hostile.path)


def _poisoned(value: object, name: str = "") -> object:
    if isinstance(value, str) and name not in _KEPT:
        return HOSTILE
    if isinstance(value, dict):
        # The field names of a record must stay; those of free mappings are text like any other.
        free = name in ("versions", "conditions", "thread_settings", "fractions", "runtime_options")
        return {HOSTILE if free else key: _poisoned(inner, "" if free else key) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_poisoned(inner) for inner in value]
    return value
