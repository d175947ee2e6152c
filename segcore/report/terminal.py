"""A run as tables for a terminal: what was seen, how fast it was, what was skipped. Pure: a run in, text out.

Nothing is cut off, however narrow the terminal: long names are folded. What is the same in all rows of a table is said
once, above it. Names come from YAML and run files of other people: they are escaped.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from segcore.core.records import AccuracyRecord, Benchmark, BenchmarkRecord, Run
from segcore.judgement.statistics import rounds_needed, usable
from segcore.report.wording import model_name, number

Cells = tuple[str, ...]
PERCENTILES = (0.5, 0.9, 0.99)
MARKS = {True: "[green]passed[/]", False: "[bold red]FAILED[/]"}
NOTHING = "-"

_IDENTITY: dict[str, Callable[[BenchmarkRecord], str]] = {
    "case": lambda info: info.case,
    "model": model_name,
    "runtime": lambda info: info.runtime,
    "precision": lambda info: info.precision,
    "device": lambda info: info.device,
    "size": lambda info: str(info.size),
    "threads": lambda info: str(info.threads or ""),
}
_ALWAYS = ("case", "model", "size")


def render(run: Run, *, width: int = 100, color: bool = False) -> str:
    """Return the tables of a run.

    Args:
        run: as read from its file.
        width: columns of the terminal.
        color: with escape sequences for a terminal, or plain.
    """
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, color_system="standard" if color else None, highlight=False
    )
    for title, kind, make in (
        ("Accuracy", "accuracy", _accuracy_rows),
        ("Latency, ms", "latency", _latency_rows),
        ("Throughput, photos per second", "throughput", _throughput_rows),
    ):
        benchmarks = [benchmark for benchmark in run.benchmarks if benchmark.info.kind == kind]
        if benchmarks:
            header, rows = make(benchmarks)
            shown = _leaders(benchmarks) if kind == "throughput" else benchmarks
            _print_table(console, title, [b.info for b in shown], header, rows)
    _print_builds(console, run)
    _print_outcomes(console, run)
    return out.getvalue()


def _leaders(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """The first benchmark of each row of a table that has the batches side by side."""
    seen: dict[tuple[str, ...], Benchmark] = {}
    for benchmark in benchmarks:
        seen.setdefault(_row_key(benchmark), benchmark)
    return list(seen.values())


def _row_key(benchmark: Benchmark) -> tuple[str, ...]:
    return tuple(name(benchmark.info) for name in _IDENTITY.values())


def _print_table(
    console: Console, title: str, infos: Sequence[BenchmarkRecord], header: Sequence[str], rows: Sequence[Cells]
) -> None:
    columns = {name: [of(info) for info in infos] for name, of in _IDENTITY.items()}
    varying = [name for name in _IDENTITY if len(set(columns[name])) > 1 or (name in _ALWAYS and len(infos) == 1)]
    common = ", ".join(f"{name} {columns[name][0]}" for name in _IDENTITY if name not in varying and columns[name][0])
    console.print(f"\n[bold]{escape(title)}[/]" + (f" ({escape(common)})" if common else ""))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in varying:
        table.add_column(name, overflow="fold", justify="right" if name in {"size", "threads"} else "left")
    for name in header:
        table.add_column(name, overflow="fold", justify="left" if name in {"dominant", "result"} else "right")
    for index, cells in enumerate(rows):
        table.add_row(*(escape(columns[name][index]) for name in varying), *cells)
    console.print(table)


def _accuracy_rows(benchmarks: Sequence[Benchmark]) -> tuple[Cells, list[Cells]]:
    records = [b.info.accuracy or AccuracyRecord(dominant=NOTHING, fractions={}) for b in benchmarks]
    scored = any(record.miou is not None for record in records)
    rows = []
    for record in records:
        held = sum(check.passed for check in record.checks)
        share = record.fractions.get(record.dominant)
        cells = [
            escape(record.dominant),
            NOTHING if share is None else f"{100 * share:.1f}",
            f"{held}/{len(record.checks)}",
            MARKS[held == len(record.checks)],
        ]
        if scored:
            cells.insert(2, NOTHING if record.miou is None else f"{100 * record.miou:.1f}")
        rows.append(tuple(cells))
    return ("dominant", "%", *(("mIoU %",) if scored else ()), "checks", "result"), rows


def _latency_rows(benchmarks: Sequence[Benchmark]) -> tuple[Cells, list[Cells]]:
    shown = [q for q in PERCENTILES if q == 0.5 or any(len(b.samples) >= rounds_needed(q) for b in benchmarks)]
    counted = any(benchmark.info.energy for benchmark in benchmarks)
    rows = []
    for benchmark in benchmarks:
        forward = benchmark.info.stages.get("forward")
        seconds = _percentile(benchmark, 0.5)
        share = 100 * median(forward) / seconds if forward and seconds else None
        cells = [_milliseconds(_percentile(benchmark, q)) for q in shown]
        cells += [NOTHING if share is None else f"{share:.0f}", str(len(benchmark.samples))]
        if counted:
            joules = benchmark.info.joules_per_image
            cells.append(NOTHING if joules is None else number(joules))
        rows.append(tuple(cells))
    return (*(f"p{100 * q:g}" for q in shown), "forward %", "rounds", *(("J/photo",) if counted else ())), rows


def _percentile(benchmark: Benchmark, q: float) -> float | None:
    """Seconds; None where the rounds are too few to bound the percentile on both sides, the median aside."""
    if not usable(benchmark.samples) or (q != 0.5 and len(benchmark.samples) < rounds_needed(q)):
        return None
    return float(np.quantile(benchmark.samples, q, method="hazen"))


def _milliseconds(seconds: float | None) -> str:
    return NOTHING if seconds is None else number(seconds * 1e3)


def _throughput_rows(benchmarks: Sequence[Benchmark]) -> tuple[Cells, list[Cells]]:
    batches = sorted({benchmark.info.batch for benchmark in benchmarks})
    by_row: dict[tuple[str, ...], dict[int, str]] = defaultdict(dict)
    for benchmark in benchmarks:
        seconds = _percentile(benchmark, 0.5)
        by_row[_row_key(benchmark)][benchmark.info.batch] = (
            number(benchmark.info.batch / seconds) if seconds else NOTHING
        )
    rows = [tuple(cells.get(batch, NOTHING) for batch in batches) for cells in by_row.values()]
    return tuple(f"batch {batch}" for batch in batches), rows


def _print_builds(console: Console, run: Run) -> None:
    """What was exported, quantised or compiled, and how long that took; plain torch has nothing of the kind."""
    built: dict[str, float] = {}
    for info in (benchmark.info for benchmark in run.benchmarks):
        if info.build_s is not None and info.runtime != "torch":
            name = f"{model_name(info)} {info.runtime} {info.precision} {info.device}"
            built[name] = max(info.build_s, built.get(name, 0.0))
    if built:
        console.print("\n[bold]Export, quantisation and compilation[/], in none of the times above")
    for name, seconds in built.items():
        console.print(f"  {escape(name)}: {f'{number(seconds)} s' if seconds else 'nothing to do, or from the cache'}")


def _print_outcomes(console: Console, run: Run) -> None:
    """Print skips and errors grouped by reason, then warnings about the run and its items."""
    for outcome, style in (("error", "bold red"), ("skipped", "yellow")):
        by_reason: dict[str, list[str]] = defaultdict(list)
        for record in run.record.outcomes:
            if record.outcome == outcome:
                by_reason[without_address(record.reason)].append(record.key or record.item)
        for reason, keys in by_reason.items():
            console.print(f"\n[{style}]{len(keys)} {outcome}[/]: {escape(reason)}\n  {escape(_some(keys))}")
    lines = [*(warning.text for warning in run.record.warnings), *_item_warnings(run)]
    if lines:
        console.print("\n[yellow]Warnings:[/]")
    for line in lines:
        console.print(f"  {escape(line)}")
    if not run.record.complete:
        console.print("\n[yellow]Incomplete:[/] the run was interrupted; what it had measured is kept")


def without_address(reason: str) -> str:
    """Return a reason without the address in front, so that many files missing for one reason are told of once."""
    return re.sub(r"^https?://\S+: ", "", reason)


def _item_warnings(run: Run) -> list[str]:
    """One line per kind of warning: the item with the largest value, and how many others have it too."""
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for benchmark in run.benchmarks:
        for warning in benchmark.info.warnings:
            kind = warning.text if warning.code == "other" else warning.code
            found[kind].append((abs(warning.value or 0.0), f"{benchmark.info.key}: {warning.text}"))
    return [max(same)[1] + (f" (likewise {len(same) - 1} more)" if len(same) > 1 else "") for same in found.values()]


def _some(keys: Sequence[str], most: int = 3) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
