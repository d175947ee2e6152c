"""``segcore report``: runs by path or name, four kinds of output, exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from segcore.cli import cli
from segcore.core.records import Run
from tests.support.factories import make_run


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    directory = tmp_path_factory.mktemp("runs")
    base = make_run(directory, "base", models=("embedded",))
    return base, make_run(directory, "head", models=("embedded",), slower=1.5, shift=9, seed=1)


def report(pair: tuple[Run, Run], *words: str) -> Result:
    return CliRunner().invoke(cli, ["report", "--storage", str(pair[0].path.parent), *words])


def test_names_and_files(pair: tuple[Run, Run], tmp_path: Path) -> None:
    page, comment = tmp_path / "deep" / "index.html", tmp_path / "comment.md"
    result = report(pair, "head", "--baseline", "base", "--html", str(page), "--markdown", str(comment))
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Failed: ")
    assert f"report: {page}" in result.stdout.replace("\n", "")
    assert page.read_text().startswith("<!doctype html>")
    assert comment.read_text().startswith("### ❌")


def test_quiet(pair: tuple[Run, Run]) -> None:
    assert report(pair, "-q", "base").stdout == "Passed: all 9 items\n"


def test_json(pair: tuple[Run, Run]) -> None:
    told = json.loads(report(pair, "head", "--baseline", str(pair[0].path), "--json").stdout)
    assert told["verdict"] == "failed"
    assert told["gate"]["exit_code"] == 1
    assert [case["item"] for case in told["cases"]] == [
        "accuracy[chelsea-embedded-torch-cpu-320]",
        "accuracy[astronaut-embedded-torch-cpu-320]",
    ]
    assert len(told["items"]) == 18
    assert told["items"][0]["median, ms"] > 0
    assert told["items"][-1]["median, ms"] is None


def test_open_shows_the_page(pair: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("click.launch", opened.append)
    assert report(pair, "-q", "base", "--open").exit_code == 0
    page = tmp_path / "reports/latest/index.html"
    assert opened == [page.as_uri()]
    assert page.is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "no such file or saved run"),
        (["base", "--baseline", "bse"], "did you mean 'base'?"),
        (["base", "-q", "--html", "/proc/nowhere/x.html"], "cannot be written"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(pair: tuple[Run, Run], words: list[str], said: str) -> None:
    result = report(pair, *words)
    assert result.exit_code == 2
    assert said in result.stderr
