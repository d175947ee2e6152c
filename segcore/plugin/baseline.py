"""The runs that ``--segcore-baseline`` names."""

from __future__ import annotations

import pytest
from pytest_benchmark.storage.file import FileStorage

from segcore.core.errors import EXIT_BAD_INPUT, RecordError
from segcore.core.records import Run
from segcore.judgement.gate.files import load_runs
from segcore.plugin.storage import DEFAULT_STORAGE, benchmark_session
from segcore.results.naming import DEFAULT_DIRECTORY


def load_baseline(config: pytest.Config) -> tuple[Run, ...]:
    """Return the runs of ``--segcore-baseline``; exit with code 2 if there are none, or one of them is incomplete."""
    reference = config.option.segcore_baseline
    if not reference:
        return ()
    storage = benchmark_session(config).storage
    moved = config.option.benchmark_storage != DEFAULT_STORAGE and isinstance(storage, FileStorage)
    try:
        runs = load_runs(reference, storage.path if moved else DEFAULT_DIRECTORY)
        for run in runs:
            _check_complete(run)
    except RecordError as error:
        pytest.exit(f"--segcore-baseline: {error}", returncode=EXIT_BAD_INPUT)
    return runs


def _check_complete(run: Run) -> None:
    if not run.benchmarks:
        raise RecordError(f"{run.path}: the run measured nothing; wanted a complete run: record it again")
    if not run.record.complete:
        raise RecordError(
            f"{run.path}: the run was interrupted after {len(run.benchmarks)} items; "
            "wanted a complete run: record it again, or name another one"
        )
