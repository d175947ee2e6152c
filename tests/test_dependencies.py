"""Everything that segcore imports is declared in pyproject.toml."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOT_INSTALLED = {"pynvml": "nvidia-ml-py", "tensorrt": "tensorrt"}
"""Distribution by import name of what runs on NVIDIA's machines alone."""


def imported() -> set[str]:
    """Return the top-level names that segcore imports, here or there, by statement or through importlib."""
    found = set()
    for file in (ROOT / "segcore").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module or "")
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                found |= {str(arg.value) for arg in node.args if isinstance(arg, ast.Constant)}
    return (
        {name.partition(".")[0] for name in found} - sys.stdlib_module_names - {"segcore", "_typeshed"}
    )  # for type checkers only


@pytest.mark.slow
def test_every_import_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {name: needs for name, needs in project["optional-dependencies"].items() if name != "test"}
    declared = {
        _normal(re.split(r"[^\w.-]", need)[0])
        for needs in (project["dependencies"], *extras.values())
        for need in needs
    }
    homes = importlib.metadata.packages_distributions()
    undeclared = {
        name
        for name in imported()
        if not set(map(_normal, homes.get(name, [NOT_INSTALLED.get(name, name)]))) & declared
    }
    assert undeclared == set()


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_readme_has_a_line_for_each_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    rows = re.findall(r"^\| `([a-z]+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    for_work_on_segcore_itself = {"docs", "test", "train"}
    assert set(rows) >= project["optional-dependencies"].keys() - for_work_on_segcore_itself
