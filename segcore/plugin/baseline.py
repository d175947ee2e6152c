"""The runs that ``--segcore-baseline`` names."""

from __future__ import annotations

import pytest
from pytest_benchmark.storage.file import FileStorage

from segcore.core.errors import EXIT_BAD_INPUT, RecordError
from segcore.core.records import Run
from segcore.judgement.gate import files
from segcore.plugin.storage import DEFAULT_STORAGE, benchmark_session
from segcore.results.naming import DEFAULT_DIRECTORY


def load_baseline(config: pytest.Config) -> tuple[Run, ...]:
    """Return the runs of ``--segcore-baseline``; exit with code 2 if there are none, or one of them is incomplete."""
    reference = config.option.segcore_baseline
    if reference is None:
        return ()
    storage = benchmark_session(config).storage
    moved = config.option.benchmark_storage != DEFAULT_STORAGE and isinstance(storage, FileStorage)
    try:
        if not reference:
            raise RecordError("wanted a run, found an empty value: is its variable set?")
        return files.load_baseline(reference, storage.path if moved else DEFAULT_DIRECTORY)
    except RecordError as error:
        pytest.exit(f"--segcore-baseline: {error}", returncode=EXIT_BAD_INPUT)
