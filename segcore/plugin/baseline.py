"""The runs that ``--segcore-baseline`` names."""

from __future__ import annotations

import os

import pytest
from pytest_benchmark.storage.file import FileStorage

from segcore.core.errors import EXIT_BAD_INPUT, RecordError
from segcore.core.records import Run
from segcore.core.system import machine_name
from segcore.judgement.gate import files
from segcore.plugin.storage import DEFAULT_STORAGE, FIRST_RUN, benchmark_session
from segcore.report.escape import plain_text
from segcore.results.naming import DEFAULT_DIRECTORY
from segcore.results.store import was_never_finished


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
