from __future__ import annotations

from pathlib import Path

import pytest

from segcore.plugin.options import name_saves


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["bench/", "--benchmark-save"], ["bench/", "--benchmark-save=box-1a2b3c4"]),
        (["--benchmark-save", "bench/"], ["--benchmark-save=box-1a2b3c4", "bench/"]),
        (["--benchmark-save", "here"], ["--benchmark-save=box-1a2b3c4", "here"]),
        (["--benchmark-save", "b.py::test_x"], ["--benchmark-save=box-1a2b3c4", "b.py::test_x"]),
        (["--benchmark-save", "-v", "b"], ["--benchmark-save=box-1a2b3c4", "-v", "b"]),
        (["--benchmark-save", "nightly", "bench/"], ["--benchmark-save", "nightly", "bench/"]),
        (["--benchmark-save=here", "bench/"], ["--benchmark-save=here", "bench/"]),
        (["--benchmark-save-data", "bench/"], ["--benchmark-save-data", "bench/"]),
        (["bench/"], ["bench/"]),
        ([], []),
    ],
)
def test_a_save_without_a_name_gets_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: list[str], meant: list[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path)
    assert name_saves(typed, "box-1a2b3c4") == meant
