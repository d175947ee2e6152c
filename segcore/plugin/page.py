"""The page about a bench run, written at its end; in GitHub Actions also the summary of the step."""

from __future__ import annotations

from pathlib import Path

from segcore.core.errors import OutputError, UsageError
from segcore.core.records import Run
from segcore.judgement.gate import GateResult
from segcore.plugin.announce import shown_path
from segcore.report.github import append_summary

LATEST = Path("reports/latest/index.html")


def write_page(run: Run, baseline: Run | None, gate: GateResult | None) -> list[str]:
    """Write the page and append to the step summary; return lines about the page.

    A page that cannot be written does not fail the run.
    """
    from segcore.report.comment import render_comment, render_folded  # loaded after the last measurement
    from segcore.report.html import missing_charts, write_html
    from segcore.report.model import build_report

    report = build_report([run], baseline, gate)
    append_summary(render_folded(report) if gate else render_comment(report))
    try:
        write_html(report, LATEST)
    except OutputError as error:
        return [f"the page was NOT written: {error}"]
    except UsageError as error:  # jinja2 is not installed
        return [f"no page: {error}"]
    missing = missing_charts()
    return [f"report: {shown_path(LATEST)}", *([missing] if missing else [])]
