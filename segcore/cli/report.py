"""``segcore report``: run files as an HTML page, a pull-request comment, JSON or tables in the terminal."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcore.cli import completion
from segcore.cli.options import Export, check_exports, export_option, json_option, storage_option, write_exports
from segcore.results.naming import LATEST_PAGE

if TYPE_CHECKING:
    from segcore.report.model import ReportModel

MAX_COLUMNS = 80


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.RUN)
@click.option("--baseline", metavar="RUN", shell_complete=completion.RUN, help="Show what changed since this run.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a self-contained HTML page.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write a pull-request comment.")
@click.option("--open", "open_page", is_flag=True, help=f"Open the page in a browser [written to {LATEST_PAGE}]")
@export_option("junit", "gitlab", "bencher", "customSmallerIsBetter", "customBiggerIsBetter")
@storage_option
@click.option("-q", "--quiet", is_flag=True, help="Print the verdict only.")
@json_option
def report(
    runs: tuple[str, ...],
    baseline: str | None,
    html: Path | None,
    markdown: Path | None,
    open_page: bool,
    exports: tuple[Export, ...],
    storage: Path,
    quiet: bool,
    as_json: bool,
) -> None:
    """Report on RUNs: paths, names they were saved under, or `latest`.

    The last run is the one that is judged; the others are shown beside it. The exit code is 0 whatever the verdict:
    use `segcore gate` to fail on a regression.
    """
    from segcore.cli.output import exit_if_any, print_errors, show_json
    from segcore.report.comment import render_comment
    from segcore.report.exports import export_run
    from segcore.report.html import missing_charts, render_html
    from segcore.report.table import open_console
    from segcore.report.terminal import print_report

    stdout_taken = check_exports(exports, as_json)
    model = _build(runs, baseline, storage)
    page = html or (LATEST_PAGE if open_page else None)
    pages = [Export(name, path) for name, path in (("html", page), ("comment", markdown)) if path]

    def text_of(name: str) -> str:
        if name in ("html", "comment"):
            return render_html(model) if name == "html" else render_comment(model)
        return export_run(name, model.current, model.baseline, model.gate)

    written, failed = write_exports([*pages, *exports], text_of)
    if page and missing_charts():
        print_errors([missing_charts()])
    if as_json:
        show_json(_as_json(model))
    elif not stdout_taken:
        print_report(model, open_console(MAX_COLUMNS), quiet=quiet)
        for path in () if quiet else written:
            click.echo(f"report: {path}")
    if open_page and page in written:
        click.launch(page.resolve().as_uri())
    exit_if_any(failed)


def _build(references: tuple[str, ...], baseline: str | None, storage: Path) -> ReportModel:
    from segcore.judgement.gate.files import RUN_LIMITS, judge_runs
    from segcore.report.model import build_report
    from segcore.results.store import load_run, resolve_run

    runs = [load_run(resolve_run(reference, storage)) for reference in references]
    if baseline is None:
        return build_report(runs)
    before = load_run(resolve_run(baseline, storage))
    return build_report(runs, before, judge_runs([before], [runs[-1]], RUN_LIMITS, storage))


def _as_json(model: ReportModel) -> dict[str, Any]:
    from segcore.report import gate
    from segcore.report.tables import ITEM_KEYS, items_table

    items = items_table(model)
    return {
        "verdict": model.headline.word.lower(),
        "headline": model.headline.line,
        "runs": [run.path for run in model.runs],
        "baseline": model.baseline and model.baseline.path,
        "gate": model.gate and gate.as_json(model.gate),
        "warnings": list(model.warnings),
        "not_passed": [asdict(failure) for failure in model.failures],
        "cases": [
            {
                "item": case.benchmark.info.key,
                "fractions": {share.name: share.share for share in case.shares},
                "checks": [check.model_dump() for check in case.accuracy.checks],
            }
            for case in model.cases
        ],
        "items": [
            {
                ITEM_KEYS[column]: gate.finite(value) if isinstance(value, float) else value
                for column, value in zip(items.columns, row, strict=True)
            }
            for row in items.rows
        ],
    }
