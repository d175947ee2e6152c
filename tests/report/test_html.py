"""The page as text: one file, everything escaped, pictures only from the run's own directory."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from segcore.core.errors import OutputError
from segcore.core.limits import Limits
from segcore.core.records import DatasetRecord, OutcomeRecord, Run, WeightsRecord, WorstRecord
from segcore.judgement.drift import run_drift
from segcore.judgement.gate import judge
from segcore.report.html import render_html, write_html
from segcore.report.model import ReportModel, build_report
from segcore.results.store import load_run
from tests.support.factories import HOSTILE, make_hostile, make_run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    directory = tmp_path_factory.mktemp("runs")
    skipped = OutcomeRecord(item="test_latency[cuda]", kind="latency", outcome="skipped", reason="no CUDA device")
    return make_run(directory, "base"), make_run(
        directory, "head", slower=1.5, shift=9, seed=1, outcomes=(skipped,), started="2026-11-21T09:30:00+00:00"
    )


@pytest.fixture(scope="module")
def judged(pair: tuple[Run, Run]) -> ReportModel:
    base, head = pair
    return build_report([head], base, judge([base], [head], Limits(), drift=run_drift(base, head)))


@pytest.fixture(scope="module")
def page(judged: ReportModel) -> str:
    return render_html(judged)


class Parsed(HTMLParser):
    """Tags with their attributes, and the text of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, str] = {}
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_data(self, data: str) -> None:
        if self._inside in ("script", "style"):
            self.raw[self._inside] = self.raw.get(self._inside, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.mark.slow
def test_page_needs_no_network(page: str) -> None:
    for tag, attributes in Parsed(page).tags:
        for name in ("src", "href", "xlink:href", "action", "poster", "data"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), (tag, name, target[:80])
    assert "@import" not in page
    assert "url(" not in re.sub(r"data:[^\"]*", "", page)


def test_policy_allows_only_the_pages_own_script_and_style(page: str) -> None:
    parsed = Parsed(page)
    policy = next(a["content"] or "" for tag, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(parsed.raw[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not [(tag, a) for tag, a in parsed.tags if "style" in a or any(name.startswith("on") for name in a)]


def test_verdict_comes_first_then_what_changed(page: str, judged: ReportModel) -> None:
    assert judged.headline.line.startswith("Failed: ")
    places = [
        page.index(text)
        for text in (judged.headline.line, ">What changed<", ">Cases</h2>", ">Speed</h2>", ">Every item<")
    ]
    assert places == sorted(places)
    assert "changed pixels" in page
    assert "no CUDA device" in page


def test_page_is_small(page: str) -> None:
    assert len(page.encode()) < 2_000_000


def test_raw_run_files_are_inside(page: str, pair: tuple[Run, Run]) -> None:
    links = [a for tag, a in Parsed(page).tags if tag == "a" and "download" in a]
    assert [a["download"] for a in links] == ["base.json", "head.json"]
    for attributes, run in zip(links, pair, strict=True):
        data = base64.b64decode((attributes["href"] or "").partition("base64,")[2])
        assert json.loads(data) == json.loads(run.path.read_bytes())


def test_every_chart_has_its_numbers_behind_it(page: str) -> None:
    figures = re.findall(r'<figure id="chart-([a-z-]+)".*?</figure>', page, re.DOTALL)
    assert figures == [
        "latency",
        "distribution",
        "stages",
        "throughput",
        "trade-off",
        "efficiency",
        "run-order",
    ]
    for name in figures:
        figure = page[page.index(f'id="chart-{name}"') :].partition("</figure>")[0]
        assert "<svg" in figure
        assert figure.count("<tr>") > 2
        assert re.search(r'aria-label="[^"]*\d[^"]*(ms|%|GMAC/s|images/s)', figure)


def test_hostile_names_stay_text(pair: tuple[Run, Run]) -> None:
    hostile = make_hostile(pair[1])
    page = render_html(build_report([hostile], hostile, judge([hostile], [hostile], Limits())))
    parsed = Parsed(page)
    assert [tag for tag, _ in parsed.tags].count("script") == 1
    assert not [a for _, a in parsed.tags if any(name.startswith("on") for name in a)]
    assert [a["src"] for tag, a in parsed.tags if tag == "img" and not (a["src"] or "").startswith("data:")] == []
    assert "49" not in re.findall(r"@all (\S+)", page)
    assert "&lt;/script&gt;&lt;script&gt;window.pwned" in page
    assert HOSTILE not in page


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("../secret.png", "lies outside the run&#39;s directory"),
        ("/etc/hostname", "lies outside the run&#39;s directory"),
        ("link.png", "lies outside the run&#39;s directory"),
        ("gone.png", "is missing"),
        ("\0.png", "is missing"),
        (HOSTILE, "&lt;/script&gt;"),
        ("base.json", "cannot be read"),
    ],
)
def test_pictures_come_only_from_the_runs_directory(tmp_path: Path, path: str, message: str) -> None:
    directory = tmp_path / "runs"
    run = make_run(directory, models=("embedded",))
    (directory / "base-maps/chelsea.jpg").rename(tmp_path / "secret.png")
    (directory / "link.png").symlink_to(tmp_path / "secret.png")
    document = json.loads(run.path.read_bytes())
    for entry in document["benchmarks"]:
        accuracy = entry["extra_info"]["segcore"]["accuracy"]
        if accuracy and "chelsea" in accuracy["photo"]:
            accuracy["photo"] = path
    run.path.write_text(json.dumps(document))
    page = render_html(build_report([load_run(run.path)]))
    assert message in page
    assert page.count('class="photo"') == 1


def test_a_run_without_items_is_incomplete(tmp_path: Path) -> None:
    run = make_run(tmp_path, models=())
    report = build_report([run])
    assert report.headline.word == "Incomplete"
    page = render_html(report)
    assert "0 items measured" in page
    assert 'id="speed"' not in page


def test_random_weights_and_interruption_are_shown(pair: tuple[Run, Run]) -> None:
    run = pair[0]
    random = WeightsRecord(kind="random", name="seed 0", sha256="00")
    infos = [b.info.model_copy(update={"weights": random}) for b in run.benchmarks]
    benchmarks = tuple(b.model_copy(update={"info": i}) for b, i in zip(run.benchmarks, infos, strict=True))
    record = run.record.model_copy(update={"complete": False})
    page = render_html(build_report([run.model_copy(update={"benchmarks": benchmarks, "record": record})]))
    assert "Random weights (embedded, fcn_resnet101): latency only, the classes mean nothing." in page
    assert page.count("] (random weights)<") == len(benchmarks), "every row of the items"
    assert "embedded (random)" in page, "labels of the charts"
    assert "The run was interrupted" in page


def test_several_runs_stand_side_by_side(pair: tuple[Run, Run]) -> None:
    page = render_html(build_report(pair))
    assert 'id="compared"' in page
    assert "base cpu" in page
    assert "head cpu" in page


def test_many_cases_get_smaller_pictures(pair: tuple[Run, Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segcore.report.html.PICTURE_SIDES", ((1, 640), (2, 100)))
    report = build_report([pair[0]])
    page = render_html(report)
    assert "The first 2 of 4 cases." in page
    widths = [int(a["width"] or 0) for tag, a in Parsed(page).tags if tag == "img"]
    assert max(widths) == 100


def test_worst_images_of_a_dataset_are_shown(pair: tuple[Run, Run]) -> None:
    worst = (
        WorstRecord(name="street<b>", miou=0.05, picture="base-maps/chelsea.jpg"),
        WorstRecord(name="gone", miou=0.1, picture="gone.jpg"),
        WorstRecord(name="plain", miou=0.2),
    )
    record = DatasetRecord(name="voc-val", sha256="ab", images=9, protocol="p", scores={}, intervals={}, worst=worst)
    first = pair[0].benchmarks[0]
    info = first.info.model_copy(update={"kind": "dataset", "dataset": record})
    run = pair[0].model_copy(update={"benchmarks": (first.model_copy(update={"info": info}),)})
    page = render_html(build_report([run]))
    assert "street&lt;b&gt;: mIoU 5.0%" in page
    assert "gone: mIoU 10.0%; base.json: picture &#39;gone.jpg&#39; is missing" in page
    assert [tag for tag, _ in Parsed(page).tags].count("img") == 1


def test_an_unwritable_path_is_an_error(pair: tuple[Run, Run], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_html(dataclasses.replace(build_report([pair[0]]), cases=()), tmp_path / "file" / "index.html")
