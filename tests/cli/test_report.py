"""``segcore report``: runs by path or name, four kinds of output, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
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


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_what_cannot_be_written_does_not_stop_the_rest(pair: tuple[Run, Run], tmp_path: Path, option: str) -> None:
    other = "--markdown" if option == "--html" else "--html"
    result = report(pair, "head", "--baseline", "base", option, "/dev/full", other, str(tmp_path / "other"))
    assert result.exit_code == 2
    assert result.stderr.count("/dev/full: cannot be written") == 1
    assert result.stdout.startswith("Failed: ")
    assert (tmp_path / "other").stat().st_size > 100


@pytest.mark.parametrize("option", ["--html", "--markdown"])
def test_the_null_device_stays_a_device(pair: tuple[Run, Run], option: str) -> None:
    assert report(pair, "head", option, os.devnull).exit_code == 0
    assert Path(os.devnull).is_char_device()


def test_quiet(pair: tuple[Run, Run]) -> None:
    assert report(pair, "-q", "base").stdout == "Passed: all 9 items\n"


def test_json(pair: tuple[Run, Run]) -> None:
    found = json.loads(report(pair, "head", "--baseline", str(pair[0].path), "--json").stdout)
    assert found["verdict"] == "failed"
    assert found["gate"]["exit_code"] == 1
    assert [case["item"] for case in found["cases"]] == [
        "accuracy[chelsea-embedded-torch-cpu-320]",
        "accuracy[astronaut-embedded-torch-cpu-320]",
    ]
    assert len(found["items"]) == 18
    assert found["items"][0]["median_ms"] > 0
    assert found["items"][-1]["median_ms"] is None


def test_open_shows_the_page(pair: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("click.launch", opened.append)
    assert report(pair, "-q", "base", "--open").exit_code == 0
    page = tmp_path / "reports/latest/index.html"
    assert opened == [page.as_uri()]
    assert page.is_file()


def test_exports_are_written_beside_the_tables_or_in_their_place(pair: tuple[Run, Run], tmp_path: Path) -> None:
    files = {"junit": tmp_path / "deep" / "junit.xml", "gitlab": tmp_path / "quality.json"}
    words = [word for name, path in files.items() for word in ("--export", f"{name}={path}")]
    result = report(pair, "head", "--baseline", "base", *words)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Failed: ")
    for name, path in files.items():
        alone = report(pair, "head", "--baseline", "base", "--export", name)
        assert alone.stdout == path.read_text()
        assert f"report: {path}" in result.stdout.replace("\n", "")
    assert set(json.loads(report(pair, "head", "--export", "bencher").stdout)) == {
        b.info.key for b in pair[1].benchmarks
    }


def test_an_export_that_cannot_be_written_does_not_stop_the_others(pair: tuple[Run, Run], tmp_path: Path) -> None:
    words = ("--export", "junit=/dev/full", "--export", f"bencher={tmp_path / 'b.json'}")
    result = report(pair, "head", *words)
    assert result.exit_code == 2
    assert result.stderr.count("/dev/full: cannot be written") == 1
    assert json.loads((tmp_path / "b.json").read_bytes())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["base", "--export", "jnit"], "did you mean 'junit'?"),
        (["base", "--export", "junit="], "wanted a path"),
        (["base", "--export", "junit", "--json"], "one format at most"),
        (["base", "--export", "junit", "--export", "bencher"], "one format at most"),
        (["nothing"], "no such file or saved run"),
        (["base", "--baseline", "bse"], "did you mean 'base'?"),
        (["base", "-q", "--html", "/proc/nowhere/x.html"], "cannot be written"),
        ([], "Missing argument"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(pair: tuple[Run, Run], words: list[str], message: str) -> None:
    result = report(pair, *words)
    assert result.exit_code == 2
    assert message in result.stderr


def test_without_vl_convert_the_page_is_written_without_charts(
    pair: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    result = report(pair, "-q", "base", "--html", str(tmp_path / "page.html"))
    assert result.exit_code == 0
    assert result.stderr.count("\n") == 1
    assert "pip install 'segcore[report]'" in result.stderr
    page = (tmp_path / "page.html").read_text()
    assert "vl-convert-python is not installed" in page
    assert "<figure" not in page
    assert 'id="all-items"' in page


def test_without_jinja2_a_page_is_an_error_in_one_line(
    pair: tuple[Run, Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    result = report(pair, "base", "--html", str(tmp_path / "page.html"))
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1
    assert "pip install 'segcore[report]'" in result.stderr
    assert report(pair, "base", "--markdown", str(tmp_path / "comment.md")).exit_code == 0


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_names_that_stdout_cannot_encode_are_replaced(pair: tuple[Run, Run], encoding: str) -> None:
    path = pair[0].path.with_name("猫.json")
    path.write_bytes(pair[0].path.read_bytes().replace(b'"name": "base"', '"name": "猫"'.encode()))
    command = [sys.executable, "-m", "segcore", "history", "--storage", str(path.parent)]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding}, check=True)
    assert "?" in done.stdout.decode(encoding)
    path.unlink()
