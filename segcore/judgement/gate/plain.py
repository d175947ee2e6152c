"""Judge runs of pytest-benchmark without segcore's records: by their samples, and nothing else."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from segcore.core.errors import UsageError
from segcore.core.limits import Limits
from segcore.core.records import Benchmark, BenchmarkRecord
from segcore.judgement.gate.settle import against_command
from segcore.judgement.gate.speed import judge_change
from segcore.judgement.gate.verdict import GateResult, Row
from segcore.judgement.statistics import ProcessNoise
from segcore.results.plain import PlainRun

_KNOWN: dict[str, Any] = {"kind": "latency", "device": "cpu"}
_STAND_IN = BenchmarkRecord.model_construct(**_KNOWN)
"""What `judge_change` reads of an item's record; of a plain test only its times are known."""


def judge_plain(old: PlainRun, new: PlainRun, limits: Limits, known: ProcessNoise | None) -> GateResult:
    """Judge every test of the baseline `old` by its slowdown; `known` is the noise from run to run, if it is given.

    Raises:
        UsageError: both are the same run.
    """
    if old.samples == new.samples:
        raise UsageError(f"BASELINE and CURRENT are the same run: {old.path}, {new.path}")
    differences = [
        f"{name} was {before}, is {after}"
        for (name, before), (_, after) in zip(old.machine, new.machine, strict=True)
        if before != after
    ]
    rows = [row for name in old.samples for row in _rows(name, old, new, limits, known, "; ".join(differences))]
    added = [name for name in new.samples if name not in old.samples]
    notes = ["the run files are pytest-benchmark's own: only times are judged, those of segcore's items carry more"]
    notes += [f"new, not in the baseline: {', '.join(added)}"] if added else []
    return GateResult(old.name, new.name, tuple(rows), tuple(notes), tuple(_remedy(rows, old, limits)))


def _rows(
    name: str, old: PlainRun, new: PlainRun, limits: Limits, known: ProcessNoise | None, differences: str
) -> Iterator[Row]:
    if name not in new.samples:
        yield Row(name, "item", "missing", "the current run does not have it")
    elif differences:
        yield Row(name, "item", "incomparable", differences)
    else:
        base, head = ([Benchmark(name=name, samples=run.samples[name], info=_STAND_IN)] for run in (old, new))
        for row in judge_change(base, head, name, limits, known):
            yield replace(row, rounds=None)


def _remedy(rows: list[Row], old: PlainRun, limits: Limits) -> Iterator[str]:
    """Yield the command that measures the undecided tests in turns."""
    files = dict.fromkeys(row.item.partition("::")[0] for row in rows if row.verdict == "inconclusive")
    if files and old.commit:
        yield against_command(old.commit, shlex.join(files), limits.slowdowns[0.5])
