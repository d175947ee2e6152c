"""Tables as data, with one writer for each medium: terminal, markdown, HTML and CSV.

Writers escape what they print, so cells may hold any text.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from rich.console import Console
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from segcore.core.streams import columns, has_colours, is_terminal
from segcore.report.escape import csv_text, html_text, markdown_text, plain_text
from segcore.report.wording import number

Tone = Literal["", "good", "warn", "bad", "soft"]
STYLES: dict[Tone, str] = {"": "", "good": "green", "warn": "yellow", "bad": "bold red", "soft": "dim"}
ICONS: dict[Tone, str] = {"good": "✅ ", "warn": "❔ ", "bad": "❌ "}
UNKNOWN = "-"
MAX_ROWS = 2_000
"""Rows of a table on a page; browsers become slow with many more."""
UNLIMITED = 10_000
"""Columns of a console that folds nothing."""


@dataclass(frozen=True)
class Cell:
    """Text with a tone: a colour in a terminal and on a page, an icon in markdown."""

    text: str
    tone: Tone = ""


Value = Cell | str | float | None
Row = tuple[Value, ...]


@dataclass(frozen=True)
class Table:
    """Columns and rows. A cell is text or a number in the column's unit; None and NaN are unknown."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    right: tuple[str, ...] = ()
    """Columns of text that are aligned right. Columns of numbers always are."""
    formats: Mapping[str, Callable[[float], str]] = field(default_factory=dict)
    """Formatters of columns of numbers; `number` for the others."""

    def cells(self) -> list[tuple[Cell, ...]]:
        """Return the rows as text."""
        return [tuple(map(self._cell, self.columns, row)) for row in self.rows]

    def _cell(self, column: str, value: Value) -> Cell:
        if isinstance(value, Cell | str):
            return value if isinstance(value, Cell) else Cell(value)
        unknown = value is None or math.isnan(value)
        return Cell(UNKNOWN if value is None or unknown else self.formats.get(column, number)(value))

    def without(self, *names: str) -> Table:
        """Return the table without some columns."""
        kept = [n for n, name in enumerate(self.columns) if name not in names]
        rows = tuple(tuple(row[n] for n in kept) for row in self.rows)
        return replace(self, columns=tuple(self.columns[n] for n in kept), rows=rows)

    def without_unknown(self, *optional: str) -> Table:
        """Return the table without those of the `optional` columns in which nothing is known."""
        known = {name for n, name in enumerate(self.columns) if any(row[n] is not None for row in self.rows)}
        return self.without(*(set(optional) - known))

    def aligned_right(self) -> list[bool]:
        """Return whether each column is aligned right."""
        return [
            name in self.right or (bool(self.rows) and not any(isinstance(row[n], Cell | str) for row in self.rows))
            for n, name in enumerate(self.columns)
        ]


def print_table(table: Table, console: Console, *, grouped: bool = False) -> None:
    """Print a table, folding cells to the width of the console.

    `grouped` prints the first column as headings above its rows, for long names in narrow terminals.
    """
    if table.title:
        console.print(Text(plain_text(table.title), "bold"))
    rows = [[Text(plain_text(cell.text), STYLES[cell.tone]) for cell in row] for row in table.cells()]
    if not grouped:
        console.print(_grid(table, rows))
    elif rows:
        names = map(Text, map(plain_text, table.columns))
        widths = [max(text.cell_len for text in column) for column in zip(names, *rows, strict=True)]
        if sum(widths[1:]) + 2 * len(widths) > console.width:
            widths = [0] * len(widths)  # too narrow to align the columns of all groups
        console.print(_grid(table, [], widths))
        for heading, group in itertools.groupby(rows, key=lambda row: row[0]):
            console.print(Text(heading.plain, "bold"))
            console.print(_grid(table, list(group), widths, header=False))
    for note in table.notes:
        console.print(Text(plain_text(note), "dim"))


def _grid(table: Table, rows: list[list[Text]], widths: Sequence[int] = (), *, header: bool = True) -> Padding:
    """Return rows for rich; given least widths of the columns, indented and without the first column."""
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=header)
    first = 1 if widths else 0
    columns = list(zip(table.columns, table.aligned_right(), widths or [0] * len(table.columns), strict=True))
    for name, right, width in columns[first:]:
        justify: Literal["left", "right"] = "right" if right else "left"
        grid.add_column(Text(plain_text(name)), justify=justify, overflow="fold", min_width=width or None)
    for row in rows:
        grid.add_row(*row[first:])
    return Padding(grid, (0, 0, 0, 2 * first), expand=False)


def to_markdown(table: Table) -> str:
    """Return a GitHub table without title and notes."""
    rules = ("---:" if right else "---" for right in table.aligned_right())
    rows = [[ICONS.get(cell.tone, "") + markdown_text(cell.text) for cell in row] for row in table.cells()]
    lines = [map(markdown_text, table.columns), rules, *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_html(table: Table, *, name: str = "", sortable: bool = True) -> str:
    """Return an HTML table without title and notes, with `name` as its id; numbers carry their value for sorting."""
    if len(table.rows) > MAX_ROWS:
        left_out = f"{len(table.rows) - MAX_ROWS:,} more rows are left out; `segcore report --json` has all"
        more: Row = (Cell(left_out, "soft"), *[""] * (len(table.columns) - 1))
        table = replace(
            table,
            rows=(*table.rows[:MAX_ROWS], more),
            right=tuple(n for n, right in zip(table.columns, table.aligned_right(), strict=True) if right),
        )
    right = table.aligned_right()
    head = "".join(f'<th scope="col"{_NUM * r}>{html_text(c)}</th>' for c, r in zip(table.columns, right, strict=True))
    body = "".join(
        f"<tr>{''.join(map(_html_cell, row, cells, right))}</tr>\n"
        for row, cells in zip(table.rows, table.cells(), strict=True)
    )
    about = f' id="{html_text(name)}"' * bool(name) + ' class="sortable"' * sortable
    return (
        f'<div class="scroll"><table{about}>\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody>\n</table></div>\n'
    )


_NUM = ' class="num"'


def _html_cell(value: Value, cell: Cell, right: bool) -> str:
    text = html_text(cell.text)
    if cell.tone == "soft":
        return f'<td class="soft">{text}</td>'
    if cell.tone:
        return f'<td><span class="badge {cell.tone}">{text}</span></td>'
    number = "" if isinstance(value, Cell | str) else f' data-value="{math.nan if value is None else value}"'
    return f"<td{_NUM * right}{number}>{text}</td>"


def to_csv(table: Table) -> str:
    """Return columns and rows with numbers in full; what is unknown is empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(map(csv_text, table.columns))
    for row in table.rows:
        values = (value.text if isinstance(value, Cell) else value for value in row)
        known = ("" if isinstance(value, float) and math.isnan(value) else value for value in values)
        writer.writerow(csv_text(value) if isinstance(value, str) else value for value in known)
    return out.getvalue()


def open_console(most: int | None = None, *, stderr: bool = False) -> Console:
    """Return a console for stdout, or for stderr, as wide as the terminal or ``COLUMNS``, at most `most` columns.

    Without them, output to a file or pipe is not folded unless by `most`, so that each row of a table stays one line.
    Colours are as `segcore.core.streams` says.
    """
    coloured = has_colours(stderr=stderr)
    console = Console(
        highlight=False, stderr=stderr, force_terminal=coloured, color_system="auto" if coloured else None
    )
    if coloured and console.color_system is None:  # forced, in an environment that names no terminal
        console = Console(highlight=False, stderr=stderr, force_terminal=True, color_system="standard")
    width = columns() or (console.width if is_terminal(stderr=stderr, dumb=True) else UNLIMITED)
    console.width = min(width, most or UNLIMITED)
    return console


def terminal_text(write: Callable[[Console], None], *, width: int | None = None, color: bool = False) -> str:
    """Return what `write` prints to a console of `width` columns (unlimited if None), with escapes if `color`."""
    out = io.StringIO()
    system: Literal["standard"] | None = "standard" if color else None
    write(Console(file=out, width=width or UNLIMITED, force_terminal=color, color_system=system, highlight=False))
    return re.sub(r" +$", "", out.getvalue(), flags=re.MULTILINE)
