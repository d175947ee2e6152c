"""The report for a terminal: the verdict, what changed, small pictures and tables, folded to its width."""

from __future__ import annotations

from collections import defaultdict

from rich.columns import Columns
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from segcore.core.records import Run
from segcore.judgement.compare import disturbed_calibrations
from segcore.report.escape import plain_text
from segcore.report.gate import print_rows
from segcore.report.model import MIN_SHARE, CaseReport, ReportModel, group_failures, open_pictures
from segcore.report.pictures import half_blocks
from segcore.report.run_tables import run_tables
from segcore.report.table import STYLES, print_table, terminal_text
from segcore.report.tables import dataset_tables, side_by_side
from segcore.report.wording import model_name, number

MAX_REASONS = 200
"""Warnings, and reasons of failures, that are printed."""


def print_report(report: ReportModel, console: Console, *, quiet: bool = False) -> None:
    """Print a report, or its headline alone if `quiet`; pictures need a console of 256 colours or more."""
    _print(console, report.headline.line, f"bold {STYLES[report.headline.tone]}")
    if quiet:
        return
    run = report.current
    below = {*(warning.text for warning in run.record.warnings), *disturbed_calibrations(run)}
    for warning in report.warnings[:MAX_REASONS]:
        if warning not in below:
            _print(console, warning, "yellow")
    if report.changed:
        console.print()
        print_rows(report.changed, console)
    if console.color_system in ("256", "truecolor"):
        for case in report.cases:
            _print_case(case, console)
    for table in (*dataset_tables(report.current, report.baseline), *side_by_side(report.all_runs)):
        console.print()
        print_table(table, console)
    print_run(report.current, console)


def render_run(run: Run, *, width: int = 100, color: bool = False) -> str:
    """Return the tables of a run, with what was skipped and warned about; see `terminal_text`."""
    return terminal_text(lambda console: print_run(run, console), width=width, color=color)


def print_run(run: Run, console: Console) -> None:
    """Print the tables of a run, with what was skipped and warned about."""
    for table in run_tables(run):
        console.print()
        print_table(table, console)
    _print_builds(run, console)
    failures = [failure for failure in group_failures(run.record.outcomes) if failure.outcome != "failed"]
    for failure in failures[:MAX_REASONS]:  # a check that failed is in the table of accuracy
        more = f" and {len(failure.items) - 3} more" if len(failure.items) > 3 else ""
        style = "yellow" if failure.outcome == "skipped" else "bold red"
        _heading(console, f"{failure.count} {failure.outcome}: {failure.reason}", style)
        _print(console, f"  {', '.join(failure.items[:3])}{more}")
    if len(failures) > MAX_REASONS:
        _heading(console, f"{len(failures) - MAX_REASONS:,} more reasons are left out; see `--json`", "yellow")
    lines = [*(warning.text for warning in run.record.warnings), *disturbed_calibrations(run), *_item_warnings(run)]
    if lines:
        _heading(console, "Warnings:", "yellow")
    for line in lines[:MAX_REASONS]:
        _print(console, f"  {line}")
    if len(lines) > MAX_REASONS:
        _print(console, f"  {len(lines) - MAX_REASONS:,} more are left out; see `--json`")
    if not run.record.complete:
        _heading(console, "Incomplete: the run was interrupted; what it measured until then is kept", "yellow")


def _print_case(case: CaseReport, console: Console) -> None:
    pictures = open_pictures(case)
    columns = min(36, (console.width - 4) // 2)
    _heading(console, f"{case.title}: {case.subtitle}", "bold")
    cells = []
    if pictures.photo is not None:
        cells.append(half_blocks(pictures.photo, columns))
    if pictures.class_map is not None:
        cells.append(
            half_blocks(case.labels.lookup.take(pictures.class_map, axis=0, mode="clip"), columns, smooth=False)
        )
    if cells:
        grid = Grid.grid(padding=(0, 2, 0, 0))
        grid.add_row(*cells)
        console.print(grid)
    shown = [share for share in case.shares if share.share >= MIN_SHARE]
    legend = [Text("██ ", s.colour).append(f"{plain_text(s.name)} {s.share:.1%}", "default") for s in shown]
    console.print(Columns(legend, padding=(0, 3, 0, 0)))
    for note in filter(None, (pictures.change, *pictures.notes)):
        _print(console, note, "yellow")


def _print_builds(run: Run, console: Console) -> None:
    """Print how long exporting, quantising and compiling took; plain torch does none of these."""
    built: dict[str, float] = {}
    for info in (benchmark.info for benchmark in run.benchmarks):
        if info.build_s is not None and info.runtime != "torch":
            name = f"{model_name(info)} {info.runtime} {info.precision} {info.device}"
            built[name] = max(info.build_s, built.get(name, 0.0))
    if built:
        _heading(console, "Export, quantisation and compilation, not part of any time above", "bold")
    for name, seconds in built.items():
        _print(console, f"  {name}: {f'{number(seconds)} s' if seconds else 'not needed or cached'}")


def _item_warnings(run: Run) -> list[str]:
    """Return a line per kind of warning: the item with the largest value, and how many others have it too."""
    found: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for benchmark in run.benchmarks:
        for warning in benchmark.info.warnings:
            kind = warning.text if warning.code == "other" else warning.code
            found[kind].append((abs(warning.value or 0.0), f"{benchmark.info.key}: {warning.text}"))
    return [max(same)[1] + (f" (and {len(same) - 1} more)" if len(same) > 1 else "") for same in found.values()]


def _print(console: Console, text: str, style: str = "") -> None:
    console.print(Text(plain_text(text), style))


def _heading(console: Console, text: str, style: str) -> None:
    console.print()
    _print(console, text, style)
