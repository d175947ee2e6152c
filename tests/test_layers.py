"""Imports run one way: a module may import from its own layer or a lower one (docs/architecture.md)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import segcore

ROOT = Path(segcore.__file__).parent

# Longest matching prefix wins. A new module must be given its place here.
LAYERS = {
    "errors": 0, "labels": 0, "limits": 0, "files": 0, "record": 0,
    "cases": 1, "fetch": 1, "network": 1, "reach": 1, "images": 1, "datasets": 1,
    "allocator": 2, "devices": 2, "models": 2, "runtimes": 2, "decode": 2, "pipeline": 2, "metrics": 2, "protocols": 2,
    "accuracy": 3, "measure": 3, "machine": 3, "conditions": 3, "calibrate": 3, "energy": 3, "profiling": 3,
    "load": 3, "parity": 3, "best": 3, "evaluation": 3,
    "store": 4,
    "stats": 5, "gate": 5, "drift": 5, "compare": 5, "history": 5,
    "report": 6,
    "paired": 7, "audit": 7, "cli": 7, "plugin": 7, "pytest_plugin": 7, "__init__": 7, "__main__": 7,
}  # fmt: skip
NO_TORCH = (
    "errors", "labels", "limits", "files", "cases", "fetch", "images", "record", "store",
    "stats", "gate", "drift", "compare", "history", "load",
)  # fmt: skip


def modules() -> dict[str, Path]:
    """Dotted name below ``segcore`` -> file."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = list(path.relative_to(ROOT).with_suffix("").parts)
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
        found[".".join(parts)] = path
    return found


def layer(module: str) -> int:
    """The layer of a module, by its own name or that of its package."""
    matches = [name for name in LAYERS if module == name or module.startswith((f"{name}.", f"{name}_"))]
    assert matches, f"segcore.{module} has no layer: give it one in {Path(__file__).name} and in docs/architecture.md"
    return LAYERS[max(matches, key=len)]


def imports(path: Path) -> set[str]:
    """Every module imported anywhere in a file, but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in hidden:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path.name} uses a relative import: the layers are read off absolute ones"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("module", modules())
def test_no_import_runs_upward(module: str) -> None:
    known = modules()
    here = layer(module)
    for target in imports(modules()[module]):
        if not target.startswith("segcore."):
            continue
        inner = target.removeprefix("segcore.")
        while inner not in known and "." in inner:
            inner = inner.rpartition(".")[0]
        if inner in known:
            assert layer(inner) <= here, (
                f"segcore.{module} (layer {here}) imports segcore.{inner} (layer {layer(inner)})"
            )


@pytest.mark.parametrize("module", [name for name in modules() if name.split(".")[0] in NO_TORCH])
def test_what_judges_never_needs_torch(module: str) -> None:
    assert not {name.split(".")[0] for name in imports(modules()[module])} & {"torch", "torchvision"}
