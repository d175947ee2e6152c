"""Where a run is written, and how saving is taken over from pytest-benchmark: numbered like its files, but atomic."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.session import BenchmarkSession
from pytest_benchmark.storage.file import FileStorage

from segcore.core.errors import RecordError
from segcore.plugin.options import DEFAULT_STORAGE
from segcore.results.naming import DEFAULT_DIRECTORY, UNSAVED, next_run_path

COLUMNS = ("min", "median", "iqr", "rounds")
"""Of pytest-benchmark's table, where the user has not chosen any."""


@dataclass(frozen=True)
class RunFile:
    """The files of one run."""

    name: str
    paths: tuple[Path, ...]
    """The run file, and the copy that ``--benchmark-json`` asks for."""
    directory: Path
    """Where runs are stored."""

    @property
    def pictures(self) -> Path:
        """Directory of class maps and overlays: named like the run file, beside it."""
        return self.paths[0].with_suffix("")


def benchmark_session(config: pytest.Config) -> BenchmarkSession:
    """Return pytest-benchmark's session.

    Raises:
        pytest.UsageError: its plugin is switched off.
    """
    session: BenchmarkSession | None = getattr(config, "_benchmarksession", None)
    if session is None:
        raise pytest.UsageError("segcore measures with pytest-benchmark, which is switched off: drop `-p no:benchmark`")
    return session


def postpone_compare(config: pytest.Config) -> None:
    """Keep pytest-benchmark from looking for a run to compare with before it is known where runs are."""
    if _default_storage(config) and config.option.benchmark_compare:
        config.stash[_COMPARE] = config.option.benchmark_compare
        config.option.benchmark_compare = []


def settle_storage(config: pytest.Config, ours: bool) -> None:
    """Move pytest-benchmark's storage to ours if there are items of ours, and make up for a postponed comparison."""
    if ours and _default_storage(config):
        session = benchmark_session(config)
        with contextlib.suppress(OSError):  # made by pytest-benchmark a moment ago; it stays if anything is in it
            session.storage.path.rmdir()
        session.storage = FileStorage(DEFAULT_DIRECTORY, session.logger, default_machine_id=session.machine_id)
    if _COMPARE in config.stash:
        session = benchmark_session(config)
        session.compare = config.stash[_COMPARE]
        session.handle_loading()


def _default_storage(config: pytest.Config) -> bool:
    """Whether the user left pytest-benchmark's storage option alone."""
    return getattr(config.option, "benchmark_storage", None) == DEFAULT_STORAGE


def save_nothing(config: pytest.Config) -> None:
    """Keep pytest-benchmark from warning, where items are only listed, that there is nothing to save."""
    session = benchmark_session(config)
    session.save = session.autosave = session.json = None


def take_over_saving(config: pytest.Config) -> RunFile:
    """Decide where this run goes, and keep pytest-benchmark from writing it as well.

    A run that nobody asked to save goes to ``unsaved.json``, in place of the one before. A storage that is no
    directory (Elasticsearch) is served by pytest-benchmark as ever, with our records in what it gets.
    """
    session = benchmark_session(config)
    session.save_data = True
    if config.option.benchmark_columns is None:  # ten columns are 200 characters
        session.columns = list(COLUMNS)
    in_files = isinstance(session.storage, FileStorage)
    directory = session.storage.path if in_files else DEFAULT_DIRECTORY
    name = session.save or session.autosave
    paths: list[Path] = []
    if name and in_files:
        session.save = session.autosave = None
        paths.append(_claim(session.storage.get("x").parent, name))
    if session.json:
        paths.append(Path(session.json).absolute())
        session.json = None
    if not paths:
        paths.append(directory / f"{UNSAVED}.json")
    if len(paths) == 1 and paths[0].stem == UNSAVED:
        shutil.rmtree(paths[0].with_suffix(""), ignore_errors=True)
    return RunFile(name or paths[0].stem, tuple(paths), directory)


def _claim(directory: Path, name: str) -> Path:
    """The next number that no other run has; making the directory of its pictures settles who was first."""
    while True:
        path = next_run_path(directory, name)
        try:
            path.with_suffix("").mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RecordError(
                f"{directory}: no run can be written there: {error.strerror}; see --benchmark-storage"
            ) from None
        return path


_COMPARE = pytest.StashKey[Any]()
