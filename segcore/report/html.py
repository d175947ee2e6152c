"""One self-contained HTML page from any run files: no network, works from disk, light and dark, prints.

The page carries a Content-Security-Policy that allows its own style sheet and script by their hashes, pictures as data
URIs, and nothing else: markup in a name from a run file or YAML could not run even if an escape were missed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from segcore import __version__
from segcore.core.errors import RecordError, UsageError
from segcore.core.files import write_file
from segcore.core.records import Run
from segcore.report import tables
from segcore.report.charts import all_charts
from segcore.report.escape import plain_text
from segcore.report.gate import gate_table
from segcore.report.model import MIN_SHARE, CaseReport, Pictures, ReportModel, Share, open_pictures
from segcore.report.pictures import changed_uri, fitted, mask_uri, photo_uri
from segcore.report.run_tables import backends_tables, int8_table, load_tables
from segcore.report.table import to_html
from segcore.results.pictures import load_photo
from segcore.results.store import read_bytes

if TYPE_CHECKING:
    import jinja2

INSTALL = "pip install 'segcore[report]'"
PICTURE_SIDES = ((24, 640), (48, 480), (96, 320))
"""(cases, pixels): with up to so many cases, the longer side of pictures; further cases are left out."""
MAX_DOWNLOADS = 20 << 20
"""Bytes of run files inside a page."""
WORST = 6
"""Images shown of each dataset, worst first."""


@dataclass(frozen=True)
class Card:
    """One case as the page shows it; pictures are data URIs, empty if there are none."""

    case: CaseReport
    seen: Pictures
    photo: str
    mask: str
    changed: str
    size: tuple[int, int]
    """Width and height of the pictures."""
    legend: tuple[Share, ...]
    summary: str
    rare: tuple[str, ...]
    """Classes below `MIN_SHARE`."""


def write_html(report: ReportModel, path: Path) -> None:
    """Write the page.

    Raises:
        OutputError: the file cannot be written.
        UsageError: jinja2 is not installed.
    """
    write_file(path, render_html(report).encode())


def render_html(report: ReportModel) -> str:
    """Return the page; raise UsageError if jinja2 is not installed."""
    css, js = (_asset(name) for name in ("page.css", "page.js"))
    side = next((side for most, side in PICTURE_SIDES if len(report.cases) <= most), PICTURE_SIDES[-1][1])
    missing = missing_charts()
    page = {
        "report": report,
        "version": __version__,
        "css": css,
        "js": js,
        "css_hash": _hash(css),
        "js_hash": _hash(js),
        "cards": [_card(case, side) for case in report.cases[: PICTURE_SIDES[-1][0]]],
        "charts": () if missing else all_charts(report.all_runs),
        "missing": missing,
        "compared": tables.side_by_side(report.all_runs),
        "datasets": tables.dataset_tables(report.current, report.baseline),
        "load": load_tables(report.current),
        "backends": backends_tables(report.current),
        "int8": [int8_table(record) for record in report.current.record.int8],
        "worst": _worst(report.current),
        "origins": [
            (run, tables.facts(run), href)
            for run, href in zip(report.all_runs, _downloads(report.all_runs), strict=True)
        ],
    }
    return _environment().get_template("page.html.j2").render(page)


def missing_charts() -> str:
    """Return why pages have no charts, or nothing if they can be drawn."""
    return "" if find_spec("vl_convert") else f"No charts: vl-convert-python is not installed; {INSTALL}."


def _environment() -> jinja2.Environment:
    try:
        import jinja2
        import markupsafe
    except ModuleNotFoundError:
        raise UsageError(f"an HTML page needs jinja2, which is not installed; {INSTALL}") from None
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain_text(value) if type(value) is str else value,  # not Markup, which is our own
    )
    # Trusted are our own files, tables (`to_html` escapes) and charts, to which Vega adds names as text.
    environment.filters |= {"moment": _moment, "percent": "{:.1%}".format, "trusted": markupsafe.Markup}
    makers = (gate_table, tables.checks_table, tables.failures_table, tables.items_table, tables.warnings_table)
    environment.globals |= {make.__name__: make for make in makers}
    environment.globals["table"] = lambda *args, **options: markupsafe.Markup(to_html(*args, **options))  # noqa: S704
    return environment


def _asset(name: str) -> str:
    return (files("segcore.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _moment(iso: str) -> str:
    """Return ``2026-11-22 10:30 UTC`` for a valid time, else the text as it is."""
    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return iso


def _card(case: CaseReport, side: int) -> Card:
    seen = open_pictures(case)
    picture = seen.photo if seen.photo is not None else seen.class_map
    size = fitted(picture.shape[1], picture.shape[0], side) if picture is not None else (1, 1)
    legend = tuple(share for share in case.shares if max(share.share, share.before or 0) >= MIN_SHARE)
    return Card(
        case=case,
        seen=seen,
        photo=photo_uri(seen.photo, size) if seen.photo is not None else "",
        mask=mask_uri(seen.class_map, size, case.labels) if seen.class_map is not None else "",
        changed=changed_uri(seen.changed, size) if seen.changed is not None and seen.changed.any() else "",
        size=size,
        legend=legend,
        summary=", ".join(f"{share.name} {share.share:.1%}" for share in legend),
        rare=tuple(share.name for share in case.shares if share not in legend),
    )


def _worst(run: Run) -> list[tuple[str, str]]:
    """Return captions and data URIs of the images that scored worst; an empty URI if a picture cannot be shown."""
    shown = []
    for worst in (w for b in run.benchmarks if b.info.dataset for w in b.info.dataset.worst[:WORST]):
        caption, uri = f"{worst.name}: mIoU {worst.miou:.1%}", ""
        if worst.picture:
            try:
                picture = load_photo(run, worst.picture)
                uri = photo_uri(picture, fitted(picture.shape[1], picture.shape[0], 640))
            except RecordError as error:
                caption = f"{caption}; {error}"
        shown.append((caption, uri))
    return shown


def _downloads(runs: Sequence[Run]) -> list[str]:
    """Return the run files as data URIs, the judged run first; empty once they would make the page too large."""
    found: list[str] = []
    room = MAX_DOWNLOADS
    for run in reversed(runs):
        data = read_bytes(run.path)
        room -= len(data)
        found.append(f"data:application/json;base64,{base64.b64encode(data).decode()}" if room >= 0 else "")
    return found[::-1]
