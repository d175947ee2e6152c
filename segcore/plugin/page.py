"""The page about a bench run, written at its end; in GitHub Actions also the summary of the step."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from segcore.core.errors import OutputError
from segcore.plugin.announce import shown_path
from segcore.plugin.session import BenchSession

if TYPE_CHECKING:
    from segcore.plugin.baseline import BaselineHooks

LATEST = Path("reports/latest/index.html")


class PageHooks:
    """Writes the page last of all, when the run is on disk and judged.

    Args:
        bench: the run.
        judged: what holds it against a baseline, where one was named.
    """

    def __init__(self, bench: BenchSession, judged: BaselineHooks | None) -> None:
        self._bench = bench
        self._judged = judged

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the page and say where it is; a page that cannot be written does not undo the run."""
        from segcore.report.html import write_html  # starts the chart engine: not before the last sample is taken
        from segcore.report.markdown import render_folded, render_markdown
        from segcore.report.model import build_report

        run = self._bench.run
        if run is None or self._bench.write_error:
            return
        gate = self._judged.result if self._judged else None
        story = build_report([run], self._judged.baseline[0] if self._judged and gate else None, gate)
        try:
            write_html(story, LATEST)
        except OutputError as error:
            terminalreporter.write_line(f"the page was NOT written: {error}", red=True)
            return
        terminalreporter.write_line(f"report: {shown_path(LATEST)}")
        summary = os.environ.get("GITHUB_STEP_SUMMARY")
        if summary:
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write((render_folded(story) if gate else render_markdown(story)) + "\n")
