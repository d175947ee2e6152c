"""docs/configuration.md has every option, key and variable."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from segcore.core.configuration import KEYS
from tools.option_tables import BLOCK, PAGE, with_tables

TEXT = PAGE.read_text(encoding="utf-8")
PACKAGE = Path(__file__).parents[1] / "segcore"


def test_the_tables_are_those_of_the_declarations() -> None:
    """If not: ``python -m tools.option_tables``."""
    assert [kind for _, kind, _ in BLOCK.findall(TEXT)] == ["options", "commands"]
    assert with_tables(TEXT) == TEXT


def test_every_key_and_option_of_pytest_is_there(pytestconfig: pytest.Config) -> None:
    declared = {flag for flag in _flags(pytestconfig) if flag.startswith("--segcore-")}
    listed = set(re.findall(r"^\| `(--segcore-[a-z0-9-]+)", TEXT, re.MULTILINE))
    assert declared
    assert listed == declared
    assert set(re.findall(r"^\| `--segcore-[^|]*\| `([^`]+)`", TEXT, re.MULTILINE)) == KEYS


def _flags(config: pytest.Config) -> set[str]:
    return {flag for option in config._parser.getgroup("segcore").options for flag in option.names()}


def test_every_variable_is_there() -> None:
    named = set()
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        named |= set(re.findall(r"\bSEGCORE_[A-Z_]+\b", text))
        named |= set(re.findall(r"environ(?:\.get\(|\[)\"([A-Z_]+)\"", text))
    assert len(named) > 5
    assert {name for name in named if f"`{name}`" not in TEXT} == {"PYTHONPATH"}  # handed on to processes


def test_the_example_is_accepted() -> None:
    example = tomllib.loads(re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)[0])["tool"]["segcore"]
    assert {key for key, value in example.items() if not isinstance(value, dict)} <= KEYS
