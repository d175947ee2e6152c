"""One self-contained HTML page from any run files: no network, works from disk, light and dark, prints.

The page carries a Content-Security-Policy that allows its own style sheet and script by their hashes, pictures as data
URIs, and nothing else: what a run file or a YAML file smuggles into a name could not run even if an escape were missed.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import markupsafe

from segcore import __version__
from segcore.core.errors import RecordError
from segcore.core.files import write_file
from segcore.core.records import CheckRecord, Run
from segcore.report.charts import all_charts
from segcore.report.model import TRACE, CaseReport, ReportModel, open_pictures
from segcore.report.pictures import changed_uri, fitted, load_photo, mask_uri, photo_uri
from segcore.report.tables import dataset_tables, facts, items_table, side_by_side
from segcore.report.wording import number, plain_text

PICTURE_SIDES = ((24, 640), (48, 480), (96, 320))
"""Up to so many cases, pictures get so long a side; beyond, only the first cases have their pictures shown."""


WORST = 6
"""Images of each dataset that are shown, worst first."""


@dataclass(frozen=True)
class LegendEntry:
    """One class in the legend, and its place in the bar above it (0 to 100)."""

    name: str
    colour: str
    share: str
    before: str
    start: float
    width: float


@dataclass(frozen=True)
class Card:
    """One case as the page shows it; pictures are data URIs, empty where there are none."""

    title: str
    subtitle: str
    summary: str
    passed: bool
    photo: str
    mask: str
    changed: str
    changed_words: str
    width: int
    height: int
    legend: tuple[LegendEntry, ...]
    traces: str
    """What is said of the classes that are too rare for the legend."""
    checks: tuple[CheckRecord, ...]
    scores: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


def write_html(story: ReportModel, path: Path) -> None:
    """Write the page.

    Raises:
        OutputError: the file cannot be written.
    """
    write_file(path, render_html(story).encode())


def render_html(story: ReportModel) -> str:
    """Return the page."""
    css, js = (_asset(name) for name in ("page.css", "page.js"))
    side = next((side for most, side in PICTURE_SIDES if len(story.cases) <= most), PICTURE_SIDES[-1][1])
    shown = story.cases[: PICTURE_SIDES[-1][0]]
    page: dict[str, Any] = {
        "story": story,
        "version": __version__,
        "css": markupsafe.Markup(css),  # noqa: S704  # our own files
        "js": markupsafe.Markup(js),  # noqa: S704
        "css_hash": _hash(css),
        "js_hash": _hash(js),
        "cases": [_card(case, side) for case in shown],
        "left_out": f"The first {len(shown)} of {len(story.cases)} cases." if len(shown) < len(story.cases) else "",
        "charts": all_charts(story.all_runs),
        "items": items_table(story),
        "compared": side_by_side(story.all_runs),
        "datasets": dataset_tables(story.current, story.baseline),
        "worst": _worst(story.current),
        "origins": [(run, facts(run), _download(run)) for run in story.all_runs],
    }
    page["trouble_title"] = _trouble_title(story)
    page["sections"] = [
        (anchor, title)
        for anchor, title, there in (
            ("changed", "Changed", story.baseline),
            ("failures", page["trouble_title"], page["trouble_title"]),
            ("cases", "Cases", page["cases"]),
            ("datasets", "Datasets", page["datasets"]),
            ("compared", "Side by side", page["compared"]),
            ("speed", "Speed", page["charts"]),
            ("items", "Items", True),
            ("machine", "Machine", True),
        )
        if there
    ]
    return _environment().get_template("page.html.j2").render(page)


def _trouble_title(story: ReportModel) -> str:
    """``Failed, skipped, doubtful``, or what of these there is."""
    skipped = [trouble.outcome == "skipped" for trouble in story.failures]
    kinds = {"failed": not all(skipped), "skipped": any(skipped), "doubtful": bool(story.item_warnings)}
    return ", ".join(kind for kind, there in kinds.items() if there).capitalize()


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: plain_text(value) if type(value) is str else value,  # not Markup, which is our own
    )
    environment.filters["number"] = number
    environment.filters["moment"] = _moment
    # Vega escapes the text it is given as data; nothing else may pass unescaped.
    environment.filters["trusted_svg"] = markupsafe.Markup
    return environment


def _asset(name: str) -> str:
    return (files("segcore.report") / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _moment(iso: str) -> str:
    """``2026-11-22 10:30 UTC`` for a time that can be read, else the text as it is."""
    try:
        return datetime.fromisoformat(iso).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return iso


def _card(case: CaseReport, side: int) -> Card:
    seen = open_pictures(case)
    picture = seen.photo if seen.photo is not None else seen.class_map
    size = fitted(picture.shape[1], picture.shape[0], side) if picture is not None else (1, 1)
    legend, start = [], 0.0
    traces = [share.name for share in case.shares if max(share.share, share.before or 0) < TRACE]
    for share in case.shares:
        if share.name in traces:
            continue
        before = "" if share.before is None or abs(share.before - share.share) < 5e-4 else f"{share.before:.1%}"
        legend.append(LegendEntry(share.name, share.colour, f"{share.share:.1%}", before, start, 100 * share.share))
        start += 100 * share.share
    return Card(
        title=case.title,
        subtitle=case.subtitle,
        summary=", ".join(f"{entry.name} {entry.share}" for entry in legend),
        passed=case.accuracy.passed,
        photo=photo_uri(seen.photo, size) if seen.photo is not None else "",
        mask=mask_uri(seen.class_map, size) if seen.class_map is not None else "",
        changed=changed_uri(seen.changed, size) if seen.changed is not None and seen.changed.any() else "",
        changed_words=seen.changed_words,
        width=size[0],
        height=size[1],
        legend=tuple(legend),
        traces=f"below {TRACE:.1%}: {', '.join(traces)}" if traces else "",
        checks=case.accuracy.checks,
        scores=case.scores,
        notes=seen.notes,
    )


def _worst(run: Run) -> list[tuple[str, str]]:
    """Captions and data URIs of the images that scored worst; an empty URI where the picture cannot be shown."""
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


def _download(run: Run) -> str:
    """The run file itself, as a data URI, so that the page stays one file."""
    try:
        data = run.path.read_bytes()
    except OSError as error:
        raise RecordError(f"{run.path}: cannot be read: {error.strerror}") from None
    return f"data:application/json;base64,{base64.b64encode(data).decode()}"
