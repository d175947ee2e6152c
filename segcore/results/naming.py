"""Where runs are stored and what their files are called; imports the standard library alone.

Saved runs are numbered as pytest-benchmark does it: ``reports/runs/SYSTEM/0007_NAME.json``. Those of other machines are
in ``reports/runs/machines/MACHINE/``, where `segcore.results.sync` puts them.
"""

from __future__ import annotations

import re
from pathlib import Path

DEFAULT_DIRECTORY = Path("reports/runs")
LATEST_PAGE = Path("reports/latest/index.html")
"""The page about the last bench run."""
MACHINES = "machines"
"""Directory in a store for the runs of other machines, a directory for each."""
UNSAVED = "unsaved"
"""Stem of the file that holds the last run without ``--benchmark-save``; it has no number and is never looked up."""
_NUMBERED = re.compile(r"(\d{4,})_(.*)")


def pulled_from(path: Path) -> str | None:
    """Return the machine whose run this is a copy of, None for a run that was recorded here."""
    return path.parent.name if path.parent.parent.name == MACHINES else None


def run_number(path: Path) -> int | None:
    """Return the number of a run file or of its picture directory, None if it has none."""
    match = _NUMBERED.fullmatch(path.stem)
    return int(match[1]) if match else None


def saved_name(path: Path) -> str:
    """Return the name a run was saved under: the file's stem without its number."""
    match = _NUMBERED.fullmatch(path.stem)
    return match[2] if match else path.stem


def name_pattern(name: str) -> str:
    """Return a name without what differs from run to run: numbers, and commits such as in ``laptop-1a2b3c4``."""
    return re.sub(r"\b[0-9a-f]{7,40}\b|\d+", "#", name)


def next_run_path(directory: Path, name: str) -> Path:
    """Return the path of a new run, numbered one above the files and directories that are there."""
    taken = (run_number(path) for path in directory.iterdir()) if directory.is_dir() else ()
    return directory / f"{max((number for number in taken if number is not None), default=0) + 1:04}_{name}.json"
