"""Run files on disk: written whole, found again by path, name or ``latest``, and read with every doubt spoken out.

A run file is pytest-benchmark's own JSON with segcore's records inside; see `segcore.core.records`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pytest_benchmark import __version__ as pytest_benchmark_version
from pytest_benchmark.stats import Stats

from segcore.core.errors import RecordError, nearest_hint
from segcore.core.files import write_file
from segcore.core.records import READABLE_VERSIONS, SCHEMA_VERSION, Benchmark, BenchmarkRecord, Record, Run, RunRecord

_R = TypeVar("_R", bound=Record)

DEFAULT_DIRECTORY = Path("reports/runs")
UNSAVED = "unsaved"
"""Name of the run file of a run that nobody asked to save; it is never found by name or as ``latest``."""


def load_run(path: str | Path) -> Run:
    """Return the run in a file.

    Benchmarks of other plugins or suites in the same file carry no segcore record and are not part of the run.

    Raises:
        RecordError: the file cannot be read, is not a run file of ours, or is of an unknown schema version.
    """
    path = Path(path)
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise RecordError(
            f"{path}: cannot be read: {error.strerror}; see `segcore history` for the runs there are"
        ) from None
    except ValueError as error:
        raise RecordError(f"{path}: not JSON ({error}); was it cut off while being copied?") from None
    return parse_run(document, path)


def parse_run(document: object, path: Path) -> Run:
    """Return the run in a parsed document; `path` is named in errors and becomes the run's own.

    Raises:
        RecordError: the document is not a run file of ours, or of an unknown schema version.
    """
    head = document.get("segcore") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(head, dict):
        raise RecordError(
            f"{path}: not a run file of segcore: it has no `segcore` object; "
            "wanted a file written by `pytest bench/ --benchmark-save`"
        )
    version = head.get("schema_version")
    if version not in READABLE_VERSIONS:
        known = " and ".join(map(str, READABLE_VERSIONS))
        raise RecordError(
            f"{path}: schema version {version!r} is unknown to this segcore, which reads versions {known}; "
            "use the segcore that wrote it, or record the run again"
        )
    record = _validated(RunRecord, {**head, "schema_version": SCHEMA_VERSION}, f"{path}: segcore")
    entries = document.get("benchmarks")
    if not isinstance(entries, list):
        raise RecordError(f"{path}: benchmarks: wanted a list, found {type(entries).__name__}; record the run again")
    benchmarks = [_benchmark(entry, f"{path}: benchmarks[{i}]") for i, entry in enumerate(entries) if _is_ours(entry)]
    _refuse_duplicates(benchmarks, path)
    return Run(path=path, record=record, benchmarks=tuple(benchmarks))


def _is_ours(entry: object) -> bool:
    extra = entry.get("extra_info") if isinstance(entry, dict) else None
    return not isinstance(entry, dict) or (isinstance(extra, dict) and "segcore" in extra)


def _benchmark(entry: object, where: str) -> Benchmark:
    if not isinstance(entry, dict):
        raise RecordError(f"{where}: wanted an object, found {type(entry).__name__}; record the run again")
    where = f"{where} ({entry.get('name')})"
    info = _validated(BenchmarkRecord, entry["extra_info"]["segcore"], f"{where}: extra_info.segcore")
    stats = entry.get("stats")
    samples = stats.get("data") if isinstance(stats, dict) else None
    if not isinstance(samples, list) or not samples:
        raise RecordError(
            f"{where}: stats.data: the raw samples are missing; record the run again with segcore's plugin"
        )
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in samples):
        raise RecordError(f"{where}: stats.data: wanted numbers of seconds, found something else; record the run again")
    return Benchmark(name=str(entry.get("name")), samples=tuple(float(value) for value in samples), info=info)


def _refuse_duplicates(benchmarks: Sequence[Benchmark], path: Path) -> None:
    seen: set[str] = set()
    for benchmark in benchmarks:
        if benchmark.info.key in seen:
            raise RecordError(f"{path}: {benchmark.info.key} is in the run twice; which one counts cannot be told")
        seen.add(benchmark.info.key)


def _validated(model: type[_R], data: object, where: str) -> _R:
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        known = list(model.model_fields)
        hint = nearest_hint(str(first["loc"][-1]), known) if first["type"] == "extra_forbidden" else ""
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise RecordError(f"{where}: {place}: {first['msg'].lower()}{hint}{more}; record the run again") from None


def find_runs(directory: str | Path = DEFAULT_DIRECTORY) -> tuple[Path, ...]:
    """Return the run files below a directory, oldest first by modification time and then by name.

    Files that are no run files of ours (another tool's JSON beside them) are left out, and so is the last unsaved run.
    """
    found = [path for path in Path(directory).rglob("*.json") if path.stem != UNSAVED and _looks_like_run(path)]
    return tuple(sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name)))


def _looks_like_run(path: Path) -> bool:
    try:
        return b'"schema_version"' in path.read_bytes()
    except OSError:
        return False


def resolve_run(reference: str, directory: str | Path = DEFAULT_DIRECTORY) -> Path:
    """Return the path of the run that a user means.

    Args:
        reference: a path; ``latest``; a name it was saved under (the latest of that name); a file's name with its
            number (``0003_laptop-1a2b3c4``), or that number alone.
        directory: where saved runs lie.

    Raises:
        RecordError: there is no such run; the message names the nearest.
    """
    if Path(reference).is_file():
        return Path(reference)
    runs = find_runs(directory)
    if not runs:
        raise RecordError(
            f"run {reference!r}: no such file, and no runs in {directory}; record one: pytest bench/ --benchmark-save"
        )
    if reference == "latest":
        return runs[-1]
    wanted = reference.removesuffix(".json")
    matches = [path for path in runs if wanted in (path.stem, saved_name(path), path.stem.partition("_")[0])]
    if not matches:
        names = dict.fromkeys(saved_name(path) for path in reversed(runs))
        hint = nearest_hint(wanted, names)
        shown = ", ".join(list(names)[:5])
        raise RecordError(f"run {reference!r}: no such file or saved run{hint}; in {directory}, newest first: {shown}")
    return matches[-1]


def saved_name(path: Path) -> str:
    """Return the name a run was saved under: the file's, without pytest-benchmark's number."""
    return re.sub(r"^\d{4,}_", "", path.stem)


def next_run_path(directory: Path, name: str) -> Path:
    """Return the path for a new run, numbered onwards as pytest-benchmark does it: ``0007_NAME.json``."""
    numbers = [int(path.name[:4]) for path in directory.glob("[0-9][0-9][0-9][0-9]_*")]
    return directory / f"{max(numbers, default=0) + 1:04}_{name}.json"


def benchmark_entry(
    name: str,
    fullname: str,
    samples: Sequence[float],
    info: BenchmarkRecord,
    params: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Return one benchmark as pytest-benchmark writes it: samples in seconds with its statistics over them."""
    stats = Stats()
    for seconds in samples:
        stats.update(seconds)
    # Python's statistics stumble over what is not finite.
    finite = all(math.isfinite(seconds) for seconds in samples)
    figures = stats.as_dict() if finite else dict.fromkeys(Stats.fields, math.nan)
    return {
        "group": info.kind,
        "name": name,
        "fullname": fullname,
        "params": dict(params) if params else None,
        "param": name.partition("[")[2].removesuffix("]") or None,
        "extra_info": {"segcore": info.model_dump(mode="json")},
        "options": {},
        "stats": {**figures, "data": list(samples), "iterations": 1},
    }


def save_run(run: Run) -> None:
    """Write a run to its own path.

    Raises:
        OutputError: the file cannot be written.
    """
    entries = [benchmark_entry(b.name, b.info.key, b.samples, b.info) for b in run.benchmarks]
    save_document(
        run.path,
        {
            "machine_info": {},
            "commit_info": {},
            "benchmarks": entries,
            "datetime": datetime.now(UTC).isoformat(),
            "version": pytest_benchmark_version,
            "segcore": run.record.model_dump(mode="json"),
        },
    )


def save_document(path: Path, document: Mapping[str, object]) -> None:
    """Write pytest-benchmark's document atomically; NaN and infinity are kept, as pytest-benchmark keeps them.

    Raises:
        OutputError: the file cannot be written.
    """
    write_file(path, json.dumps(document, indent=1, default=str).encode())
