"""The page about a bench run, written at its end; in GitHub Actions also the summary of the step."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from segcore.core.errors import OutputError, UsageError
from segcore.plugin.announce import shown_path
from segcore.plugin.session import BenchSession
from segcore.report.github import append_summary

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
        from segcore.report.comment import render_comment, render_folded
        from segcore.report.html import missing_charts, write_html
        from segcore.report.model import build_report

        run = self._bench.run
        if run is None or self._bench.write_error:
            return
        gate = self._judged.result if self._judged else None
        report = build_report([run], self._judged.baseline[0] if self._judged and gate else None, gate)
        try:
            write_html(report, LATEST)
        except OutputError as error:
            terminalreporter.write_line(f"the page was NOT written: {error}", red=True)
        except UsageError as error:  # jinja2 is not installed
            terminalreporter.write_line(f"no page: {error}")
        else:
            terminalreporter.write_line(f"report: {shown_path(LATEST)}")
            if missing_charts():
                terminalreporter.write_line(missing_charts())
        append_summary(render_folded(report) if gate else render_comment(report))
