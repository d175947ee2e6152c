"""The backends (runtime and precision) of each model of a run, side by side."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

from segcore.core.record_accuracy import ParityRecord
from segcore.core.records import Benchmark, Run
from segcore.judgement.estimate import run_log_quantile
from segcore.judgement.statistics import usable
from segcore.report.table import Cell, Row, Table, Tone
from segcore.report.wording import model_name

Backend = tuple[str, str]
Group = tuple[str, str, int]
"""Model, device and size."""
REFERENCE: Backend = ("torch", "fp32")
FORMATS: dict[str, Callable[[float], str]] = {
    "ms": "{:.1f}".format,
    "speedup": "{:.2f}".format,
    "memory, MB": "{:.0f}".format,
    "build, s": "{:.1f}".format,
    "changed": "{:.3%}".format,
    "logit error": "{:.2%}".format,
}
"""Columns of figures, with the format of their numbers; `segcore best` has them as well."""


def backends_tables(run: Run) -> list[Table]:
    """Return a table for each model, device and size of a run whose latency was measured on two backends or more."""
    timed: dict[Group, dict[Backend, dict[str, Benchmark]]] = defaultdict(lambda: defaultdict(dict))
    parities: dict[Group, dict[Backend, list[ParityRecord]]] = defaultdict(lambda: defaultdict(list))
    for benchmark in run.benchmarks:
        info = benchmark.info
        group, backend = (model_name(info), info.device, info.size), (info.runtime, info.precision)
        if info.kind == "latency" and usable(benchmark.all_samples):
            timed[group][backend][info.case] = benchmark
        if info.accuracy and info.accuracy.parity:
            parities[group][backend].append(info.accuracy.parity)
    return [_table(group, found, parities[group]) for group, found in timed.items() if len(found) > 1]


PEAK_ON_GPU = "most that torch's allocator held, unknown for graphs"


def _table(
    group: Group, found: dict[Backend, dict[str, Benchmark]], parities: dict[Backend, list[ParityRecord]]
) -> Table:
    shared = set.intersection(*(set(cases) for cases in found.values()))
    base = REFERENCE if REFERENCE in found else next(iter(found))
    seconds = {backend: _seconds([by_case[case] for case in sorted(shared)]) for backend, by_case in found.items()}
    fastest = min((s for s in seconds.values() if s is not None), default=None)
    rows: list[Row] = []
    for backend, by_case in found.items():
        own, reference = seconds[backend], seconds[base]
        infos = [benchmark.info for benchmark in by_case.values()]
        memory = max((info.peak_memory_bytes or 0 for info in infos), default=0)
        figures = (
            None if own is None else 1e3 * own,
            None if own is None or reference is None else reference / own,
            memory / 1e6 or None,
            None if backend[0] == "torch" else max((info.build_s or 0.0 for info in infos), default=None),
        )
        tone: Tone = "good" if own is not None and own == fastest else ""
        rows.append((*(Cell(name, tone) for name in backend), *figures, *_parity(parities[backend])))
    model, device, size = group
    cases = f"{len(shared)} case{'s' * (len(shared) != 1)}" if shared else "no common case"
    notes = (
        f"ms: median latency, geometric mean of {cases}; speedup: over {' '.join(base)}.",
        f"memory: {'largest resident set of the process, with all else in it' if device == 'cpu' else PEAK_ON_GPU}; "
        "build: export, quantisation and compiling.",
        "changed: pixels of another class where the reference was sure, largest of all cases; logit error: largest, as "
        "a share of the largest logit. Both are unknown without accuracy items.",
    )
    columns = ("runtime", "precision", *FORMATS)
    return Table(
        columns, tuple(rows), f"Backends (model {model}, device {device}, size {size})", notes, formats=FORMATS
    )


def _seconds(benchmarks: Sequence[Benchmark]) -> float | None:
    logs = [run_log_quantile(benchmark, 0.5) for benchmark in benchmarks]
    return math.exp(sum(logs) / len(logs)) if logs else None


def _parity(found: Sequence[ParityRecord]) -> tuple[float | None, float | None]:
    errors = [parity.logit_error for parity in found if parity.logit_error is not None]
    return max((parity.unlike for parity in found), default=None), max(errors, default=None)
