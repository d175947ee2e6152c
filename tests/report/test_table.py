"""Tables: the same cells in a terminal, as markdown, HTML and CSV."""

from __future__ import annotations

import csv
import io
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.report.escape import csv_text, html_text, markdown_text, plain_text
from segcore.report.table import Cell, Row, Table, print_table, terminal_text, to_csv, to_html, to_markdown

NUMBERS = Table(
    ("item", "ms", "share"),
    (("a", 12.345, 0.5), ("b", None, math.nan), (Cell("c", "bad"), 2, 0.25)),
    formats={"share": "{:.0%}".format},
)
HOSTILE = "</td><script>|\n::error::\x1b[2J[bold]x[/bold] @team `rm`"


def drawn(table: Table, width: int | None = None, *, grouped: bool = False, color: bool = False) -> str:
    return terminal_text(lambda console: print_table(table, console, grouped=grouped), width=width, color=color)


class Cells(HTMLParser):
    """Text and attributes of each cell, headings included."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in ("td", "th"):
            self.found.append(("", dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.found and data.strip():
            text, attrs = self.found[-1]
            self.found[-1] = (text + data, attrs)


def test_numbers_are_formatted_and_aligned_right_and_unknown_ones_shown_as_a_dash() -> None:
    assert drawn(NUMBERS).splitlines() == [
        "item    ms  share",
        "a     12.3    50%",
        "b        -      -",
        "c        2    25%",
    ]
    assert to_markdown(NUMBERS).splitlines() == [
        "| item | ms | share |",
        "| --- | ---: | ---: |",
        "| a | 12.3 | 50% |",
        "| b | - | - |",
        "| ❌ c | 2 | 25% |",
    ]


def test_html_cells_carry_the_value_to_sort_by() -> None:
    cells = Cells(to_html(NUMBERS, name="all")).found
    assert [text for text, _ in cells[:3]] == ["item", "ms", "share"]
    assert [attrs.get("data-value") for text, attrs in cells[3:]] == [
        *(None, "12.345", "0.5"),
        *(None, "nan", "nan"),
        *(None, "2", "0.25"),
    ]
    assert 'class="badge bad"' in to_html(NUMBERS)
    assert 'id="all" class="sortable"' in to_html(NUMBERS, name="all")
    assert "sortable" not in to_html(NUMBERS, sortable=False)


def test_csv_has_numbers_in_full_and_nothing_for_unknown_ones() -> None:
    assert list(csv.reader(io.StringIO(to_csv(NUMBERS)))) == [
        ["item", "ms", "share"],
        ["a", "12.345", "0.5"],
        ["b", "", ""],
        ["c", "2", "0.25"],
    ]


def test_title_and_notes_are_printed() -> None:
    table = Table(("a",), (("x",),), "Title [bold]", ("note [1]",))
    assert drawn(table).splitlines() == ["Title [bold]", "a", "x", "note [1]"]


def test_groups_are_headings_above_aligned_rows() -> None:
    table = Table(("item", "what", "ms"), (("one", "p50", 1), ("one", "a longer name", 1000), ("two", "p50", 10)))
    assert drawn(table, 80, grouped=True).splitlines() == [
        "  what              ms",
        "one",
        "  p50                1",
        "  a longer name  1,000",
        "two",
        "  p50               10",
    ]
    assert drawn(Table(("item", "what"), ()), grouped=True) == ""


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("width", [30, 50, 80])
def test_narrow_terminals_fold_cells_and_lose_nothing(width: int, grouped: bool) -> None:
    row: Row = ("latency[chelsea-embedded-torch-cpu-320]", "median", 123456.0, "+20.0% [+15.0%, +25.0%]", "pass")
    text = drawn(Table(("item", "what", "ms", "change", "verdict"), (row,)), width, grouped=grouped)
    assert max(map(len, text.splitlines())) <= width
    letters = sorted("".join(text.split()))
    for cell in ("latency[chelsea-embedded-torch-cpu-320]", "123,456", "+20.0%[+15.0%,+25.0%]"):
        for letter in set(cell):
            assert letters.count(letter) >= cell.count(letter)


def test_colour_only_on_demand() -> None:
    assert "\x1b" not in drawn(NUMBERS)
    assert "\x1b[1;31mc" in drawn(NUMBERS, color=True)


@given(st.text())
def test_each_medium_escapes_any_text(text: str) -> None:
    table = Table((text, "n"), ((Cell(text, "good"), text),), text, (text,))
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", drawn(table))
    page = Cells(to_html(table))
    assert page.tags == ["div", "table", "thead", "tr", "th", "th", "tbody", "tr", "td", "span", "td"]
    assert [found.strip() for found, _ in page.found] == [
        plain_text(text).strip(),
        "n",
        *[plain_text(text).strip()] * 2,
    ]
    lines = to_markdown(table).splitlines()
    assert [len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines] == [3, 3, 3]
    assert list(csv.reader(io.StringIO(to_csv(table), newline="")))[1] == [csv_text(text)] * 2


def test_hostile_text_stays_text() -> None:
    table = Table(("a",), ((HOSTILE,),))
    assert "[bold]x[/bold]" in drawn(table)
    assert "<script" not in to_html(table) + to_markdown(table)
    assert not re.search(r"^::|@team|(?<!\\)`", to_markdown(table), re.MULTILINE)


@pytest.mark.parametrize(
    ("text", "html", "markdown"),
    [
        ("a|b", "a|b", r"a\|b"),
        ("<img src=x>", "&lt;img src=x&gt;", "&lt;img src=x&gt;"),
        ("\"'&", "&quot;&#x27;&amp;", "\"'&amp;"),
        ("line\nbreak", "line break", "line break"),
        ("@all", "@all", "@<!-- -->all"),
        ("[x](https://evil.example)", "[x](https://evil.example)", r"\[x\]\(https://<!-- -->evil.example\)"),
        ("`code`", "`code`", r"\`code\`"),
    ],
)
def test_escapes(text: str, html: str, markdown: str) -> None:
    assert (html_text(text), markdown_text(text)) == (html, markdown)
