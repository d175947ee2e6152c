"""The commands in README.md and docs/ are real: each is parsed, and what is quick and needs no network is run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from segcore.cli import COMMANDS, cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    """Every fenced block of a language, with its page."""
    for page in PAGES:
        for found, body in FENCE.findall(page.read_text(encoding="utf-8")):
            if found == language:
                yield page, body


def commands(program: str) -> list[tuple[Path, list[str]]]:
    """Every command line of a program in the shell blocks: continued lines joined, comments and pipes cut off."""
    found = []
    for language in ("bash", "console", "sh"):
        for page, body in blocks(language):
            for line in body.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                end = next((i for i, word in enumerate(words) if word in {"|", ">", "&&", ";", "||"}), len(words))
                if words[:1] == [program]:
                    found.append((page, words[1:end]))
    return found


def ids(items: list[tuple[Path, list[str]]]) -> list[str]:
    return [f"{page.name}: {' '.join(words)}" for page, words in items]


SEGCORE = commands("segcore")


@pytest.mark.parametrize(("page", "words"), SEGCORE, ids=ids(SEGCORE))
def test_every_segcore_command_exists_with_its_options(
    page: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parsed as click parses it; files that an argument wants to exist are made first."""
    monkeypatch.chdir(tmp_path)
    for word in words:
        if "/" in word or "." in word:
            path = tmp_path / word
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch() if path.suffix else path.mkdir(exist_ok=True)
    if words[0].startswith("-"):
        assert words in (["--help"], ["--version"])
        return
    command = cli.get_command(click.Context(cli), words[0])
    assert command is not None, f"{page.name}: there is no command {words[0]}; there are {list(COMMANDS)}"
    command.make_context(words[0], words[1:], resilient_parsing=False)


@pytest.fixture(scope="module")
def pytest_help() -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout


PYTEST = commands("pytest")


@pytest.mark.slow
@pytest.mark.parametrize(("page", "words"), PYTEST, ids=ids(PYTEST))
def test_every_pytest_option_exists(page: Path, words: list[str], pytest_help: str) -> None:
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--"):
            assert re.search(rf"{re.escape(option)}\b", pytest_help), f"{page.name}: pytest knows no {option}"
        elif option.endswith(("/", ".py")):
            assert (ROOT / option).exists(), f"{page.name}: there is no {option}"


MAKE = commands("make")


@pytest.mark.parametrize(("page", "words"), MAKE, ids=ids(MAKE))
def test_every_make_target_exists(page: Path, words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for word in words:
        assert "=" in word or word in targets, f"{page.name}: Makefile has no {word}"


PYTHON = [item for item in commands("python") if item[1][:1] == ["-m"]]


@pytest.mark.parametrize(("page", "words"), PYTHON, ids=ids(PYTHON))
def test_every_module_that_is_run_exists(page: Path, words: list[str]) -> None:
    assert find_spec(words[1]), f"{page.name}: there is no module {words[1]}"


PYTHON_BLOCKS = list(blocks("python"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "body"), PYTHON_BLOCKS, ids=[f"{page.name}-{i}" for i, (page, _) in enumerate(PYTHON_BLOCKS)]
)
def test_python_examples_run(page: Path, body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each runs where a ``photo.jpg``, cases and a dataset lie, as its reader would have them."""
    from PIL import Image

    from segcore.inputs.images import resource_path
    from tests.support.pairs import make_voc

    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "cases", tmp_path / "cases")
    make_voc(tmp_path / "VOCdevkit" / "VOC2012", 2)
    with Image.open(resource_path("skimage:chelsea.png")) as photo:
        photo.save(tmp_path / "photo.jpg")
    exec(compile(body, page.name, "exec"), {"__name__": "example"})


LINK = re.compile(r"\]\((?!https?:|#|mailto:)([^)#\s]+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


def test_there_is_something_to_check() -> None:
    """The collectors above find what a reader sees: an empty parametrisation would pass in silence."""
    assert len(SEGCORE) >= 8
    assert len(PYTEST) >= 3
    assert len(MAKE) >= 2
    assert PYTHON_BLOCKS
