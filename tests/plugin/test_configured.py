"""`pytest bench/` takes defaults from ``[tool.segcore]``; the command line wins."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from segcore.plugin.options import read_choices
from segcore.plugin.selection import command_line
from segcore.results.store import load_run
from tests.support.bench_project import QUICK

pytest_plugins = ["pytester"]


def configure(directory: Path, text: str) -> None:
    (directory / "pyproject.toml").write_text(f"[tool.segcore]\n{text}\n")


def collected(pytester: pytest.Pytester, *words: str) -> list[str]:
    """Return the ids of the items that a run would have."""
    result = pytester.runpytest_inprocess("bench/test_latency.py", "--collect-only", "-q", *QUICK, *words)
    assert result.ret == 0, result.stdout.str()
    return [line.partition("[")[2] for line in result.outlines if "[" in line]


def test_the_file_selects_and_the_command_line_wins(where: Path, pytester: pytest.Pytester) -> None:
    configure(where, "size = [64, 96]\ncase = 'red'\ndevice = 'cpu'\nweights = 'pretrained'")
    assert collected(pytester) == ["red-embedded-torch-cpu-64]", "red-embedded-torch-cpu-96]"]
    assert collected(pytester, "--segcore-size=32") == ["red-embedded-torch-cpu-32]"]
    assert len(collected(pytester, "--segcore-case=blue", "--segcore-case=red")) == 4


def test_an_alias_wins_too(where: Path, pytester: pytest.Pytester) -> None:
    (where / "cases").rename(where / "quality")
    configure(where, "cases = 'quality'\nsize = 32")
    shutil.copytree(where / "quality", where / "two")
    (where / "two" / "all.yaml").write_text("name: other\nimage: {path: red.png}\nmodels: [embedded]")
    assert collected(pytester) == ["red-embedded-torch-cpu-32]", "blue-embedded-torch-cpu-32]"]
    assert collected(pytester, "--cases", "two") == ["other-embedded-torch-cpu-32]"]


def test_what_the_file_selects_is_no_choice_of_the_command_line(where: Path, pytester: pytest.Pytester) -> None:
    """So the gate calls items missing that a change of the file leaves out."""
    configure(where, "case = 'red'")
    config = pytester.parseconfig("bench")
    assert config.option.segcore_cases == ["red"]
    assert command_line(config).segcore_cases == []


@pytest.mark.parametrize(("typed", "wait"), [([], 7.0), (["--segcore-wait=0"], 0.0), (["--segcore-wait=3"], 3.0)])
def test_zero_is_a_value(typed: list[str], wait: float, where: Path, pytester: pytest.Pytester) -> None:
    configure(where, "wait = 7")
    choices = read_choices(pytester.parseconfig("bench", *typed))
    assert (choices.wait, choices.processes, choices.offline) == (wait, 1, False)
    configure(where, "wait = 0")
    assert read_choices(pytester.parseconfig("bench")).wait == 0.0


def test_a_baseline_in_the_file(where: Path, pytester: pytest.Pytester) -> None:
    """It judges bench runs, and leaves other tests alone."""
    configure(where, "baseline = 'main?'\nsize = 32\ncase = 'red'")
    arguments = ("bench/test_accuracy.py", *QUICK)
    first = pytester.runpytest_inprocess(*arguments)
    assert first.ret == 0
    first.stdout.fnmatch_lines(["*no baseline 'main' yet: recorded this run as it*"])
    second = pytester.runpytest_inprocess(*arguments, "--benchmark-save=next")
    assert second.ret == 0
    second.stdout.fnmatch_lines(["*segcore gate*"])
    assert load_run(next(where.glob("reports/runs/*/*_next.json")))
    pytester.makepyfile(test_other="def test_it(): pass")
    pytester.runpytest_inprocess("test_other.py", "-p", "no:cacheprovider").assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle = 'x'", "pyproject.toml:2: unknown key 'modle' (did you mean 'model'?)"),
        ("size = 'big'", "pyproject.toml:2: size: 'big': wanted a whole number, at least 1"),
        ("device = ''", "pyproject.toml:2: device: wanted a value, found an empty one"),
        ("\nprocesses = [1, 2]", "pyproject.toml:3: processes: wanted one value, found 2"),
        ("settle = true", "pyproject.toml:2: unknown key 'settle'"),
        ("accept-changed-limits = true", "unknown key 'accept-changed-limits'"),
    ],
)
def test_a_bad_file_is_a_usage_error(text: str, words: str, where: Path, pytester: pytest.Pytester) -> None:
    configure(where, text)
    result = pytester.runpytest_inprocess("bench", *QUICK)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert words in result.stderr.str()


def test_the_rootdir_counts(where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(where, "size = 32\ncases = 'cases'")
    (where / "sub").mkdir()
    monkeypatch.chdir(where / "sub")
    result = pytester.runpytest_inprocess("../bench/test_latency.py", "--collect-only", "-q", *QUICK)
    assert "red-embedded-torch-cpu-32]" in result.stdout.str()
