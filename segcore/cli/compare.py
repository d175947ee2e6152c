"""``segcore compare``: runs of several devices and machines side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from segcore.cli import completion
from segcore.cli.options import storage_option


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=completion.RUN)
@click.option("--reference", metavar="COLUMN", help="Ratios refer to this run or column [the first].")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, one line per cell.")
@click.option("--markdown", "form", flag_value="markdown", help="Print a markdown table.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@storage_option
def compare(runs: tuple[str, ...], reference: str | None, form: str | None, storage: Path) -> None:
    """Compare latency, throughput and efficiency of RUNs from any devices and machines."""
    from segcore.cli.output import show_json
    from segcore.judgement.compare import compare as compare_runs
    from segcore.report.comparison import cells_table, comparison_table
    from segcore.report.escape import markdown_text
    from segcore.report.table import open_console, print_table, to_csv, to_markdown
    from segcore.results.store import load_run, resolve_run

    comparison = compare_runs([load_run(resolve_run(run, storage)) for run in runs], reference)
    table = comparison_table(comparison)
    if form == "csv":
        click.echo(to_csv(cells_table(comparison)), nl=False)
    elif form == "markdown":
        click.echo("\n".join([to_markdown(table), *(markdown_text(note) + "\n" for note in table.notes)]), nl=False)
    elif form == "json":
        show_json(asdict(comparison))
    else:
        print_table(table, open_console())
