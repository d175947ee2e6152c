"""The page in a real browser: the system's Chromium, driven by Playwright, with no network at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from segcore.core.limits import Limits
from segcore.judgement.drift import run_drift
from segcore.judgement.gate import judge
from segcore.report.html import write_html
from segcore.report.model import build_report
from tests.support.factories import make_hostile, make_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt-get install chromium"),
]

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Seen:
    """A page, and what it did that it must not do."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the page of a judged run, and that of a hostile one."""
    directory = tmp_path_factory.mktemp("runs")
    base = make_run(directory, "base", models=("embedded",))
    head = make_run(directory, "head", slower=1.5, shift=9, seed=1, models=("embedded",))
    write_html(
        build_report([head], base, judge([base], [head], Limits(), drift=run_drift(base, head))),
        directory / "good.html",
    )
    write_html(build_report([make_hostile(head)], base), directory / "hostile.html")
    return directory


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield browser
        browser.close()


def visit(browser: Browser, path: Path, **options: object) -> Seen:
    context = browser.new_context(**options, offline=True)  # type: ignore[arg-type]  # Playwright's own keywords
    seen = Seen(context.new_page())
    seen.page.on("request", lambda request: seen.requests.append(request.url))
    seen.page.on("console", lambda message: seen.complaints.append(message.text))
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.on("dialog", lambda dialog: seen.complaints.append(f"dialog {dialog.message}"))
    seen.page.goto(path.as_uri())
    return seen


@pytest.fixture
def seen(browser: Browser, pages: Path) -> Iterator[Seen]:
    """The good page at desktop size; afterwards: no complaint, and no request but for the page itself."""
    seen = visit(browser, pages / "good.html", viewport={"width": 1200, "height": 900})
    yield seen
    seen.page.context.close()
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [(pages / "good.html").as_uri()]


def clipped(stage: Locator) -> str:
    return str(stage.locator(".mask").evaluate("element => getComputedStyle(element).clipPath"))


def test_slider_by_keyboard(seen: Seen) -> None:
    stage = seen.page.locator(".stage").first
    assert clipped(stage) == "inset(0px 0px 0px 50%)"
    stage.locator("input").focus()
    for _ in range(10):
        seen.page.keyboard.press("ArrowRight")
    assert clipped(stage) == "inset(0px 0px 0px 60%)"
    seen.page.keyboard.press("Home")
    assert clipped(stage) == "inset(0px 0px 0px 0%)"
    assert stage.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"


def test_slider_by_mouse(seen: Seen) -> None:
    stage = seen.page.locator(".stage").nth(1)
    box = stage.bounding_box()
    assert box
    stage.locator("input").click(position={"x": box["width"] * 0.25, "y": box["height"] / 2})
    percent = float(clipped(stage).removeprefix("inset(0px 0px 0px ").removesuffix("%)"))
    assert percent == pytest.approx(25, abs=2)


def test_views_of_a_case(seen: Seen) -> None:
    card = seen.page.locator(".card").first
    assert not card.locator(".changed").is_visible()
    card.get_by_role("button", name="changed pixels").click()
    assert card.locator(".changed").is_visible()
    assert not card.locator(".mask").is_visible()
    assert card.get_by_role("button", name="overlay").get_attribute("aria-pressed") == "false"
    card.get_by_role("button", name="mask").press("Enter")
    assert card.locator(".mask").evaluate("element => getComputedStyle(element).opacity") == "1"


def shown_numbers(page: Page, column: int) -> list[str]:
    cells = page.locator(f"#all-items tbody tr:visible td:nth-child({column})")
    return list(cells.evaluate_all("cells => cells.map(cell => cell.dataset.value)"))


def test_sorting_puts_numbers_in_order_and_the_unknown_last(seen: Seen) -> None:
    heading = seen.page.locator("#all-items th", has_text="median, ms")
    for order, reverse in (("ascending", False), ("descending", True)):
        heading.get_by_role("button").press("Enter")
        assert heading.get_attribute("aria-sort") == order
        found = shown_numbers(seen.page, 2)
        numbers = [float(text) for text in found if text != "nan"]
        assert numbers == sorted(numbers, reverse=reverse)
        assert len(numbers) == 14
        assert found[len(numbers) :] == ["nan"] * (len(found) - len(numbers))


def test_sorting_by_name(seen: Seen) -> None:
    seen.page.locator("#all-items th", has_text="item").get_by_role("button").click()
    names = seen.page.locator("#all-items tbody td:first-child").all_inner_texts()
    assert names[0].startswith("accuracy[astronaut")
    assert names[-1].startswith("throughput[")


def test_filter(seen: Seen) -> None:
    rows = seen.page.locator("#all-items tbody tr:visible")
    everything = rows.count()
    seen.page.get_by_label("Filter").fill("HEAD throughput")
    assert 0 < rows.count() < everything
    assert all("throughput" in text and "head" in text for text in rows.all_inner_texts())
    assert seen.page.locator("#shown").inner_text() == f"{rows.count()} of {everything}"
    seen.page.get_by_label("Filter").fill("")
    assert rows.count() == everything


@pytest.mark.parametrize("chart", ["latency", "stages", "throughput", "efficiency", "trade-off", "run-order"])
def test_hover_shows_the_number(seen: Seen, chart: str) -> None:
    symbols = f'#chart-{chart} .drawing:visible [role="graphics-symbol"]'
    mark = seen.page.locator(f'{symbols}:not([aria-roledescription="axis"], [aria-roledescription="legend"])').last
    mark.scroll_into_view_if_needed()
    mark.hover(force=True)
    tip = seen.page.locator("#tip")
    assert tip.is_visible()
    assert any(unit in tip.inner_text() for unit in (" ms", "%", " GMAC/s", " images/s"))
    box = tip.bounding_box()
    assert box
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1200
    seen.page.mouse.move(5, 5)
    assert not tip.is_visible()


def test_distribution_is_shown_on_demand(seen: Seen) -> None:
    figure = seen.page.locator("#chart-distribution .drawing:not(.small) svg")
    assert not figure.is_visible()
    seen.page.get_by_text("Distribution", exact=True).first.click()
    assert figure.is_visible()


def test_run_file_can_be_taken_out(seen: Seen, pages: Path, tmp_path: Path) -> None:
    with seen.page.expect_download() as download:
        seen.page.get_by_role("link", name="Download the run file").last.click()
    assert download.value.suggested_filename == "head.json"
    download.value.save_as(tmp_path / "head.json")
    assert (tmp_path / "head.json").read_bytes() == (pages / "head.json").read_bytes()


def test_first_tab_stop_skips_to_the_report(seen: Seen) -> None:
    seen.page.keyboard.press("Tab")
    assert seen.page.evaluate("document.activeElement.textContent") == "Skip to the report"
    seen.page.keyboard.press("Enter")
    assert seen.page.url.endswith("#main")


def test_theme_can_be_switched(seen: Seen) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    before = seen.page.evaluate(colour)
    seen.page.locator("#theme").click()
    assert seen.page.evaluate(colour) != before
    seen.page.locator("#theme").click()
    assert seen.page.evaluate(colour) == before


# Every text against the nearest opaque background above it; WCAG 2.1, success criterion 1.4.3.
CONTRAST = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const luminance = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = (element) => { for (let e = element; e; e = e.parentElement) {
    const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255, 255]; };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let count = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("script")) continue;
    const style = getComputedStyle(element);
    const svg = element.namespaceURI.endsWith("svg");
    const size = parseFloat(style.fontSize), large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const [a, b] = [luminance(rgba(svg ? style.fill : style.color)), luminance(behind(element))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    count += 1;
    if (ratio < (large ? 3 : 4.5)) poor.push([walker.currentNode.textContent.trim(), ratio]);
  }
  return { count, poor };
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(browser: Browser, pages: Path, theme: str) -> None:
    seen = visit(browser, pages / "good.html", color_scheme=theme)
    seen.page.evaluate("document.querySelectorAll('details').forEach(details => details.open = true)")
    found = seen.page.evaluate(CONTRAST)
    assert found["count"] > 300
    assert found["poor"] == []
    seen.page.context.close()


@pytest.mark.parametrize("width", [320, 390, 768])
def test_narrow_screens_do_not_scroll_sideways(browser: Browser, pages: Path, width: int) -> None:
    for name in ("good.html", "hostile.html"):
        seen = visit(browser, pages / name, viewport={"width": width, "height": 800})
        assert seen.page.evaluate("document.documentElement.scrollWidth") == width
        for chart in seen.page.locator("figure.chart:visible").all():
            (drawing,) = [each for each in chart.locator(".drawing svg").all() if each.is_visible()]
            box = drawing.bounding_box()
            assert box
            assert 0 < box["width"] < width
        seen.page.context.close()


def test_print(browser: Browser, pages: Path) -> None:
    a4 = {"width": 718, "height": 1000}  # 210 mm less margins of a centimetre, at 96 pixels per inch
    seen = visit(browser, pages / "good.html", color_scheme="dark", viewport=a4)
    seen.page.emulate_media(media="print", color_scheme="dark")
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 718
    assert seen.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not seen.page.locator("nav").is_visible()
    assert not seen.page.locator("#filter").is_visible()
    assert seen.page.pdf().startswith(b"%PDF")
    seen.page.context.close()


def test_hostile_run_cannot_act(browser: Browser, pages: Path) -> None:
    seen = visit(browser, pages / "hostile.html")
    seen.page.locator(".slider").first.focus()
    seen.page.keyboard.press("ArrowRight")
    assert seen.page.evaluate("typeof window.pwned") == "undefined"
    assert seen.complaints == []
    assert [url for url in seen.requests if not url.startswith("data:")] == [(pages / "hostile.html").as_uri()]
    seen.page.context.close()
