"""Vega: whatever a name holds, a drawing comes out, and the name in it is text."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import segcore.report.vega
from segcore.report.escape import plain_text
from segcore.report.vega import DrawingError, colour, draw, nominal, quantity
from segcore.report.wording import shortened
from tests.support.examples import examples

# https://vega.github.io/vega/docs/expressions/ and what its parser, JavaScript and Vega-Lite reserve besides.
FUNCTIONS = """
abs acos acosh albersUsa area asin asinh atan atan2 atanh bandspace bandwidth bbox bin blur brush cbrt ceil centroid
clamp clampRange codegen compare contains containerSize contrast copy cos cosh cumulativeLogNormal cumulativeNormal
cumulativeUniform data dataflow date datetime day dayAbbrevFormat dayFormat dayofyear debug densityLogNormal
densityNormal densityUniform distance domain error exp expm1 extent flush force format geoArea geoBounds geoCentroid
geoScale geoShape geohash gradient group hcl hours hsl hypot if inScope indata indexof info inrange intersect
intersectLasso invert isArray isBoolean isDate isDefined isFinite isNaN isNumber isObject isRegExp isString isTuple
isValid item join lab lasso lassoAppend lassoPath lastindexof length lerp log log1p log10 log2 lower luminance max
merge milliseconds min minutes modify month monthAbbrevFormat monthFormat mouse now nullish order pad pan panLinear
panLog panPow panSymlog parseFloat parseInt peek pinchAngle pinchDistance pluck pow project quantileLogNormal
quantileNormal quantileUniform quarter random range regexp render replace reverse rgb round sample sampleLogNormal
sampleNormal sampleUniform scale screen seconds sequence setdata sequence show sin sinh slice sort span split sqrt
substring tan tanh test time timeFormat timeOffset timeParse timeSequence timeUnitSpecifier timezoneoffset toBoolean
toDate toNumber toString touch tree treeAncestors treePath trim trunc truncate tzoffset upper utc utcFormat utcOffset
utcParse utcSequence utcdate utcday utcdayofyear utcformat utchours utcmilliseconds utcminutes utcmonth utcquarter
utcseconds utcweek utcyear view vlSelectionIdTest vlSelectionResolve vlSelectionTest vlSelectionTuples warn week
windowSize x xy y year zoom zoomLinear zoomLog zoomPow zoomSymlog
"""
WORDS = """
E LN10 LN2 LOG10E LOG2E MAX_VALUE MIN_VALUE NaN Infinity PI SQRT1_2 SQRT2 abstract arguments array as async await
boolean break byte case cast catch cell char child class const constructor continue data_0 datum debugger default
define delete do double else enum eval event export extends false final finally float for from function get goto
height implements import in instanceof int interface item_rank label let long mark module ms name native new null of
package padding parent pi private protected prototype public return run run_rank self set short signal source_0 static
super switch synchronized this throw throws toString transient true try tuple typeof undefined unit update using value
var void volatile while width window with yield __proto__ hasOwnProperty valueOf
"""
SYMBOLS = [
    *"'\"`[]{}()<>.,:;!?@#$%&*+-=/|^~\\ ",
    *(
        "a.b",
        "a[b]",
        "a\\.b",
        "a\\",
        "['a']",
        "datum.ms",
        "datum['ms']",
        "{{a}}",
        "${a}",
        "//",
        "/*",
        "*/",
        "=>",
        "--",
        "...",
    ),
    *("", "  ", "0", "-1", "1e3", "007", "0x1", "\t\r\n", "\x00", "\x1b[2J", "\u2028", "\ud800", "\ufeff", "\ufffe"),
    *(
        "猫",
        "e\u0301",
        "\U0001f63a",
        "\u202egnp",
        "{signal: 'x'}",
        '{"signal": "x"}',
        "</script>",
        "]]>",
        "&amp;",
        "url(x)",
    ),
]
NAMES = [*FUNCTIONS.split(), *WORDS.split(), *SYMBOLS]


def drawn(*names: str) -> str:
    """Draw a chart with each name as item, as run or series, and as description."""
    labels = shortened(names)
    x = quantity("ms", "ms", [1.0])
    encoding = {"x": x}
    rows = [{"item": short, "run": "r", "ms": 1.0, "label": name} for short, name in zip(labels, names, strict=True)]
    svg = draw(rows, {"mark": "point", "encoding": {**encoding, "detail": nominal("label")}})
    rows = [{"item": "i", "run": short, "ms": 1.0, "label": name} for short, name in zip(labels, names, strict=True)]
    draw(rows, {"mark": "point", "encoding": {**encoding, "color": colour("run", rows)}})
    text = {"mark": "text", "encoding": {**encoding, "text": nominal("label"), "color": colour("label", rows)}}
    draw(rows, {"encoding": {"x": x}, "layer": [text]}, height=100)
    return svg


def check_names(svg: str, names: Sequence[str]) -> None:
    root = ElementTree.fromstring(svg)
    assert not [
        e for e in root.iter() if e.tag.rpartition("}")[2] in ("script", "image", "a", "foreignObject", "style")
    ]
    assert not [e for e in root.iter() if any(name.startswith("on") or name == "style" for name in e.attrib)]
    for name in names:
        if plain_text(name).strip():
            assert plain_text(name) in unescape(svg)


@pytest.mark.slow
@given(name=st.text(max_size=60))
@example(name="\U0001f63a" * 60)
@example(name="datum.ms ? [1] : {signal: 'x'}")
@examples(25)
def test_any_name_can_be_drawn(name: str) -> None:
    check_names(drawn(name), [name])


def test_vegas_own_words_and_symbols_can_be_drawn_together() -> None:
    check_names(drawn(*NAMES), NAMES)


@pytest.mark.parametrize("name", ["if", "datum", "__proto__", "", "\\", "a.b", "['a']"])
def test_vegas_own_words_and_symbols_can_be_drawn_alone(name: str) -> None:
    check_names(drawn(name), [name])


def test_colours_come_from_the_page() -> None:
    svg = drawn("x")
    assert 'fill="var(--soft)"' in svg
    assert 'stroke="var(--line)"' in svg


def test_rows_that_are_no_numbers_are_left_out() -> None:
    rows = [{"item": n, "run": "r", "ms": v, "label": n} for n, v in (("good", 1.0), ("bad", math.nan))]
    svg = draw(rows, {"mark": "point", "encoding": {"x": quantity("ms", "ms", [1.0, math.nan])}})
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


@pytest.mark.parametrize("executable", ["/nonexistent", "/", "", None])
def test_a_system_that_starts_no_process_draws_no_chart(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    segcore.report.vega._converter.cache_clear()
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(DrawingError):
        drawn("x")


def test_modules_are_not_those_of_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    segcore.report.vega._converter.cache_clear()
    (tmp_path / "json.py").write_text("raise ImportError\n")
    monkeypatch.chdir(tmp_path)
    assert drawn("x")
