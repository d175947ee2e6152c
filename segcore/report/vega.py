"""Vega-Lite specifications in the report's own style, and their drawing as SVG.

``vl-convert``, the Vega project's own converter, draws them without network or browser. The page gets plain SVG, which
prints, scales and takes its colours from the page's CSS variables, light or dark; a charting script would add 0.5 to
4.5 MB to every page.

Names of cases, models and devices reach Vega as values of data only, under field names that are fixed here. They must
never become part of an expression: Vega-Lite makes one of a ``sort`` by a list of values, and there reads a case named
``if`` as the name of a signal.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from segcore.report.escape import plain_text

Spec = dict[str, Any]

WIDE, NARROW = 960, 470
"""Pixels: charts as wide as the page, and charts of which two fit side by side."""
LANE, SUBLANE = 28, 13
"""Pixels per item, and per run within an item if there are few runs."""

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


def draw(rows: Sequence[Spec], spec: Spec, *, width: int = WIDE, height: int | None = None) -> str:
    """Return a chart as SVG.

    Args:
        rows: the data; rows with a number that is not finite are left out.
        spec: marks and encodings.
        width: pixels, labels included.
        height: pixels of the plotting area; one lane per item when None.
    """
    import vl_convert  # of the extra `report`; takes 0.3 s

    known = [row for row in rows if all(math.isfinite(v) for v in row.values() if isinstance(v, float))]
    if height is None:
        runs = len({row["run"] for row in known})
        step = {"step": max(6, min(SUBLANE, 2 * LANE // runs)), "for": "offset"} if runs > 1 else {"step": LANE}
        sized: Spec = {"height": step}
        # Without Arial or the like, a browser draws labels wider than they were measured: leave room for that.
        sized["padding"] = {"left": 30, "right": 8, "top": 4, "bottom": 4}
    else:
        sized = {"height": height}
    whole = {"width": width, **sized, "autosize": {"type": "fit-x", "contains": "padding"}, "config": CONFIG}
    text = json.dumps(_cleaned({**whole, "data": {"values": _ranked(known)}, **spec}))
    svg: str = vl_convert.vegalite_to_svg(text, vl_version="6.4")
    return svg


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


def lanes(rows: Sequence[Spec]) -> Spec:
    """Return the encodings of a lane per ``item``, and of one per ``run`` within it if there are several runs."""
    axis = {"grid": False, "labelColor": "var(--ink)"}
    by_rank = {field: {"field": f"{field}_rank", "op": "min"} for field in ("item", "run")}
    found = {"y": nominal("item", title=None, sort=by_rank["item"], axis=axis, scale={"paddingInner": 0.25})}
    if len({row["run"] for row in rows}) > 1:
        found["yOffset"] = nominal("run", sort=by_rank["run"])
    return found


def colour(field: str, rows: Sequence[Spec], columns: int = 4) -> Spec:
    """Return the encoding of a field of names by colour, with a legend if there are several."""
    names = list(dict.fromkeys(row[field] for row in rows))
    legend = {"orient": "top", "title": None, "columns": columns, "labelLimit": 0, "columnPadding": 24}
    return nominal(field, scale={"domain": names}, legend=legend if len(names) > 1 else None)


def quantity(field: str, title: str, values: Sequence[float], *, log: bool | None = None) -> Spec:
    """Return the encoding of numbers: from zero, or logarithmic if they span more than a factor of 20."""
    usable = [value for value in values if math.isfinite(value) and value > 0] or [1.0]
    low, high = min(usable) / 1.25, max(usable) * 1.25
    scale: Spec = {"zero": True}
    axis: Spec = {"format": ",.9~g", "tickCount": 6}
    if log or (log is None and high / low > 30):
        scale = {"type": "log", "nice": False, "domain": [low, high]}
        axis["values"] = _ticks(low, high)
    return {"field": field, "type": "quantitative", "title": title, "scale": scale, "axis": axis}


def _ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 of each decade, or only 1 of many decades."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 1e4 else (1,)
    return [tick for d in decades for s in steps if low <= (tick := float(f"{s}e{d}")) <= high]
