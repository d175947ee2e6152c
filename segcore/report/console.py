"""The report for a terminal: the verdict, what changed, small pictures, the tables; within the terminal's width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.columns import Columns
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from segcore.core.labels import voc_colormap
from segcore.report import terminal
from segcore.report.halfblock import half_blocks
from segcore.report.model import TRACE, CaseReport, Changed, ReportModel, open_pictures
from segcore.report.tables import Table, dataset_tables, side_by_side
from segcore.report.wording import number, plain_text

STYLES = {"good": "bold green", "bad": "bold red", "warn": "bold yellow"}


def print_story(story: ReportModel, console: Console, *, quiet: bool = False) -> None:
    """Print the story: with `quiet` the verdict alone, pictures only where the terminal has colours enough."""
    console.print(Text(plain_text(story.headline.line), STYLES[story.headline.tone]))
    if quiet:
        return
    below = {warning.text for warning in story.current.record.warnings}
    for sentence in (text for text in story.warnings if text not in below):
        console.print(Text(plain_text(sentence), "yellow"))
    console.print()
    coloured = console.color_system is not None
    _print_changes(story.changed, console)
    if console.color_system in ("256", "truecolor"):
        for case in story.cases:
            _print_case(case, console)
    for dataset in dataset_tables(story.current, story.baseline):
        _print_table(dataset, console)
    compared = side_by_side(story.all_runs)
    if compared:
        _print_table(compared, console)
    console.print(Text.from_ansi(terminal.render(story.current, width=console.width, color=coloured)), soft_wrap=True)


def _print_changes(changes: Sequence[Changed], console: Console) -> None:
    """Item by item, each reason once."""
    grid = Grid.grid(padding=(0, 2, 0, 0))
    said: set[str] = set()
    for change in changes:
        text = Text(plain_text(change.name), "bold")
        figures = [f"{change.was} -> {change.now}" if change.was else change.now, change.change]
        figures += [f"limit {change.limit}"] if change.limit else []
        reason = change.reason if change.reason not in said else ""
        for line, style in ((", ".join(filter(None, figures)), "not bold"), (reason, "not bold dim")):
            text.append(f"\n{plain_text(line)}" if line else "", style)
        said.add(change.reason)
        grid.add_row(Text(change.verdict, STYLES[change.tone]), text)
    if changes:
        console.print(grid)
        console.print()


def _print_case(case: CaseReport, console: Console) -> None:
    pictures = open_pictures(case)
    columns = min(36, (console.width - 4) // 2)
    grid = Grid.grid(padding=(0, 2, 0, 0))
    cells = []
    if pictures.photo is not None:
        cells.append(half_blocks(pictures.photo, columns))
    if pictures.class_map is not None:
        cells.append(half_blocks(voc_colormap()[pictures.class_map], columns, smooth=False))
    console.print(Text(plain_text(f"{case.title}: {case.subtitle}"), "bold"))
    if cells:
        grid.add_row(*cells)
        console.print(grid)
    shown = [share for share in case.shares if share.share >= TRACE]
    legend = [Text("██ ", s.colour).append(f"{plain_text(s.name)} {s.share:.1%}", "default") for s in shown]
    console.print(Columns(legend, padding=(0, 3, 0, 0)))
    for note in filter(None, (pictures.changed_words, *pictures.notes)):
        console.print(Text(plain_text(note), "yellow"))
    console.print()


def _print_table(table: Table, console: Console) -> None:
    grid = Grid(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(table.columns):
        numeric = bool(table.rows) and not isinstance(table.rows[0][place], str)
        grid.add_column(Text(plain_text(column)), justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        grid.add_row(*(Text(plain_text(cell) if isinstance(cell, str) else number(cell)) for cell in row))
    if table.title:
        console.print(Text(plain_text(table.title), "bold"))
    console.print(grid)
    for note in table.notes:
        console.print(Text(plain_text(note), "dim"))
    console.print()
