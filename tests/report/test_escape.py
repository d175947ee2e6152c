"""One function for each medium: what it must break, and what it must leave."""

from __future__ import annotations

import pytest

from segcore.report.escape import csv_text, markdown_text, plain_text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("bench/test_latency.py::TestCat::test_latency[cat]", "bench/test_latency.py::TestCat::test_latency[cat]"),
        ("a ## heading [1]", "a ## heading [1]"),
        ("猫 é £ 5 %", "猫 é £ 5 %"),
        ("::error::x", ": :error::x"),
        ("  ::unheard-of::x", "  : :unheard-of::x"),
        ("folded::Warning file=a::x", "folded: :Warning file=a::x"),
        ("x::stop-commands::token", "x: :stop-commands::token"),
        ("x\r\n::add-mask::y", "x : :add-mask::y"),
        ("a ##[error]x", "a ## [error]x"),
        ("##vso[task.setvariable variable=a]b", "## vso[task.setvariable variable=a]b"),
        ("\x1b[2J\x9b1m\x07", " [2J 1m "),
        ("\u202egnp\u2066\u200f", " gnp "),
        ("a\ud800b\ufffec\u2028d", "a b c d"),
    ],
)
def test_plain_text(text: str, plain: str) -> None:
    assert plain_text(text) == plain
    assert plain_text(plain) == plain


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", " =", "\uff1d"])
def test_csv_holds_no_formulas(start: str) -> None:
    assert csv_text(f"{start}HYPERLINK(1)")[0] == "'"
    assert csv_text(f"cat{start}1")[0] == "c"


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("@team", "@team"),
        ("owner/name#12", "#12"),
        ("GH-12", "GH-12"),
        ("https://x.org", "https://x"),
        ("www.x.org", "www.x"),
        ("<script>", "<script"),
        ("[a](b)", "](b"),
        ("![a](b)", "!["),
        ("`a`", "`a`"),
    ],
)
def test_markdown_has_no_markup(text: str, broken: str) -> None:
    assert broken not in markdown_text(text).replace("\\`", "")
