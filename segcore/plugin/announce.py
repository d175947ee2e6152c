"""What a bench run says of itself at its beginning and at its end."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from segcore.core.records import KINDS
from segcore.plugin.progress import clock_text
from segcore.plugin.session import BenchSession
from segcore.report.terminal import render_run


def announce(session: BenchSession) -> list[str]:
    """Return lines that say what will be done, for about how long, what is skipped and why, and where it goes."""
    running = [item for node, item in session.items.items() if node not in session.skips]
    counts = Counter(item.kind for item in running)
    what = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind]) or "nothing"
    where = ", ".join(dict.fromkeys(item.device for item in running)) or "no device"
    lines = [
        f"segcore: {what} on {where}: about {clock_text(sum(session.estimates.values()))}",
        f"segcore: will write {shown_path(session.file.paths[0])}",
    ]
    for model in dict.fromkeys(item.model for item in running):
        if model in session.resources.random_models:
            lines.append(f"segcore: {model} is timed on random weights: {session.resources.random_models[model]}")
    by_reason: dict[str, list[str]] = defaultdict(list)
    for node, skip in session.skips.items():
        by_reason[skip.message].append(node.partition("[")[2].removesuffix("]"))
    for reason, names in by_reason.items():
        lines.append(f"segcore: {len(names)} skipped ({names[0]}{', ...' * (len(names) > 1)}): {reason}")
    return lines


def close(session: BenchSession, reporter: pytest.TerminalReporter) -> None:
    """Print the tables and where the files are."""
    if session.run is not None:
        reporter.section("segcore")
        writer = reporter._tw  # its notions of width and colour are pytest's: NO_COLOR, --color, a pipe
        reporter.write(render_run(session.run, width=max(40, writer.fullwidth), color=writer.hasmarkup))
    if session.write_error:
        reporter.write_line(f"the run was NOT written: {session.write_error}", red=True)
        return
    for path in session.file.paths:
        reporter.write_line(f"run: {shown_path(path)}")
    if session.file.pictures.is_dir() and any(session.file.pictures.iterdir()):
        reporter.write_line(f"class maps and overlays: {shown_path(session.file.pictures)}{os.sep}")


def shown_path(path: Path) -> str:
    """Return a path from here where that is shorter."""
    relative = os.path.relpath(path)
    return relative if not relative.startswith("..") else str(path)
