"""``[tool.segcore]``: where it is found, and what is wrong with it, with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcore.core.configuration import find_configuration
from segcore.core.errors import UsageError

GATE = ("max-slowdown", "storage")

BAD = {
    "unknown key": ("[tool.segcore]\nsize = 3\nmodle = 'x'", ":3: unknown key 'modle' (did you mean 'model'?)"),
    "flag": ("[tool.segcore]\noffline = true", ":2: unknown key 'offline'"),
    "truth value": ("[tool.segcore]\n\nmodel = true", ":3: model: wanted a text, a number or a list"),
    "table for a value": ("[tool.segcore]\nmodel = {a = 1}", ":2: model: wanted"),
    "header for a value": ("[tool.segcore.cases]\nx = 1", "cases: wanted"),
    "list of lists": ("[tool.segcore]\nsize = [[1]]", ":2: size: wanted"),
    "empty list": ("[tool.segcore]\nsize = []", ":2: size: wanted"),
    "quoted key": ("[tool.segcore]\n'modle' = 1", ":2: unknown key"),
    "dotted keys": ("[tool]\nsegcore.modle = 1", "pyproject.toml: unknown key"),
    "unknown table": (
        "[tool.segcore]\n[tool.segcore.gaet]\n",
        ":2: [tool.segcore.gaet]: there is no such command (did",
    ),
    "unknown key of a table": (
        "[tool.segcore.gate]\nmax-slowdwon = 1",
        ":2: unknown key 'max-slowdwon' (did you mean 'm",
    ),
    "no table": ("[tool]\nsegcore = 3", "tool.segcore: wanted a table, found 3"),
    "no TOML": ("[tool.segcore", "is not TOML"),
}


def check(directory: Path) -> None:
    configuration = find_configuration(directory)
    assert configuration is not None
    configuration.check_tables(["gate", "report"])
    configuration.shared()
    configuration.of_command("gate", GATE)


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_with_its_line(name: str, tmp_path: Path) -> None:
    text, words = BAD[name]
    (tmp_path / "pyproject.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        check(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "pyproject.toml"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["", "[tool.ruff]\nline-length = 3", "[tool.ruff"], ids=["empty", "ruff", "no TOML"])
def test_files_without_our_table_are_passed_by(other: str, tmp_path: Path) -> None:
    """Up to the top of the repository, and no further."""
    below = tmp_path / "a" / "b"
    (below / "c").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text("[tool.segcore]\nmodel = 'outside'")
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.segcore]\nmodel = 'top'")
    (below / "pyproject.toml").write_text(other)
    assert find_configuration(below) is None  # no repository: what lies above may be another user's
    (tmp_path / "a" / ".git").mkdir()
    for directory in (below, below / "c"):
        found = find_configuration(directory)
        assert found is not None
        assert found.shared()[0].values == ("top",)
    (tmp_path / "a" / "pyproject.toml").unlink()
    assert find_configuration(below / "c") is None


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.onnx").touch()
    (tmp_path / "pyproject.toml").write_text(
        "[tool.segcore]\nmodel = ['a.onnx', 'embedded', '/x/a.onnx', '*.onnx']\ncases = 'new'"
    )
    there, above = find_configuration(tmp_path / "sub"), find_configuration(tmp_path)
    assert there is not None
    assert above is not None
    model, cases = there.shared()
    assert model.located(is_path=False) == (f"{tmp_path}/a.onnx", "embedded", "/x/a.onnx", f"{tmp_path}/*.onnx")
    assert cases.located(is_path=True) == (f"{tmp_path}/new",)
    assert [setting.located(is_path=True) for setting in above.shared()] == [model.values, cases.values]
