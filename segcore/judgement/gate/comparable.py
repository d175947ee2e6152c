"""What two runs must have in common to be comparable, and what a change is about.

The instrument (machine, device, threads, precision, runtime, protocol, photos, metric) must be equal. Weights and
commit are what a change is about: they are named and judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import BaseModel

from segcore.core.records import Benchmark, BenchmarkRecord, DatasetRecord, MachineRecord, Run
from segcore.judgement.gate.images import has_counts
from segcore.judgement.paired_accuracy import image_differences

_COMMON_FIELDS = ("runtime", "precision", "device")
_SPEED_FIELDS = ("batch", "threads", "input_shape", "runtime_options")
_DATASET_FIELDS = ("name", "protocol", "sha256", "images", "label_map", "masks")
_NO_DATASET = DatasetRecord(name="none", sha256="none", images=0, protocol="none", scores={}, intervals={})
_LISTS = ("instruction_sets", "torch_build")
"""Fields with many parts, of which only those that changed are shown."""


def machine_differences(old: MachineRecord, new: MachineRecord) -> tuple[str, ...]:
    """Return the differences between two machines that affect speed, for example ``cores usable was 8, is 2``."""
    return _differences(old, new, tuple(MachineRecord.model_fields))


def item_differences(old: BenchmarkRecord, new: BenchmarkRecord, *, speed: bool) -> tuple[str, ...]:
    """Return the differences that make two records of one item incomparable in speed, or else in accuracy."""
    found = _differences(old, new, _COMMON_FIELDS + (_SPEED_FIELDS if speed else ()))
    before, after = _model_digest(old), _model_digest(new)
    if not (before and after) or before == after:  # another model file may want its input in another way
        found += _differences(old, new, ("preprocess",))
    if old.labels.sha256 != new.labels.sha256:
        found += (f"labels were {old.labels}, are {new.labels}",)
    for name in ("photo", "mask"):
        before, after = getattr(old, f"{name}_sha256"), getattr(new, f"{name}_sha256")
        if before and after and before != after:  # runs of schema version 1 and 2 have none
            found += (f"{name} was {before[:12]}, is {after[:12]}",)
    if not speed and (old.weights.kind == "random") != (new.weights.kind == "random"):
        found += (f"weights were {_weights(old)}, are {_weights(new)}",)
    if old.load and new.load:
        found += _differences(old.load, new.load, ("rate",))
    if speed:
        return found
    images = _dataset_differences(old, new) if old.dataset or new.dataset else ()
    if old.accuracy and new.accuracy and not images:  # the metric of a dataset names its images
        found += _differences(old.accuracy, new.accuracy, ("metric",))
    return (*found, *images)


def _dataset_differences(old: BenchmarkRecord, new: BenchmarkRecord) -> tuple[str, ...]:
    before, after = old.dataset or _NO_DATASET, new.dataset or _NO_DATASET
    if not (has_counts(old) and has_counts(new)):
        return _differences(before, after, _DATASET_FIELDS)
    same = ("name", "protocol", "label_map", "masks")
    return (*_differences(before, after, same), *image_differences(before.counts, after.counts))


def changes(baseline: Run, current: Run, pairs: Mapping[str, tuple[Benchmark, Benchmark]]) -> Iterator[str]:
    """Yield what the change is about, in words: commit, weights and model files, with the hashes of both.

    `pairs` are each item before and after, by key.
    """
    old, new = baseline.record.git, current.record.git
    if old and new and (old.commit != new.commit or old.dirty or new.dirty):
        before, after = (f"{git.commit[:10]}{' with uncommitted changes' * git.dirty}" for git in (old, new))
        yield f"commit was {before}, is {after}"
    found = (
        f"weights of {after.info.model} were {_weights(before.info)}, are {_weights(after.info)}"
        for before, after in pairs.values()
        if _weights_key(before.info) != _weights_key(after.info)
    )
    yield from dict.fromkeys(found)
    files = (
        f"model file of {after.info.model} was {_model_file(before.info)}, is {_model_file(after.info)}"
        for before, after in pairs.values()
        if _model_digest(before.info) != _model_digest(after.info)
    )
    yield from dict.fromkeys(files)


def other_weights(old: BenchmarkRecord, new: BenchmarkRecord) -> bool:
    """Return whether two records of one item are of different weights, or of model files that say something else."""
    return (_weights_key(old), _model_digest(old)) != (_weights_key(new), _model_digest(new))


def _weights_key(record: BenchmarkRecord) -> tuple[str, str]:
    return record.weights.kind, record.weights.sha256


def _model_digest(record: BenchmarkRecord) -> str | None:
    return record.model_file.sha256 if record.model_file else None


def _model_file(record: BenchmarkRecord) -> str:
    return f"{record.model_file.file} (sha256 {record.model_file.sha256[:12]})" if record.model_file else "none"


def _weights(record: BenchmarkRecord) -> str:
    return f"{record.weights.kind} {record.weights.name} (sha256 {record.weights.sha256[:12]})"


def _differences(old: BaseModel, new: BaseModel, fields: tuple[str, ...]) -> tuple[str, ...]:
    found: list[str] = []
    for name in fields:
        before, after = getattr(old, name), getattr(new, name)
        label = name.replace("_", " ")
        if before == after:
            continue
        if isinstance(before, dict):
            keys = sorted(key for key in before | after if before.get(key) != after.get(key))
            found += [f"{key} was {before.get(key, 'not set')}, is {after.get(key, 'not set')}" for key in keys]
        elif name in _LISTS:
            removed, added = sorted(_parts(before) - _parts(after)), sorted(_parts(after) - _parts(before))
            words = [f"without {part}" for part in removed] + [f"with {part}" for part in added]
            found.append(f"{label} now {', '.join(words) or 'in another order'}")
        else:
            found.append(f"{label} was {_text(before)}, is {_text(after)}")
    return tuple(found)


def _parts(value: str | tuple[str, ...]) -> set[str]:
    return set(value.split("; ") if isinstance(value, str) else value)


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " + ".join(_text(part) for part in value) or "none"
    if isinstance(value, BaseModel):
        return " ".join(str(part) for part in value.model_dump().values())
    return str(value)
