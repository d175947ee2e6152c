"""``segcore report``: any run files as a page, a pull-request comment or tables in the terminal."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.text import Text

from segcore.cli.options import json_option
from segcore.results.naming import DEFAULT_DIRECTORY

if TYPE_CHECKING:
    from segcore.report.model import ReportModel

LATEST = Path("reports/latest/index.html")
MAX_COLUMNS = 80


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--baseline", metavar="RUN", help="Say what changed since this run.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page, one self-contained file.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write a pull-request comment.")
@click.option("--open", "open_page", is_flag=True, help=f"Show the page in a browser [written to {LATEST}]")
@click.option(
    "--storage", default=DEFAULT_DIRECTORY, show_default=True, type=click.Path(path_type=Path), help="Of runs."
)
@click.option("-q", "--quiet", is_flag=True, help="Print the verdict alone.")
@json_option
def report(
    runs: tuple[str, ...],
    baseline: str | None,
    html: Path | None,
    markdown: Path | None,
    open_page: bool,
    storage: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    """Report on RUNs: paths, names they were saved under, or `latest`.

    Of several runs the last is the one that is judged; the others stand beside it. Reporting always ends with exit
    code 0: it is `segcore gate` that judges.
    """
    from segcore.report.console import print_story
    from segcore.report.html import write_html
    from segcore.report.markdown import write_markdown

    story = _story(runs, baseline, storage)
    page = html or (LATEST if open_page else None)
    if page:
        write_html(story, page)
    if markdown:
        write_markdown(story, markdown)
    if as_json:
        click.echo(json.dumps(_as_json(story), indent=2, allow_nan=False))
    else:
        wide = Console().width
        print_story(story, Console(width=min(wide, MAX_COLUMNS), highlight=False), quiet=quiet)
        for written in filter(None, () if quiet else (page, markdown)):
            Console(highlight=False).print(Text(f"report: {written}"), soft_wrap=True)
    if open_page and page:
        click.launch(page.resolve().as_uri())


def _story(references: tuple[str, ...], baseline: str | None, storage: Path) -> ReportModel:
    from segcore.core.limits import Limits
    from segcore.judgement.gate.files import judge_runs
    from segcore.report.model import build_report
    from segcore.results.store import load_run, resolve_run

    runs = [load_run(resolve_run(reference, storage)) for reference in references]
    if baseline is None:
        return build_report(runs)
    before = load_run(resolve_run(baseline, storage))
    return build_report(runs, before, judge_runs([before], [runs[-1]], Limits(), storage))


def _as_json(story: ReportModel) -> dict[str, Any]:
    from segcore.report import gate_text
    from segcore.report.tables import items_table

    items = items_table(story)
    return {
        "verdict": story.headline.word.lower(),
        "headline": story.headline.line,
        "runs": [str(run.path) for run in story.runs],
        "baseline": str(story.baseline.path) if story.baseline else None,
        "gate": gate_text.as_json(story.gate) if story.gate else None,
        "warnings": list(story.warnings),
        "not_passed": [asdict(trouble) for trouble in story.failures],
        "cases": [
            {
                "item": case.benchmark.info.key,
                "fractions": {share.name: share.share for share in case.shares},
                "checks": [check.model_dump() for check in case.accuracy.checks],
            }
            for case in story.cases
        ],
        "items": [dict(zip(items.columns, map(_finite, row), strict=True)) for row in items.rows],
    }


def _finite(cell: str | float) -> str | float | None:
    return cell if isinstance(cell, str) or math.isfinite(cell) else None
