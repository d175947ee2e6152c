"""Read, find and write run files.

A run file is pytest-benchmark's JSON with segcore's records inside it; see `segcore.core.records`.
"""

from __future__ import annotations

import errno
import json
import math
import os
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pytest_benchmark import __version__ as pytest_benchmark_version
from pytest_benchmark.stats import Stats

from segcore.core.errors import RecordError, nearest_hint
from segcore.core.files import read_file, write_file
from segcore.core.records import (
    MOST,
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    Benchmark,
    BenchmarkRecord,
    OutcomeRecord,
    Record,
    Run,
    RunRecord,
)
from segcore.core.system import machine_name
from segcore.core.text import printable
from segcore.results.naming import DEFAULT_DIRECTORY, UNSAVED, pulled_from, run_number, saved_name

_R = TypeVar("_R", bound=Record)
MAX_BYTES = 128 << 20
"""Of a run file or journal: some thousand items with thousands of rounds. A larger one could exhaust the memory."""


def load_run(path: str | Path) -> Run:
    """Return the run in a file, without benchmarks that carry no segcore record.

    Raises:
        RecordError: the file cannot be read, is not a run file, or has an unknown schema version.
    """
    path = Path(path)
    return parse_run(read_with_journal(path), path)


def load_readable(paths: Iterable[Path]) -> tuple[list[Run], list[RecordError]]:
    """Return the runs that can be read, and why the others cannot."""
    runs, errors = [], []
    for path in paths:
        try:
            runs.append(load_run(path))
        except RecordError as error:
            errors.append(error)
    return runs, errors


def read_document(path: Path) -> object:
    """Return the JSON in a run file; raise RecordError if it cannot be read, or is no JSON."""
    return parse_document(read_bytes(path), str(path))


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a run file; raise RecordError if it cannot be read."""
    try:
        return read_file(path, MAX_BYTES)
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}; `segcore history` lists the saved runs") from None


def parse_document(data: bytes, where: str) -> object:
    """Parse the bytes of a run file; raise RecordError, which names `where`, if they are not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError, MemoryError) as error:
        problem = str(error) or "it needs too much memory"
        raise RecordError(f"{where}: not JSON ({problem}); the file may be truncated") from None


def parse_run(document: object, path: Path) -> Run:
    """Return the run in a parsed document; `path` is named in errors and becomes `Run.path`.

    Raises:
        RecordError: the document is not a run file, or has an unknown schema version.
    """
    head = document.get("segcore") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(head, dict):
        raise RecordError(
            f"{path}: not a run file of segcore: it has no `segcore` object; "
            "wanted a file written by `pytest bench/ --benchmark-save`"
        )
    if head.get("schema_version") not in READABLE_VERSIONS:
        raise RecordError(
            f"{path}: schema version {reprlib.repr(head.get('schema_version'))} is unknown: this segcore reads "
            f"{', '.join(map(str, READABLE_VERSIONS))}; use the segcore that wrote the file, or record the run again"
        )
    record = _validated(RunRecord, {**head, "schema_version": SCHEMA_VERSION}, f"{path}: segcore")
    entries = document.get("benchmarks")
    if not isinstance(entries, list):
        raise RecordError(f"{path}: benchmarks: wanted a list, found {type(entries).__name__}; record the run again")
    benchmarks = [
        parse_benchmark(entry, f"{path}: benchmarks[{i}]") for i, entry in enumerate(entries) if is_ours(entry)
    ]
    for key, times in Counter(benchmark.info.key for benchmark in benchmarks).items():
        if times > 1:
            raise RecordError(f"{path}: {key[:200]} is in the run {times} times: wanted once; record the run again")
    return Run(path=path, record=record, benchmarks=tuple(benchmarks))


def is_ours(entry: object) -> bool:
    """Return whether an entry carries a segcore record; malformed entries count, so that they are refused."""
    extra = entry.get("extra_info") if isinstance(entry, dict) else None
    return not isinstance(entry, dict) or (isinstance(extra, dict) and "segcore" in extra)


def parse_benchmark(entry: object, where: str) -> Benchmark:
    """Return the item in an entry with our record; raise RecordError, which names `where`, if it is not valid."""
    if not isinstance(entry, dict):
        raise RecordError(f"{where}: wanted an object, found {type(entry).__name__}; record the run again")
    name = str(entry.get("name"))
    where = f"{where} ({printable(name[:200])})"
    extra, stats = entry.get("extra_info"), entry.get("stats")
    own = extra.get("segcore") if isinstance(extra, dict) else None
    info = _validated(BenchmarkRecord, own, f"{where}: extra_info.segcore")
    samples = stats.get("data") if isinstance(stats, dict) else None
    if not isinstance(samples, list) or not samples:
        raise RecordError(
            f"{where}: stats.data: the raw samples are missing; record the run again with segcore's plugin"
        )
    for value in samples:
        if not isinstance(value, float) and (type(value) is not int or abs(value) > MOST):
            found = reprlib.repr(value)
            raise RecordError(f"{where}: stats.data: wanted numbers of seconds, found {found}; record the run again")
    return Benchmark(name=name, samples=tuple(map(float, samples)), info=info)


def _validated(model: type[_R], data: object, where: str) -> _R:
    try:
        return model.model_validate(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = printable(".".join(map(str, first["loc"])))[:200]
        hint = nearest_hint(str(first["loc"][-1]), model.model_fields) if first["type"] == "extra_forbidden" else ""
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        problem = printable(first["msg"].lower())[:200]
        raise RecordError(f"{where}: {field}: {problem}{hint}{more}; record the run again") from None


def journal_path(path: Path) -> Path:
    """Return the journal of a run file: the items that have ended since it was written, one JSON object per line.

    The journal keeps the cost of saving an item independent of the length of the run. It is deleted once the run file
    is complete, so there is one only of a run that is in progress or was killed.
    """
    return path.with_suffix(".partial.jsonl")


class _JournalLine(Record):
    started: str
    benchmarks: tuple[Any, ...]
    outcome: OutcomeRecord


def _journal_lines(journal: Path) -> Iterator[_JournalLine]:
    try:
        lines = read_file(journal, MAX_BYTES).splitlines()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
            return
        raise RecordError(f"{journal}: cannot be read: {error.strerror}; delete it to use the run without it") from None
    for line in lines:
        try:
            document = json.loads(line)
        except (ValueError, RecursionError):  # the process was killed while it wrote this line
            return
        yield _validated(_JournalLine, document, str(journal))


def read_with_journal(path: Path) -> object:
    """Return the JSON in a run file with what its journal adds, if there is one.

    Raises:
        RecordError: one of them cannot be read, or there is a journal of no valid run.
    """
    document: Any = read_document(path)
    journal = journal_path(path)
    lines = list(_journal_lines(journal))
    if not lines:
        return document
    run = parse_run(document, path)
    ours = filter(is_ours, document["benchmarks"])
    entries = {benchmark.info.key: entry for benchmark, entry in zip(run.benchmarks, ours, strict=True)}
    outcomes = {outcome.key or outcome.item: outcome for outcome in run.record.outcomes}
    for line in lines:
        if line.started == run.record.started:
            key = line.outcome.key or line.outcome.item
            outcomes[key] = line.outcome
            entries.pop(key, None)
            entries |= {parse_benchmark(entry, str(journal)).info.key: entry for entry in line.benchmarks}
    others = [entry for entry in document["benchmarks"] if not is_ours(entry)]
    head = document["segcore"] | {"outcomes": [outcome.model_dump(mode="json") for outcome in outcomes.values()]}
    return document | {"benchmarks": [*others, *entries.values()], "segcore": head}


@dataclass(frozen=True)
class _Found:
    """A JSON file below the store, and when its run started: empty if it does not say, None if there is no run."""

    path: Path
    started: str | None
    of_another_tool: bool = False

    @property
    def order(self) -> tuple[str, int, str]:
        """By start; the clock of runs has seconds, so by number as well."""
        return (self.started or "", run_number(self.path) or 0, str(self.path))


def _look(path: Path) -> _Found:
    try:
        document = read_document(path)
    except RecordError:
        return _Found(path, None)
    head = document.get("segcore") if isinstance(document, dict) else None
    if not isinstance(head, dict):
        return _Found(path, None, of_another_tool=head is None)
    started = head.get("started")
    return _Found(path, started if isinstance(started, str) else "")


def _paths(directory: str | Path) -> list[Path]:
    """Return the JSON files below a directory except the last unsaved run."""
    if not os.path.isdir(directory):  # noqa: PTH112 - Path.is_dir() raises if the name is too long
        return []
    return [path for path in Path(directory).rglob("*.json") if path.stem != UNSAVED]


def _files(paths: Iterable[Path]) -> list[_Found]:
    """Return what the files are, oldest run first."""
    return sorted(map(_look, paths), key=lambda file: file.order)


def find_runs(directory: str | Path = DEFAULT_DIRECTORY) -> tuple[Path, ...]:
    """Return the saved runs below a directory, oldest first by when they started, whatever the times of their files.

    Other JSON files and unreadable ones are skipped, and so is the last unsaved run.
    """
    return tuple(file.path for file in _files(_paths(directory)) if file.started is not None)


def resolve_run(reference: str, directory: str | Path = DEFAULT_DIRECTORY) -> Path:
    """Return what `find_run` returns; raise RecordError, with the nearest name, if there is no such run."""
    path = find_run(reference, directory)
    if path is not None:
        return path
    runs = reversed(find_runs(directory))
    names = ["/".join(filter(None, (pulled_from(run), saved_name(run)))) for run in runs]
    if not names:
        raise RecordError(
            f"run {reference!r}: no such file, and no runs in {directory}; record one: pytest bench/ --benchmark-save"
        )
    hint = nearest_hint(reference.removesuffix(".json"), names)
    shown = ", ".join(list(dict.fromkeys(names))[:5])
    raise RecordError(f"run {reference!r}: no such file or saved run{hint}; in {directory}, newest first: {shown}")


def find_run(reference: str, directory: str | Path = DEFAULT_DIRECTORY) -> Path | None:
    """Return the path of the run that a user refers to, None if there is none.

    If the newest file of a name cannot be read, its path is returned all the same, so that reading it fails: an older
    run never takes its place.

    Args:
        reference: a path; ``latest``; a saved name (its latest run); a file name with its number
            (``0003_laptop-1a2b3c4``), or the number alone; all but a path also with the machine: ``laptop/main``.
        directory: where runs are stored.

    Raises:
        RecordError: runs of several machines have that name; the message lists them with their machine.
    """
    if os.path.isfile(reference):  # noqa: PTH113 - Path.is_file() raises if the name is too long
        return Path(reference)
    files = _files_of(reference, directory)
    unreadable = [file for file in files if not file.started and not _is_followed(file, files)]
    return (unreadable or files)[-1].path if files else None


def was_never_finished(reference: str, directory: str | Path = DEFAULT_DIRECTORY) -> bool:
    """Return whether every run that a user may refer to can be read and was interrupted; see `find_run`."""
    is_path = os.path.isfile(reference)  # noqa: PTH113
    paths = [Path(reference)] if is_path else [file.path for file in _files_of(reference, directory)]
    try:
        return not any(load_run(path).record.complete for path in reversed(paths))
    except RecordError:
        return False


def _files_of(reference: str, directory: str | Path) -> list[_Found]:
    """Return the files that a name, a number or ``latest`` may stand for, with or without a machine, oldest first.

    Without one, ``latest`` is the latest run that was recorded here, if there is any. Files of several machines are
    refused (RecordError).
    """
    machine, _, wanted = reference.removesuffix(".json").rpartition("/")
    paths = [path for path in _paths(directory) if not machine or _machine(path) == machine]
    if wanted == "latest":
        here = [path for path in paths if machine or not pulled_from(path)]
        files = _latest(here) or _latest(paths)
    else:
        number = int(wanted) if wanted.isascii() and wanted.isdecimal() and len(wanted) >= 4 else None
        files = _files(
            path
            for path in paths
            if wanted in (path.stem, saved_name(path)) or (number is not None and run_number(path) == number)
        )
    machines = sorted({_machine(file.path) for file in files})
    if len(machines) > 1:
        candidates = ", ".join(f"{name}/{wanted}" for name in machines)
        raise RecordError(f"run {reference!r} is ambiguous: name its machine as well: {candidates}")
    return files


def _latest(paths: Iterable[Path]) -> list[_Found]:
    """Return the runs among files, and the files that can only be runs which cannot be read."""
    return [
        file
        for file in _files(paths)
        if file.started is not None or (run_number(file.path) is not None and not file.of_another_tool)
    ]


def _machine(path: Path) -> str:
    return pulled_from(path) or machine_name()


def _is_followed(file: _Found, others: Sequence[_Found]) -> bool:
    """Return whether a readable run with a higher number is beside a file that cannot be read."""
    number = run_number(file.path) or 0
    return any(
        bool(other.started) and other.path.parent == file.path.parent and (run_number(other.path) or 0) > number
        for other in others
    )


def benchmark_entry(
    name: str,
    fullname: str,
    samples: Sequence[float],
    info: BenchmarkRecord,
    params: Mapping[str, object] | None = None,
) -> dict[str, Any]:
    """Return one benchmark in pytest-benchmark's format: samples in seconds and their statistics."""
    stats = Stats()
    for seconds in samples:
        stats.update(seconds)
    # The statistics module raises on NaN and infinity.
    figures = stats.as_dict() if all(map(math.isfinite, samples)) else dict.fromkeys(Stats.fields, math.nan)
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
    """Write a run to `Run.path`; raise OutputError if the file cannot be written."""
    document = {
        "machine_info": {},
        "commit_info": {},
        "benchmarks": [benchmark_entry(b.name, b.info.key, b.samples, b.info) for b in run.benchmarks],
        "datetime": datetime.now(UTC).isoformat(),
        "version": pytest_benchmark_version,
        "segcore": run.record.model_dump(mode="json"),
    }
    save_document(run.path, document)


def save_document(path: Path, document: object) -> None:
    """Write a document atomically, NaN and infinity included; raise OutputError if the file cannot be written."""
    write_file(path, document_bytes(document))


def document_bytes(document: object) -> bytes:
    """Return a document as the bytes of a run file."""
    return json.dumps(document, indent=1, default=str).encode()
