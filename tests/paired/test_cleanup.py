"""Systems that cannot lock directories."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

import segcore.paired.cleanup
from segcore.core.errors import UsageError

POSIX_ALONE = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios"}


def test_without_fcntl_the_module_is_imported_and_measuring_in_turns_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "fcntl", None)  # `import fcntl` raises ImportError, as on Windows
    spec = importlib.util.spec_from_file_location("cleanup", segcore.paired.cleanup.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(UsageError, match="POSIX"), module.temporary_directory():
        pass


def test_no_other_module_needs_a_posix_system_to_be_imported() -> None:
    needed = {
        (path.name, alias.name)
        for path in Path(segcore.__file__).parent.rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body  # statements that are not in `try` or a function
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
        if alias.name.partition(".")[0] in POSIX_ALONE
    }
    assert needed == set()
