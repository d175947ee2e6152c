"""``--segcore-baseline``: the run is judged at its end, and pytest exits as the gate does."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from pytest_benchmark.storage.file import FileStorage

from segcore.core.errors import EXIT_BAD_INPUT, RecordError
from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.judgement.gate import GateResult
from segcore.judgement.gate.files import judge_runs, load_runs
from segcore.plugin.session import BenchSession
from segcore.plugin.storage import benchmark_session
from segcore.report.gate import render
from segcore.report.github import annotate
from segcore.results.naming import DEFAULT_DIRECTORY


def load_baseline(config: pytest.Config) -> tuple[Run, ...]:
    """Return the runs that the user named, if any; end pytest with exit code 2 where they are not there."""
    reference = config.option.segcore_baseline
    if not reference:
        return ()
    storage = benchmark_session(config).storage
    try:
        return load_runs(reference, storage.path if isinstance(storage, FileStorage) else DEFAULT_DIRECTORY)
    except RecordError as error:
        pytest.exit(f"--segcore-baseline: {error}", returncode=EXIT_BAD_INPUT)


class BaselineHooks:
    """Holds the run against a baseline that was loaded before it began, so that ``latest`` is never the run itself."""

    def __init__(self, baseline: tuple[Run, ...], bench: BenchSession) -> None:
        self.baseline = baseline
        self._bench = bench
        self.result: GateResult | None = None
        """None until the run has ended, and where it could not be written."""

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None]:
        """Judge once the run is written: failed tests stay 1, an undecided gate is 3 where nothing else is wrong."""
        yield
        if self._bench.run is not None and not self._bench.write_error:
            self.result = judge_runs(self.baseline, [self._bench.run], Limits(), self._bench.file.directory)
            if session.exitstatus == pytest.ExitCode.OK or self.result.exit_code == 1:
                session.exitstatus = self.result.exit_code

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the verdicts, last of all."""
        if self.result is not None:
            terminalreporter.section("segcore gate")
            terminalreporter.write(
                render(self.result, width=terminalreporter._tw.fullwidth, color=terminalreporter.hasmarkup)
            )
            annotate(self.result)
