"""Commands take their defaults from ``pyproject.toml``, and the command line wins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.core import ParameterSource
from click.testing import CliRunner

from segcore.cli import COMMANDS, cli
from segcore.cli.configured import LIMITS, settable
from segcore.core.configuration import KEYS

FILE = """
[tool.segcore]
model = ["embedded", "other"]
size = 96
models = "nets"
cases = "quality"
calibration = ["a.png", "b.png"]
scenario = "server"

[tool.segcore.evaluate]
size = 520
workers = 3

[tool.segcore.gate]
budget = 300
"""


def seen(monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, Any]:
    """Return the parameters that a command gets, and where each is from."""
    found: dict[str, Any] = {}

    def invoke(self: click.Command, context: click.Context) -> None:
        for name, value in context.params.items():
            found[name] = (value, context.get_parameter_source(name) == ParameterSource.DEFAULT_MAP)

    monkeypatch.setattr(click.Command, "invoke", invoke)
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text(FILE)
    return tmp_path


def test_the_file_sets_defaults_and_the_command_line_wins(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch, "segment", "x.jpg", "--model", "mine")
    assert found["model"] == ("mine", False)
    assert found["size"] == (96, True)
    assert found["models"] == (Path("nets"), True)
    assert found["calibration"] == (("a.png", "b.png"), True)
    assert found["device"] == ("auto", False)


def test_a_command_has_a_table_of_its_own(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = seen(monkeypatch, "evaluate", "--dataset", "voc", "--root", ".")
    assert (found["size"], found["workers"], found["model"]) == ((520, True), (3, True), ("embedded", True))
    assert seen(monkeypatch, "gate", "a", "b")["budget"] == (300.0, True)


def test_where_cases_and_models_are(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seen(monkeypatch, "cases")["cases"] == (Path("quality"), True)
    assert seen(monkeypatch, "cases", "mine")["cases"] == (Path("mine"), False)
    assert seen(monkeypatch, "models")["models"] == (Path("nets"), True)
    assert seen(monkeypatch, "fetch")["case_path"] == (Path("quality"), True)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("size = 'big'", "pyproject.toml:2: size: 'big' is not a valid integer"),
        ("size = 0", "pyproject.toml:2: size: 0 is not in the range"),
        ("modle = 'x'", "pyproject.toml:2: unknown key 'modle' (did you mean 'model'?)"),
        ("[tool.segcore.gate]\nbudget = [1, 2]", "pyproject.toml:3: budget: wanted one value, found 2"),
        ("[tool.segcore.gate]\nbudget = nan", "nan"),
        ("[tool.segcore.gate]\nmax-slowdown = 9", "pyproject.toml:3: unknown key 'max-slowdown'"),
        ("[tool.segcore.gate]\naccept-changed-limits = 'x'", "unknown key 'accept-changed-limits'"),
        ("[tool.segcore.segmant]\nout = 'x'", "(did you mean 'segment'?)"),
    ],
)
def test_a_bad_file_is_one_line_and_exit_code_2(line: str, words: str, project: Path) -> None:
    (project / "pyproject.toml").write_text(f"[tool.segcore]\n{line}\n")
    result = CliRunner().invoke(cli, ["segment", "x.jpg"])
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert CliRunner().invoke(cli, ["segment", "--help"]).exit_code == 0


def test_what_the_file_sets_can_be_replaced_on_the_command_line() -> None:
    """So a flag cannot be set, which could not be taken back."""
    context, limits = click.Context(cli), set[str]()
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command
        parameters = settable(command)
        limits |= LIMITS & {str(parameter.name) for parameter in command.params}
        assert not LIMITS & {parameter.name for parameter in parameters.values()}
        assert not any(getattr(parameter, "is_flag", False) for parameter in parameters.values())
        arguments = {key for key, parameter in parameters.items() if isinstance(parameter, click.Argument)}
        assert arguments <= KEYS
    assert limits == LIMITS
