"""What a bench run prints when it begins and when it ends, and the page about it."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from segcore.core.errors import OutputError, UsageError
from segcore.core.records import KINDS, Benchmark, Run
from segcore.judgement.gate import GateResult
from segcore.plugin.progress import clock_text
from segcore.plugin.session import BenchSession
from segcore.report.escape import plain_text
from segcore.report.gate import annotate, append_summary, render
from segcore.report.metrics import item_metrics
from segcore.report.terminal import render_run
from segcore.results.naming import LATEST_PAGE


def properties(benchmark: Benchmark | None) -> list[tuple[str, object]]:
    """Return what other reports of pytest (JUnit XML) show of an item: its key, and its figures by name and unit."""
    if benchmark is None:
        return []
    figures = [
        (f"{metric.name} {metric.shown.unit.replace('%', 'percent')}", metric) for metric in item_metrics(benchmark)
    ]
    named = [(re.sub(r"\W+", "_", name), metric.shown.value) for name, metric in figures]
    return [("segcore.item", benchmark.info.key), *((f"segcore.{name}", value) for name, value in named)]


def announce(session: BenchSession) -> Iterator[str]:
    """Yield lines about what will run, for about how long, where it is written, and what is skipped and why."""
    running = list({item.key: item for node, item in session.items.items() if node not in session.skips}.values())
    counts = Counter(item.kind for item in running)
    what = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "nothing"
    devices = ", ".join(dict.fromkeys(item.device for item in running)) or "no device"
    yield f"segcore: {what} on {devices}: about {clock_text(sum(session.estimates.values()))}"
    yield f"segcore: will write {_shown(session.file.path)}"
    for model in dict.fromkeys(item.model for item in running):
        if model in session.resources.random_models:
            yield f"segcore: {model} is timed on random weights: {session.resources.random_models[model]}"
    by_reason: dict[str, list[str]] = defaultdict(list)
    for node, skip in session.skips.items():
        by_reason[skip.message].append(session.items[node].id)
    for reason, names in by_reason.items():
        yield f"segcore: {len(names)} skipped ({names[0]}{', ...' * (len(names) > 1)}): {reason}"


def print_run(session: BenchSession, reporter: pytest.TerminalReporter) -> None:
    """Print the tables of a run and where its files are."""
    if session.run is not None:
        reporter.section("segcore")
        writer = reporter._tw  # knows pytest's width and colour: NO_COLOR, --color, a pipe
        reporter.write(render_run(session.run, width=max(40, writer.fullwidth), color=writer.hasmarkup))
    if session.neighbours.waited_s:
        reporter.write_line(f"waited {session.neighbours.waited_s:.0f} s for other processes (--segcore-wait)")
    for error in session.unwritten:
        reporter.write_line(plain_text(f"NOT written: {error}"), red=True)
    if session.write_error:
        reporter.write_line(plain_text(f"the run was NOT written: {session.write_error}"), red=True)
    elif session.run is None:
        reporter.write_line("segcore: no item has finished, no run was written")
    else:
        for path in (session.file.path, *session.file.copies, *session.file.streams):
            reporter.write_line(f"run: {_shown(path)}")
        if session.file.pictures.is_dir() and any(session.file.pictures.iterdir()):
            reporter.write_line(f"class maps and overlays: {_shown(session.file.pictures)}{os.sep}")


def print_gate(gate: GateResult, reporter: pytest.TerminalReporter) -> None:
    """Print the verdicts; in GitHub Actions also annotations."""
    reporter.section("segcore gate")
    reporter.write(render(gate, width=reporter._tw.fullwidth, color=reporter.hasmarkup))
    annotate(gate)


def write_page(run: Run, baseline: Run | None, gate: GateResult | None) -> Iterator[str]:
    """Write the page and append to the step summary; yield lines about the page.

    A page that cannot be written does not fail the run.
    """
    from segcore.report.comment import render_comment, render_folded  # loaded after the last measurement
    from segcore.report.html import missing_charts, write_html
    from segcore.report.model import build_report

    report = build_report([run], baseline, gate)
    append_summary(render_folded(report) if gate else render_comment(report))
    try:
        write_html(report, LATEST_PAGE)
    except OutputError as error:
        yield f"the page was NOT written: {error}"
    except UsageError as error:  # jinja2 is not installed
        yield f"no page: {error}"
    else:
        yield f"report: {_shown(LATEST_PAGE)}"
        yield from filter(None, [missing_charts()])


def _shown(path: Path) -> str:
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
