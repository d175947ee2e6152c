"""Vega-Lite specifications in the report's own style, and their drawing as SVG.

``vl-convert`` draws them without network or browser, as SVG that takes its colours from the page's CSS variables; a
charting script would add 0.5 to 4.5 MB to every page.

Names of cases, models and devices reach Vega as values of data only, under field names that are fixed here. They must
never become part of an expression: Vega-Lite makes one of a ``sort`` by a list of values, and there reads a case named
``if`` as the name of a signal.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import math
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from segcore.core.errors import SegcoreError
from segcore.core.system import explain
from segcore.report.escape import plain_text
from segcore.report.table import Table

Spec = dict[str, Any]

WIDE, NARROW = 960, 420
"""Pixels: charts as wide as the page, and charts of which two fit side by side, or one on a telephone."""
MAX_MARKS = 1500
"""Marks of one chart, at 250 bytes each."""
MAX_LANES = 100
"""Lanes of a chart: several screens."""
MAX_SMALL = 500
"""Marks of a chart for a narrow screen."""
LANE, SUBLANE, NAME = 28, 13, 20
"""Pixels per item, per run within an item if there are few runs, and for the name of an item above its lane."""
CHARACTER, SYMBOL = 6.6, 48
"""Pixels of a character of a legend and of what is beside a name: generous, since what is too long is cut off."""
MAX_LEGEND = 40
"""Names in a legend; with more, colours are too alike to be told apart."""
MAX_SHAPES = 8
DEADLINE_S = 60
_PROGRAM = """
import json, sys, vl_convert
for line in sys.stdin:
    try:
        answer = {"svg": vl_convert.vegalite_to_svg(line, vl_version="6.4")}
    except Exception as error:
        answer = {"error": str(error)}
    print(json.dumps(answer), flush=True)
"""

# Labels have no limit: Vega would cut between the halves of a surrogate pair, which vl-convert then refuses. Callers
# shorten them (`segcore.report.wording.shortened`).
CONFIG: Spec = {
    # vl-convert measures with Liberation Sans, which is as wide as Arial.
    "font": "Arial, Liberation Sans, sans-serif",
    "background": None,
    "view": {"stroke": None},
    "axis": {
        "labelColor": "var(--soft)",
        "titleColor": "var(--soft)",
        "gridColor": "var(--line)",
        "tickColor": "var(--line)",
        "domainColor": "var(--line)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "labelLimit": 0,
        "titlePadding": 8,
    },
    "axisY": {"domain": False, "ticks": False, "labelPadding": 8},
    "legend": {"labelColor": "var(--ink)", "labelFontSize": 12, "symbolOpacity": 1, "symbolStrokeWidth": 0},
    "text": {"fontSize": 12},
    "range": {"category": [f"var(--c{i})" for i in range(1, 9)]},
}


class DrawingError(SegcoreError):
    """A chart cannot be drawn."""


class _Converter:
    """A child process that draws: some inputs abort vl-convert's process, and little memory does, too.

    Raises:
        DrawingError: the system starts no process.
    """

    def __init__(self) -> None:
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM],  # -P: modules are not those of the working directory
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
            )
        except (OSError, TypeError) as error:  # TypeError: an embedded interpreter has no executable
            raise DrawingError(f"no process can be started for vl-convert: {explain(error) or error}") from None
        atexit.register(self.close)

    def svg(self, spec: str) -> str:
        """Return the drawing of a specification, one line of JSON.

        Raises:
            DrawingError: the child cannot draw it, took too long, or died.
        """
        timer = threading.Timer(DEADLINE_S, self._child.kill)
        timer.start()
        try:
            assert self._child.stdin
            assert self._child.stdout
            self._child.stdin.write(f"{spec}\n")
            self._child.stdin.flush()
            answer = json.loads(self._child.stdout.readline())
        except (OSError, ValueError):
            self.close()
            raise DrawingError(f"vl-convert died or took more than {DEADLINE_S} s") from None
        finally:
            timer.cancel()
        if "error" in answer:
            raise DrawingError(f"vl-convert: {answer['error']}")
        return str(answer["svg"])

    def close(self) -> None:
        """End the child; the next drawing starts another one."""
        atexit.unregister(self.close)
        _converter.cache_clear()
        with contextlib.suppress(OSError):
            self._child.kill()
            self._child.communicate()


@cache
def _converter() -> _Converter:
    return _Converter()


@dataclass(frozen=True)
class Chart:
    """A drawing and the numbers in it."""

    name: str
    title: str
    caption: str
    svg: str
    small: str
    """The drawing for a narrow screen; empty if `svg` fits there."""
    table: Table
    wide: bool
    folded: bool


def make_chart(
    about: tuple[str, str, str],
    rows: Sequence[Spec],
    spec: Spec,
    table: Table | Mapping[str, str],
    *,
    height: int | None = 240,
    wide: bool = False,
    folded: bool = False,
) -> Chart | None:
    """Return a chart, or None without rows.

    Args:
        about: name, title and caption.
        rows: the data.
        spec: marks and encodings.
        table: the numbers, or the fields of the rows by name of their column.
        height: as for `draw`.
        wide: as wide as the page.
        folded: shown on demand.
    """
    if not rows:
        return None
    if not isinstance(table, Table):
        table = Table(tuple(table), tuple(tuple(row[field] for field in table.values()) for row in rows))
    name, title, caption = about
    shown = _visible(rows, lanes=height is None)
    if len(shown) < len(rows):
        caption += f" {len(rows) - len(shown):,} of {len(rows):,} marks are left out; the table has all numbers."
    svg = small = ""
    try:
        svg = draw(shown, spec, wide=wide, height=height)
        small = draw(shown[:: 1 + len(shown) // MAX_SMALL], spec, wide=False, height=height) if wide else ""
    except DrawingError as error:
        caption = f"{caption} Not drawn: {error}."
    return Chart(name, title, caption, svg, small, table, wide, folded)


def _visible(rows: Sequence[Spec], *, lanes: bool) -> Sequence[Spec]:
    """Return the rows that can be told apart: those of the first `MAX_LANES` lanes, at most `MAX_MARKS` in all."""
    if lanes:
        first = set(islice(dict.fromkeys((row["item"], row["run"]) for row in rows), MAX_LANES))
        rows = [row for row in rows if (row["item"], row["run"]) in first]
    return rows[:MAX_MARKS]


def draw(rows: Sequence[Spec], spec: Spec, *, wide: bool = True, height: int | None = None) -> str:
    """Return a chart as SVG, without rows that have a number that is not finite.

    Args:
        rows: the data; ``label`` describes a mark.
        spec: marks and encodings.
        wide: as wide as the page, with the names of items beside their lanes; else half of it, with them above.
        height: pixels of the plotting area; None for one lane per ``item``, and per ``run`` within it.

    Raises:
        DrawingError: the chart cannot be drawn.
    """
    known = [row for row in rows if all(math.isfinite(v) for v in row.values() if isinstance(v, float))]
    encoding = {"description": nominal("label"), **spec.get("encoding", {})}
    sized: Spec = {"height": height}
    if height is None:
        runs = len({row["run"] for row in known})
        sublane = max(6, min(SUBLANE, 2 * LANE // max(runs, 1)))
        lane = runs * sublane if runs > 1 else LANE * 0.75
        axis: Spec = {"grid": False, "labelColor": "var(--ink)"}
        scale: Spec = {"paddingInner": 0.25}
        if not wide:
            share = NAME / (lane + NAME)
            scale = {"paddingInner": share, "paddingOuter": share}
            axis |= {"labelAlign": "left", "labelPadding": 0, "labelOffset": -(lane + NAME) / 2 + 2}
        encoding["y"] = nominal("item", title=None, sort=_by_rank("item"), axis=axis, scale=scale)
        encoding |= {"yOffset": nominal("run", sort=_by_rank("run"))} if runs > 1 else {}
        step = {"step": sublane, "for": "offset"} if runs > 1 else {"step": LANE if wide else lane + NAME}
        # Without Arial or the like, a browser draws labels wider than they were measured: leave room for that.
        sized = {"height": step, "padding": {"left": 30 if wide else 4, "right": 8, "top": 4, "bottom": 4}}
    whole: Spec = {
        "width": WIDE if wide else NARROW,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "config": CONFIG,
        **sized,
        **spec,
        "encoding": encoding,
    }
    beside = max((len(str(row["item"])) for row in known), default=0) * CHARACTER if wide and height is None else 60
    room = (WIDE if wide else NARROW) - beside
    whole = {**_fit_legends(whole, room), "data": {"values": _ranked(known)}}
    return _converter().svg(json.dumps(_cleaned(whole)))


def _by_rank(field: str) -> Spec:
    return {"field": f"{field}_rank", "op": "min"}


def _ranked(rows: Sequence[Spec]) -> list[Spec]:
    """Return rows with the position of their item and run in order of appearance, by which lanes are sorted."""
    ranks = {
        name: {value: rank for rank, value in enumerate(dict.fromkeys(row.get(name) for row in rows))}
        for name in ("item", "run")
    }
    return [row | {f"{name}_rank": of[row.get(name)] for name, of in ranks.items()} for row in rows]


def _cleaned(value: Any) -> Any:
    """Return a specification without control characters, at which vl-convert 1.9 aborts the whole process."""
    if isinstance(value, str):
        return plain_text(value)
    if isinstance(value, dict):
        return {key: _cleaned(inner) for key, inner in value.items()}
    return [_cleaned(inner) for inner in value] if isinstance(value, list | tuple) else value


def nominal(field: str, **more: object) -> Spec:
    """Return the encoding of a field of names."""
    return {"field": field, "type": "nominal", **more}


def linear(field: str, title: str, **more: object) -> Spec:
    """Return the encoding of a field of numbers."""
    return {"field": field, "type": "quantitative", "title": title, **more}


def colour(field: str, rows: Sequence[Spec], *, legend: bool = True) -> Spec:
    """Return the encoding of a field of names by colour, with a legend if there are several."""
    return _named(field, rows, MAX_LEGEND if legend else 0)


def shape(field: str, rows: Sequence[Spec]) -> Spec:
    """Return the encoding of a field of names by shape, with a legend; nothing for one name, or more than shapes."""
    encoding = _named(field, rows, MAX_SHAPES)
    if not encoding["legend"]:
        return {}
    encoding["legend"] |= {"symbolFillColor": "var(--soft)"}
    return {"shape": encoding}


def _named(field: str, rows: Sequence[Spec], most: int) -> Spec:
    names = list(dict.fromkeys(row[field] for row in rows))
    legend = {"orient": "top", "title": None, "labelLimit": 0, "columnPadding": 24}
    return nominal(field, scale={"domain": names}, legend=legend if 1 < len(names) <= most else None)


def _fit_legends(value: Any, room: float) -> Any:
    """Return a specification whose legends have as many columns as fit."""
    if isinstance(value, dict):
        fitted = {key: _fit_legends(inner, room) for key, inner in value.items()}
        if isinstance(fitted.get("legend"), dict) and "domain" in (fitted.get("scale") or {}):
            longest = max(len(str(name)) for name in fitted["scale"]["domain"])
            fitted["legend"] = {"columns": max(1, int(room / (CHARACTER * longest + SYMBOL))), **fitted["legend"]}
        return fitted
    return [_fit_legends(inner, room) for inner in value] if isinstance(value, list) else value


def quantity(field: str, title: str, values: Sequence[float], *, log: bool | None = None) -> Spec:
    """Return the encoding of numbers: from zero, or logarithmic if they span more than a factor of 20."""
    positive = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(positive) / 1.25, max(positive) * 1.25
    scale: Spec = {"zero": True}
    axis: Spec = {"format": ",.9~g", "tickCount": 6}
    if log or (log is None and high / low > 30):
        scale = {"type": "log", "nice": False, "domain": [low, high]}
        # 1, 2 and 5 of each decade, or only 1 of many decades
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [float(f"{step}e{d}") for d in decades for step in ((1, 2, 5) if high / low < 1e4 else (1,))]
        axis["values"] = [tick for tick in ticks if low <= tick <= high]
    return linear(field, title, scale=scale, axis=axis)
