"""Vega: whatever a name holds, a drawing comes out, and the name in it is text."""

from __future__ import annotations

import math
from html import unescape
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from segcore.report.escape import plain_text
from segcore.report.vega import colour, draw, lanes, nominal, quantity
from segcore.report.wording import shortened
from tests.support.examples import examples


def drawn(name: str) -> str:
    rows = [{"item": shortened([name])[0], "run": "r", "ms": 1.0, "label": name}]
    x = quantity("ms", "ms", [1.0])
    return draw(rows, {"mark": "point", "encoding": {**lanes(rows), "x": x, "description": nominal("label")}})


@given(name=st.text(max_size=60))
@example(name="</script><script>alert(1)</script>")
@example(name="\x1b[2J\0")
@example(name="\U0001f63a" * 60)
@example(name="datum.ms ? [1] : {signal: 'x'}")
@examples(25)
def test_any_name_can_be_drawn(name: str) -> None:
    svg = drawn(name)
    root = ElementTree.fromstring(svg)
    assert not [
        e for e in root.iter() if e.tag.rpartition("}")[2] in ("script", "image", "a", "foreignObject", "style")
    ]
    assert not [e for e in root.iter() if any(name.startswith("on") or name == "style" for name in e.attrib)]
    if plain_text(name).strip():
        assert plain_text(name) in unescape(svg)


def test_colours_come_from_the_page() -> None:
    svg = drawn("x")
    assert 'fill="var(--soft)"' in svg
    assert 'stroke="var(--line)"' in svg


def test_rows_that_are_no_numbers_are_left_out() -> None:
    rows = [{"item": n, "run": "r", "ms": v, "label": n} for n, v in (("good", 1.0), ("bad", math.nan))]
    svg = draw(rows, {"mark": "point", "encoding": {**lanes(rows), "x": quantity("ms", "ms", [1.0, math.nan])}})
    assert svg.count('aria-roledescription="point"') == 1


@pytest.mark.parametrize(
    ("values", "kind"),
    [([1.0, 2.0], None), ([1.0, 100.0], "log"), ([0.0, 1.0], None), ([math.inf, 1.0], None), ([], None)],
)
def test_axes_are_logarithmic_only_over_a_wide_range(values: list[float], kind: str | None) -> None:
    axis = quantity("v", "title", values)
    assert axis["scale"].get("type") == kind
    assert all(0.5 < tick < 130 for tick in axis["axis"].get("values", []))


def test_one_colour_needs_no_legend() -> None:
    assert colour("run", [{"run": "a"}, {"run": "a"}])["legend"] is None
    assert colour("run", [{"run": "a"}, {"run": "b"}])["legend"]
