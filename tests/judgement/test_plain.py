"""Runs that pytest-benchmark wrote without segcore."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from segcore.cli import cli
from tests.support.judged_runs import steady

A, B = "tests/test_speed.py::test_a", "tests/test_speed.py::test_b[x]"


def document(factor: float = 1.0, seed: int = 0) -> dict[str, Any]:
    cpu = {"brand_raw": "Imaginary CPU", "count": 2}
    return {
        "machine_info": {"machine": "x86_64", "system": "Linux", "python_version": "3.12.1", "cpu": cpu},
        "commit_info": {"id": "ab" * 20, "dirty": False},
        "benchmarks": [
            {"name": name, "fullname": name, "extra_info": {}, "stats": {"data": list(steady(factor, seed=seed + n))}}
            for n, name in enumerate((A, B))
        ],
    }


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)

    def judge(new: dict[str, Any], *options: str) -> Result:
        (tmp_path / "0001_old.json").write_text(json.dumps(document()))
        (tmp_path / "0002_new.json").write_text(json.dumps(new))
        return CliRunner().invoke(cli, ["gate", "old", "new", "--storage", ".", *options])

    return judge


@pytest.mark.parametrize(
    ("factor", "options", "code"),
    [
        (1.0, ("--process-noise", "0.003"), 0),
        (1.2, ("--process-noise", "0.003"), 1),
        (1.2, ("--process-noise", "0.003", "--max-slowdown", "0.5"), 0),
        (1.08, (), 3),
    ],
)
def test_their_samples_are_judged(
    gate: Callable[..., Result], factor: float, options: tuple[str, ...], code: int
) -> None:
    result = gate(document(factor, seed=5), *options, "--json")
    assert result.exit_code == code, result.output
    found = json.loads(result.stdout)
    assert [row["item"] for row in found["rows"]] == [A, B]
    assert found["commands"] == (
        [] if code < 3 else ["segcore gate --against abababababab --args tests/test_speed.py --max-slowdown=0.1"]
    )


def test_another_machine_and_missing_tests_are_no_pass(gate: Callable[..., Result]) -> None:
    other = document(seed=5)
    other["machine_info"]["cpu"]["brand_raw"] = "Other"
    result = gate(other, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["rows"][0]["reason"] == "cpu brand was Imaginary CPU, is Other"
    fewer = document(seed=5)
    del fewer["benchmarks"][0]
    assert gate(fewer, "--process-noise", "0.003").exit_code == 1


def without_samples(found: dict[str, Any]) -> None:
    del found["benchmarks"][0]["stats"]["data"]


def impossible(value: object) -> Callable[[dict[str, Any]], None]:
    return lambda found: found["benchmarks"][0]["stats"]["data"].append(value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_samples, "--benchmark-save-data"),
        (impossible(float("nan")), "wanted positive numbers of seconds, found 'nan'"),
        (impossible(0), "found '0'"),
        (impossible("x"), "found 'x'"),
        (lambda found: found["benchmarks"].clear(), "measured nothing"),
        (lambda found: found["benchmarks"].append(found["benchmarks"][0]), "more than once"),
        (lambda found: found.update(document()), "are the same run"),
    ],
)
def test_bad_files_are_one_line(
    gate: Callable[..., Result], change: Callable[[dict[str, Any]], Any], words: str
) -> None:
    new = document(seed=5)
    change(new)
    result = gate(new)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert words in result.stderr


def test_they_cannot_be_settled(gate: Callable[..., Result]) -> None:
    result = gate(document(seed=5), "--settle")
    assert result.exit_code == 2
    assert "use --against REV" in result.stderr
