"""A pull-request comment or step summary: the verdict, what changed, and the rest folded."""

from __future__ import annotations

from collections.abc import Iterator

from segcore.report import gate, tables
from segcore.report.escape import markdown_text
from segcore.report.markdown import MAX_MARKDOWN, Section, document
from segcore.report.model import ReportModel
from segcore.report.run_tables import load_tables
from segcore.report.table import ICONS, Table, to_markdown


def render_comment(report: ReportModel) -> str:
    """Return the comment, at most `MAX_MARKDOWN` characters."""
    record = report.current.record
    commit = f", commit {record.git.commit[:10]}" if record.git else ""
    about = markdown_text(f"{report.current.name}{commit}, {record.machine.cpu}"[:500]) + "\n"
    if report.gate is not None:
        text = gate.markdown(report.gate, MAX_MARKDOWN - len(about)) + about
    else:
        title = f"### {ICONS[report.headline.tone]}segcore: {markdown_text(report.headline.line)}\n\n{about}"
        warnings = "".join(f"> {markdown_text(warning)}\n\n" for warning in report.warnings)
        text = title + (document([Section("", warnings)], MAX_MARKDOWN - len(title)) if warnings else "")
    return text + render_folded(report, MAX_MARKDOWN - len(text))


def render_folded(report: ReportModel, room: int = MAX_MARKDOWN) -> str:
    """Return all but the verdict and what changed, each part folded, in at most `room` characters."""
    return document(_sections(report), room)


def _sections(report: ReportModel) -> Iterator[Section]:
    """Yield what is folded, most wanted first."""
    if report.failures:
        count = sum(failure.count for failure in report.failures)
        yield Section(f"{count} not measured or failed", to_markdown(tables.failures_table(report.failures)))
    if report.cases:
        checks = to_markdown(tables.checks_table(report.cases))
        yield Section(f"{len(report.cases)} cases: expected and found", checks)
    for dataset in tables.dataset_tables(report.current, report.baseline):
        yield Section(dataset.title, to_markdown(dataset))
    for table in (*load_tables(report.current), *tables.side_by_side(report.all_runs)):
        notes = "".join(f"\n{markdown_text(note)}\n" for note in table.notes)
        yield Section(table.title or "Side by side", to_markdown(table) + notes)
    items = tables.items_table(report)
    yield Section(f"{len(items.rows)} items", to_markdown(items))
    if report.item_warnings:
        warnings = to_markdown(tables.warnings_table(report))
        yield Section(f"{len(report.item_warnings)} warnings about items", warnings)
    yield Section("Machine and settings", to_markdown(Table(("", ""), tables.facts(report.current))))
