"""The documentation as a site: it builds without a warning, no link is dead, and nothing of the code is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest

import segcore
from segcore.cli import COMMANDS, cli

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@dataclass
class Page(HTMLParser):
    """Anchors, links and what is loaded by a page."""

    anchors: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value is not None}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if "src" in given or (tag == "link" and "href" in given):
            loaded = given.get("src") or given["href"]
            self.loaded += [loaded] if loaded != "#" else []


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Page]:
    """The pages of the site by their path."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(out.parent / "doctrees")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(ROOT / "docs"), str(out)], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    pages = {}
    for path in out.rglob("*.html"):
        pages[path] = Page()
        pages[path].feed(path.read_text(encoding="utf-8"))
    return pages


def test_every_link_within_the_site_leads_to_a_page_and_an_anchor(site: dict[Path, Page]) -> None:
    dead = []
    for path, page in site.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme in ("https", "http", "mailto"):
                continue
            assert not parts.scheme, f"{path.name}: {link}"
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = site[target].anchors if target in site else set()
            if not target.is_file() or (parts.fragment and unquote(parts.fragment) not in anchors):
                dead.append(f"{path.name}: {link}")
    assert dead == []


def test_pages_load_nothing_from_elsewhere(site: dict[Path, Page]) -> None:
    for path, page in site.items():
        for loaded in page.loaded:
            parts = urlsplit(loaded)
            assert not parts.scheme, f"{path.name} loads {loaded}"
            assert not parts.netloc, f"{path.name} loads {loaded}"
            assert (path.parent / unquote(parts.path)).is_file(), f"{path.name} loads {loaded}"


def test_every_page_of_the_documentation_is_reached_from_the_first(site: dict[Path, Page]) -> None:
    (index,) = (path for path in site if path.name == "index.html" and (path.parent / "objects.inv").exists())
    reached = {(index.parent / unquote(urlsplit(link).path)).resolve() for link in site[index].links} | {index}
    sources = [path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")]
    assert {index.parent / source.with_suffix(".html") for source in sources} <= reached


def test_every_command_option_and_public_name_is_in_the_reference(site: dict[Path, Page]) -> None:
    by_name = {path.stem: page for path, page in site.items()}
    api, commands = by_name["api"].anchors, by_name["commands"].anchors
    assert {f"segcore.{name}" for name in segcore.__all__ if name != "__version__"} <= api
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        options = [parameter.opts[0] for parameter in command.params if isinstance(parameter, click.Option)]
        assert {f"cmdoption-segcore-{name}-{option.lstrip('-')}" for option in options} <= commands
