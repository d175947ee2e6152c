"""Run files of pytest-benchmark itself, without segcore's records."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segcore.core.errors import RecordError
from segcore.core.records import LEAST, MOST
from segcore.core.text import bounded
from segcore.results.naming import saved_name
from segcore.results.store import read_document

_MACHINE = ("machine", "system", "python_implementation", "python_version")
_CPU = ("brand_raw", "count")


@dataclass(frozen=True)
class PlainRun:
    """Times of tests that use pytest-benchmark's fixture."""

    path: Path
    name: str
    machine: tuple[tuple[str, str], ...]
    """What determines the speed of the machine, by name."""
    commit: str
    """Empty if it is unknown, or if there were uncommitted changes."""
    samples: dict[str, tuple[float, ...]]
    """Seconds of each round, by node id."""


def load_plain(path: Path) -> PlainRun | None:
    """Return the run in a file of pytest-benchmark; None if it has records of segcore, or is no such file.

    Raises:
        RecordError: the file cannot be read, or a benchmark has no samples or impossible ones.
    """
    document = read_document(path)
    if not isinstance(document, dict) or "segcore" in document or not isinstance(document.get("benchmarks"), list):
        return None
    found: dict[str, tuple[float, ...]] = {}
    for entry in document["benchmarks"]:
        name = bounded(str(_get(entry, "fullname") or _get(entry, "name")))
        if name in found:
            raise RecordError(f"{path}: {name} is in the run more than once; record the run again")
        found[name] = _samples(_get(_get(entry, "stats"), "data"), f"{path}: {name}")
    if not found:
        raise RecordError(f"{path}: the run measured nothing; record it again")
    commit = _get(document, "commit_info")
    clean = _get(commit, "dirty") is False and isinstance(_get(commit, "id"), str)
    return PlainRun(
        path, saved_name(path), _machine(_get(document, "machine_info")), commit["id"] if clean else "", found
    )


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _samples(data: Any, where: str) -> tuple[float, ...]:
    if not isinstance(data, list) or not data:
        raise RecordError(f"{where}: the raw samples are missing; record the run with --benchmark-save-data")
    for seconds in data:
        if not isinstance(seconds, float | int) or isinstance(seconds, bool) or not LEAST <= seconds <= MOST:
            raise RecordError(
                f"{where}: wanted positive numbers of seconds, found {str(seconds)[:50]!r}; record it again"
            )
    return tuple(map(float, data))


def _machine(info: Any) -> tuple[tuple[str, str], ...]:
    fields = [(name, _get(info, name)) for name in _MACHINE]
    fields += [(f"cpu {name.removesuffix('_raw')}", _get(_get(info, "cpu"), name)) for name in _CPU]
    return tuple((name.replace("_", " "), bounded(str(value))) for name, value in fields)
