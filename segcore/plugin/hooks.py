"""The hooks of a run that has items of ours, registered for that run alone."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from segcore.core.bench_options import Choices
from segcore.core.errors import EXIT_BAD_INPUT, SegcoreError
from segcore.core.records import OutcomeKind, OutcomeRecord, Run
from segcore.judgement.gate import GateResult
from segcore.judgement.gate.files import RUN_LIMITS, gate_options, judge_runs
from segcore.judgement.gate.settle import why_not
from segcore.measurement.machine import fingerprint
from segcore.paired.settle import SettleOptions, settle
from segcore.plugin.items import AccuracyItem, BenchItem, SpeedItem
from segcore.plugin.load import LoadItem
from segcore.plugin.plan import PlanItem
from segcore.plugin.progress import LiveLine
from segcore.plugin.reporting import announce, print_gate, print_run, properties, write_page
from segcore.plugin.selection import command_line
from segcore.plugin.session import BenchSession
from segcore.report.escape import plain_text


class BenchHooks:
    """Open items, keep their outcomes, save the run, judge it and report it.

    The runs of the baseline are loaded before this one begins, so that ``latest`` is never the run itself.
    """

    def __init__(
        self,
        config: pytest.Config,
        choices: Choices,
        plan: Mapping[str, PlanItem],
        baseline: tuple[Run, ...],
        deselected: Sequence[str],
    ) -> None:
        # SIGTERM, with which CI cancels a job, ends a run like Ctrl-C. Only the main thread can handle signals.
        self._process, self._thread = os.getpid(), threading.get_ident()
        self._is_main = threading.current_thread() is threading.main_thread()
        self._sigterm = signal.signal(signal.SIGTERM, signal.default_int_handler) if self._is_main else None
        self.session = BenchSession(config, choices, plan, deselected)
        self._reporter = reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter:
            reporter.reportchars = reporter.reportchars.replace("s", "")  # `announce` lists each reason once
        self._line = line = LiveLine(reporter, self.session.estimates)
        self.session.neighbours.tell = lambda load: line.describe(f"waiting: others use {load:.0%} of the processor")
        self._baseline = baseline
        self._gate: GateResult | None = None
        self._all_missing = False
        self._open: BenchItem | None = None

    def open(self, plan: PlanItem, node: pytest.Item, benchmark: BenchmarkFixture | None) -> BenchItem:
        """Return an item, with `benchmark` unless it is of accuracy; skip or fail the test if it cannot run."""
        if benchmark:
            if not isinstance(benchmark, BenchmarkFixture):
                found = f"{type(benchmark).__module__}.{type(benchmark).__qualname__}"
                pytest.fail(f"benchmark: wanted the fixture of pytest-benchmark, found {found}", pytrace=False)
            benchmark.group = plan.kind if benchmark.group is None else benchmark.group
            benchmark.params = plan.params  # for --benchmark-group-by=param:device
            benchmark.skipped = True  # keeps pytest-benchmark from warning of an unused fixture if the item is skipped
        if node.nodeid in self.session.skips:
            pytest.skip(str(self.session.skips[node.nodeid]))
        try:
            if benchmark is None:
                self._open = AccuracyItem(plan, node.nodeid, self.session)
            elif plan.kind == "load":
                self._open = LoadItem(plan, node.nodeid, self.session, benchmark.disabled)
            else:
                self._open = SpeedItem(plan, node.nodeid, self.session, benchmark)
                benchmark.skipped = False
        except SegcoreError as error:
            pytest.fail(str(error), pytrace=False)
        labels = self._open.segmenter.labels  # which were not always known before
        if plan.kind == "accuracy" and (why := self.session.resources.why_not_judged(plan, labels)):
            pytest.skip(str(why))
        return self._open

    def pytest_unconfigure(self) -> None:
        """Restore the signal handler."""
        if self._is_main:
            signal.signal(signal.SIGTERM, self._sigterm)

    def pytest_report_collectionfinish(self) -> list[str]:
        """Report what will run, for how long, what is skipped and why, and whether it can be settled."""
        lines = list(announce(self.session))
        if self._baseline and self.session.config.option.segcore_settle and (problem := self._cannot_settle()):
            lines.append(f"segcore gate: what stays undecided will not be settled: {problem}")
        return list(map(plain_text, lines))

    def _cannot_settle(self) -> str:
        git = self.session.git
        own = "" if git and not git.dirty else "this run has no commit, or uncommitted changes"
        return own or why_not(self._baseline, (), self.session.machine)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Show the item in the progress line."""
        if nodeid in self.session.items:
            self._line.start(self.session.items[nodeid].key)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Start an execution of an item; plugins that repeat tests come here for each of them."""
        self._open = None
        if item.nodeid in self.session.items:
            if os.getpid() != self._process:
                pytest.fail("segcore measures in one process, but a plugin has forked it for this test", pytrace=False)
            if threading.get_ident() != self._thread:
                pytest.fail("segcore measures in one thread, but a plugin runs this test in another", pytrace=False)
            self.session.begin(item.nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        """After the tests, measure their items in further processes."""
        result = yield
        if self.session.processes_left:
            from segcore.plugin.processes import measure_further  # needs a POSIX system

            self._open = None
            self.session.release_items()
            if self._reporter and self._reporter.verbosity > 0:  # the progress line is off
                self._reporter.ensure_newline()
                self._reporter.write_line(f"segcore: measuring in {self.session.processes_left} further processes")
            nodes = {item.nodeid: item for item in session.items}
            measure_further(self.session, lambda node, reason: self._fail(nodes[node], reason), self._line)
        return result

    def _fail(self, item: pytest.Item, reason: str) -> None:
        """Make an error of an item that a further process could not measure."""
        plan = self.session.items[item.nodeid]
        self.session.outcomes[plan.key] = OutcomeRecord(
            item=item.nodeid, kind=plan.kind, outcome="error", reason=reason, key=plan.key
        )
        report = pytest.TestReport(item.nodeid, item.location, {}, "failed", reason, "teardown")
        item.ihook.pytest_runtest_logreport(report=report)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Record what an item has measured, even if the test then fails."""
        measured = True
        try:
            return (yield)
        except BaseException as error:
            measured = isinstance(error, (Exception, pytest.fail.Exception))
            raise
        finally:
            if isinstance(self._open, SpeedItem) and measured:
                self._open.record()
            elif isinstance(self._open, SpeedItem):  # interrupted: pytest-benchmark would warn of an unused fixture
                self._open.benchmark.skipped = True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep the outcome of an item and save it before pytest reports it; hand its figures to pytest's reports."""
        ours = item.nodeid in self.session.items and os.getpid() == self._process
        if ours and call.when == "call":
            item.user_properties += properties(self.session.measured(item.nodeid))
        report = yield
        if ours:
            self._keep_outcome(self.session.items[item.nodeid], report, call)
        return report

    def _keep_outcome(self, plan: PlanItem, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
        known = self.session.outcomes.get(plan.key)
        if known is not None and (known.outcome != "passed" or report.passed):
            return
        if report.passed and call.when != "call":
            return
        outcome, reason = _outcome(report, call)
        skip = self.session.skips.get(report.nodeid)
        self.session.outcomes[plan.key] = OutcomeRecord(
            item=report.nodeid,
            kind=plan.kind,
            outcome=outcome,
            reason=skip.message if skip else reason,
            where=skip.where if skip else "",
            key=plan.key,
            skipped_by_case=bool(plan.case.skip_reason),
        )
        self.session.save_item(report.nodeid)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Return no letter for an item that the progress line shows; pytest's summary still needs the category."""
        if not self._line.active or report.nodeid not in self.session.items:
            return None
        if report.when != "call" and report.passed:
            return "", "", ""
        category: str = "error" if report.failed and report.when != "call" else report.outcome
        if hasattr(report, "wasxfail"):
            category = "xfailed" if report.skipped else "xpassed"
        return category, "", category.upper()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Show how an item ended."""
        if nodeid in self.session.items:
            key = self.session.items[nodeid].key
            outcome = self.session.outcomes.get(key)
            self._line.finish(nodeid, key, outcome.outcome if outcome else "interrupted")

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Add our records to what pytest-benchmark writes."""
        self.session.amend_document(output_json)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the run and judge it; see `_exit_status`."""
        self._line.close()
        self.session.finish()
        if session.exitstatus != pytest.ExitCode.INTERRUPTED:
            if self._baseline and self.session.run:
                self._gate = judge_runs(
                    self._baseline,
                    [self.session.run],
                    RUN_LIMITS,
                    self.session.file.directory,
                    accept_changed_limits=command_line(session.config).segcore_accept_changed_limits,
                )
                if session.config.option.segcore_settle:
                    self._settle(self._gate, self.session.run, session)
            elif self._baseline and session.exitstatus == pytest.ExitCode.OK and not self.session.write_error:
                self._all_missing = True
                session.exitstatus = pytest.ExitCode.TESTS_FAILED
            all_written = not (self.session.write_error or self.session.unwritten)
            session.exitstatus = _exit_status(session.exitstatus, self._gate, all_written)
        if not self._reporter:  # no `pytest_terminal_summary` will follow
            self._write_page()

    def _settle(self, gate: GateResult, run: Run, session: pytest.Session) -> None:
        """Measure in turns what is undecided; if that cannot be done, or is interrupted, say so and leave it open."""
        config = session.config
        accept = command_line(config).segcore_accept_changed_limits
        words = gate_options(RUN_LIMITS, accept_changed_limits=accept)
        options = SettleOptions(RUN_LIMITS, config.option.segcore_settle_budget, accept, words)
        try:
            self._gate = settle(gate, self._baseline, [run], fingerprint(), options, self._progress)
        except SegcoreError as error:
            self._gate = replace(gate, notes=(*gate.notes, str(error)))
        except KeyboardInterrupt:
            self._gate = replace(gate, notes=(*gate.notes, "settling was interrupted"))
            session.exitstatus = pytest.ExitCode.INTERRUPTED

    def _progress(self, line: str) -> None:
        if self._reporter:
            self._reporter.write_line(f"segcore gate: {line}")

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the run, the verdicts and where the files are, after pytest-benchmark's tables."""
        print_run(self.session, terminalreporter)
        if self._gate:
            print_gate(self._gate, terminalreporter)
        elif self._all_missing:
            terminalreporter.write_line("segcore gate FAILED: no item was executed, every item is missing", red=True)
        elif self.session.file.first and self.session.run:
            first = self.session.file.first
            terminalreporter.write_line(
                f"segcore gate: no baseline {first!r} yet: recorded this run as it, judged nothing"
            )
        for line in self._write_page():
            terminalreporter.write_line(line)

    def _write_page(self) -> list[str]:
        run = self.session.run
        if run is None:
            return []
        return list(write_page(run, self._baseline[0] if self._gate else None, self._gate))


def _outcome(report: pytest.TestReport, call: pytest.CallInfo[None]) -> tuple[OutcomeKind, str]:
    if report.passed:
        return "passed", ""
    if report.skipped and hasattr(report, "wasxfail"):
        return "skipped", f"xfail: {report.wasxfail or 'without a reason'}"
    if report.skipped:
        longrepr = report.longrepr
        return "skipped", longrepr[2].removeprefix("Skipped: ") if isinstance(longrepr, tuple) else str(longrepr)
    reason = _words(call.excinfo.value) if call.excinfo else str(report.longrepr)
    expected = (AssertionError, pytest.fail.Exception)
    failed = call.when == "call" and call.excinfo is not None and call.excinfo.errisinstance(expected)
    return "failed" if failed else "error", reason


def _words(error: BaseException) -> str:
    """Return the message of an exception, its type if the exception cannot say it."""
    try:
        return str(error)
    except Exception:  # of its own __str__
        return type(error).__name__


def _exit_status(status: int, gate: GateResult | None, all_written: bool) -> int:
    """Return the exit code of a run that was not interrupted, from pytest's own (`status`).

    Failed tests keep exit code 1; any other code but 0 gives way to a regression. If something could not be written,
    what the gate missed may have been among it: then only a regression is a verdict.
    """
    verdict = gate.exit_code if gate else pytest.ExitCode.OK
    if not all_written and not (gate and any(row.verdict == "regressed" for row in gate.rows)):
        verdict = EXIT_BAD_INPUT
    return verdict if status == pytest.ExitCode.OK or verdict == 1 else status
