"""What a bench run prints when it begins and when it ends."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from segcore.core.records import KINDS
from segcore.judgement.gate import GateResult
from segcore.plugin.progress import clock_text
from segcore.plugin.session import BenchSession
from segcore.report.gate import render
from segcore.report.github import annotate
from segcore.report.terminal import render_run


def announce(session: BenchSession) -> list[str]:
    """Return lines about what will run, for about how long, where it is written, and what is skipped and why."""
    running = list({item.key: item for node, item in session.items.items() if node not in session.skips}.values())
    counts = Counter(item.kind for item in running)
    what = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "nothing"
    where = ", ".join(dict.fromkeys(item.device for item in running)) or "no device"
    lines = [
        f"segcore: {what} on {where}: about {clock_text(sum(session.estimates.values()))}",
        f"segcore: will write {shown_path(session.file.path)}",
    ]
    for model in dict.fromkeys(item.model for item in running):
        if model in session.resources.random_models:
            lines.append(f"segcore: {model} is timed on random weights: {session.resources.random_models[model]}")
    by_reason: dict[str, list[str]] = defaultdict(list)
    for node, skip in session.skips.items():
        by_reason[skip.message].append(session.items[node].id)
    for reason, names in by_reason.items():
        lines.append(f"segcore: {len(names)} skipped ({names[0]}{', ...' * (len(names) > 1)}): {reason}")
    return lines


def print_run(session: BenchSession, reporter: pytest.TerminalReporter) -> None:
    """Print the tables of a run and where its files are."""
    if session.run is not None:
        reporter.section("segcore")
        writer = reporter._tw  # knows pytest's width and colour: NO_COLOR, --color, a pipe
        reporter.write(render_run(session.run, width=max(40, writer.fullwidth), color=writer.hasmarkup))
    if session.write_error:
        reporter.write_line(f"the run was NOT written: {session.write_error}", red=True)
        return
    if session.run is None:
        reporter.write_line("segcore: no item has ended: no run was written")
        return
    for path in (session.file.path, *session.file.copies):
        reporter.write_line(f"run: {shown_path(path)}")
    if session.file.pictures.is_dir() and any(session.file.pictures.iterdir()):
        reporter.write_line(f"class maps and overlays: {shown_path(session.file.pictures)}{os.sep}")


def print_gate(gate: GateResult, reporter: pytest.TerminalReporter) -> None:
    """Print the verdicts; in GitHub Actions also annotations."""
    reporter.section("segcore gate")
    reporter.write(render(gate, width=reporter._tw.fullwidth, color=reporter.hasmarkup))
    annotate(gate)


def shown_path(path: Path) -> str:
    """Return a path relative to the working directory if it is below it."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
