"""Where runs are stored: the baseline that is read, and the run that is written, in place of pytest-benchmark."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytest_benchmark.session import BenchmarkSession
from pytest_benchmark.storage.file import FileStorage

from segcore.core.errors import EXIT_BAD_INPUT, OutputError, RecordError
from segcore.core.files import is_replaced
from segcore.core.records import Run
from segcore.core.system import machine_name
from segcore.judgement.gate import files
from segcore.measurement.machine import run_name
from segcore.plugin.arguments import NAMELESS
from segcore.report.escape import plain_text
from segcore.results.journal import fold_journals
from segcore.results.naming import DEFAULT_DIRECTORY, UNSAVED, next_run_path
from segcore.results.store import was_never_finished

FIRST_RUN = pytest.StashKey[str]()
"""Reference of the baseline that this run is to become."""
DEFAULT_STORAGE = "file://./.benchmarks"
"""pytest-benchmark's own default; any other value was chosen by the user."""
COLUMNS = ("min", "median", "iqr", "rounds")
"""Columns of pytest-benchmark's table unless the user chooses; all ten are 200 characters wide."""


@dataclass(frozen=True)
class RunFile:
    """The files of one run."""

    name: str
    path: Path
    copies: tuple[Path, ...]
    """Further copies, as ``--benchmark-json`` asks for."""
    streams: tuple[Path, ...]
    """Devices and pipes that get the whole run, once, at its end."""
    directory: Path
    """Where runs are stored."""
    first: str = ""
    """Reference of the baseline that this run becomes, because there is none yet."""

    @property
    def pictures(self) -> Path:
        """Directory of class maps and overlays: named like the run file, beside it."""
        return self.path.with_suffix("")

    def release(self) -> None:
        """Free the run number of a run that measured nothing."""
        with contextlib.suppress(OSError):  # not empty, or never created
            self.pictures.rmdir()


def benchmark_session(config: pytest.Config) -> BenchmarkSession:
    """Return pytest-benchmark's session; raise pytest.UsageError if its plugin is not loaded."""
    session: BenchmarkSession | None = getattr(config, "_benchmarksession", None)
    if session is None:
        raise pytest.UsageError(
            "segcore measures with pytest-benchmark, which is not loaded: "
            "drop `-p no:benchmark`, or load it with `-p pytest_benchmark.plugin`"
        )
    return session


def load_baseline(config: pytest.Config) -> tuple[Run, ...]:
    """Return the runs of ``--segcore-baseline``; exit with code 2 if there are none, or one of them is incomplete.

    If the option ends in a question mark and there is no such run, or none that was not interrupted, this run becomes
    it and is not judged.
    """
    option = config.option.segcore_baseline
    if option is None:
        return ()
    reference = option.removesuffix("?")
    storage = benchmark_session(config).storage
    moved = config.option.benchmark_storage != DEFAULT_STORAGE and isinstance(storage, FileStorage)
    directory = storage.path if moved else DEFAULT_DIRECTORY
    try:
        if not reference:
            raise RecordError("wanted a run, found an empty value: is its variable set?")
        if reference != option and not os.path.isdir(reference) and was_never_finished(reference, directory):  # noqa: PTH112
            if set(reference) & set('\\:*?<>|"') or reference.isdecimal():
                raise RecordError(f"{reference!r} cannot be recorded: wanted a name, a path or `latest`")
            config.stash[FIRST_RUN] = reference.removeprefix(f"{machine_name()}/")
            return ()
        return files.load_baseline(reference, directory)
    except RecordError as error:
        pytest.exit(plain_text(f"--segcore-baseline: {error}"), returncode=EXIT_BAD_INPUT)


def save_nothing(config: pytest.Config) -> None:
    """Keep pytest-benchmark from warning that there is nothing to save if nothing is executed."""
    session = benchmark_session(config)
    session.save = session.autosave = session.json = None


def take_over_saving(config: pytest.Config) -> RunFile:
    """Choose the files of this run, and keep pytest-benchmark from writing them as well.

    Without an option that saves it, a run replaces ``unsaved.json``. If the storage is not a directory (Elasticsearch),
    pytest-benchmark saves the run there, with our records in it.
    """
    session = benchmark_session(config)
    _move_storage(config, session)
    session.save_data = True
    if config.option.benchmark_columns is None:
        session.columns = list(COLUMNS)
    if session.save is NAMELESS:
        session.save = run_name(config.invocation_params.dir)
    first = config.stash.get(FIRST_RUN, "")
    name = session.save or session.autosave
    if first == "latest" and not name:
        name = run_name(config.invocation_params.dir)
    stored = isinstance(session.storage, FileStorage)
    directory = session.storage.path if stored else DEFAULT_DIRECTORY
    paths: list[Path] = []
    if name and stored:
        session.save = session.autosave = None
        paths.append(_claim(session.storage.get("x").parent, name))
    if session.json:
        paths.append(Path(session.json).absolute())
        session.json = None
    if os.sep in first or first.endswith(".json"):  # a path, not a name
        paths.append(Path(first).absolute())
    elif first not in ("", "latest", name) and stored:
        paths.append(_claim(session.storage.get("x").parent, first))
        name = name or first
    for path in paths:
        if path.is_dir():
            raise OutputError(f"{path}: is a directory: wanted the path of a file to write")
    path, *copies = [path for path in paths if is_replaced(path)] or [directory / f"{UNSAVED}.json"]
    streams = tuple(path for path in paths if not is_replaced(path))
    fold_journals(path.parent)
    return RunFile(name or path.stem, path, tuple(copies), streams, directory, first)


def _move_storage(config: pytest.Config, session: BenchmarkSession) -> None:
    if config.option.benchmark_storage == DEFAULT_STORAGE:
        with contextlib.suppress(OSError):  # pytest-benchmark has just created it; it stays if there is anything in it
            session.storage.path.rmdir()
        session.storage = FileStorage(DEFAULT_DIRECTORY, session.logger, default_machine_id=session.machine_id)
        session.handle_loading()  # for --benchmark-compare, which has looked in the other directory


def _claim(directory: Path, name: str) -> Path:
    """Return the path of the next run; creating its picture directory reserves the number among concurrent runs."""
    while True:
        path = next_run_path(directory, name)
        try:
            path.with_suffix("").mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(
                f"{directory}: cannot be written: {error.strerror}; choose another --benchmark-storage"
            ) from None
        return path
