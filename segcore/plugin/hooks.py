"""The hooks of a run that has items of ours; registered for that run alone."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, TypeVar

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from segcore.core.errors import EXIT_BAD_INPUT, SegcoreError, UsageError
from segcore.core.records import OutcomeKind, OutcomeRecord
from segcore.plugin.announce import announce, close
from segcore.plugin.items import AccuracyItem, BenchItem, SpeedItem
from segcore.plugin.load import LoadItem
from segcore.plugin.options import Choices
from segcore.plugin.plan import PlanItem
from segcore.plugin.progress import Forecast, LiveLine
from segcore.plugin.session import BenchSession

_I = TypeVar("_I", bound=BenchItem)


class BenchHooks:
    """Opens items, keeps their outcomes, writes the run after each of them, and tells of it.

    Args:
        config: pytest's.
        choices: the command line.
        plan: what was selected to run, by node id, in order.
    """

    def __init__(self, config: pytest.Config, choices: Choices, plan: Mapping[str, PlanItem]) -> None:
        _refuse_duplicates(plan)
        self.session = BenchSession(config, choices, plan)
        reporter: pytest.TerminalReporter = config.pluginmanager.getplugin("terminalreporter")
        reporter.reportchars = reporter.reportchars.replace("s", "")  # our summary tells each reason once
        self._line = LiveLine(reporter, Forecast(self.session.estimates))
        self._open: BenchItem | None = None

    def open_accuracy(self, plan: PlanItem, node: pytest.Item) -> AccuracyItem:
        """Return the item, or skip with the reason."""
        return self._opened(node, lambda: AccuracyItem(plan, node.nodeid, self.session))

    def open_speed(self, plan: PlanItem, node: pytest.Item, benchmark: BenchmarkFixture) -> SpeedItem:
        """Return the item, or skip with the reason."""
        benchmark.group = plan.kind if benchmark.group is None else benchmark.group
        benchmark.params = plan.params  # so that --benchmark-group-by=param:device has a meaning
        benchmark.skipped = True  # until it is used; else pytest-benchmark complains of a skipped item's fixture
        item = self._opened(node, lambda: SpeedItem(plan, node.nodeid, self.session, benchmark))
        benchmark.skipped = False
        return item

    def open_load(self, plan: PlanItem, node: pytest.Item, benchmark: BenchmarkFixture) -> LoadItem:
        """Return the item, or skip with the reason."""
        return self._opened(node, lambda: LoadItem(plan, node.nodeid, self.session, benchmark.disabled))

    def _opened(self, node: pytest.Item, make: Callable[[], _I]) -> _I:
        if node.nodeid in self.session.skips:
            pytest.skip(str(self.session.skips[node.nodeid]))
        try:
            item = make()
        except SegcoreError as error:
            pytest.fail(str(error), pytrace=False)
        self._open = item
        return item

    def pytest_report_collectionfinish(self) -> list[str]:
        """Say what is going to be done, for how long, what is skipped and why."""
        return announce(self.session)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """An item begins."""
        self._open = None
        if nodeid in self.session.items:
            self._line.start(self.session.items[nodeid].key)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, object, object]:
        """Keep what an item has measured, even where the test then asserts something that does not hold."""
        try:
            result = yield
        except (Exception, pytest.fail.Exception):
            self._record()
            raise
        except BaseException:  # interrupted: pytest-benchmark shall not complain of an unused fixture on top
            if isinstance(self._open, SpeedItem):
                self._open.benchmark.skipped = True
            raise
        self._record()
        return result

    def _record(self) -> None:
        if isinstance(self._open, SpeedItem):
            self._open.record()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep how an item ended."""
        report = yield
        if item.nodeid in self.session.items:
            self._note(item.nodeid, report, call)
        return report

    def _note(self, nodeid: str, report: pytest.TestReport, call: pytest.CallInfo[None]) -> None:
        known = self.session.outcomes.get(nodeid)
        if known is not None and (known.outcome != "passed" or report.passed):
            return
        if report.passed and call.when != "call":
            return
        plan = self.session.items[nodeid]
        outcome, reason = _outcome(report, call)
        skip = self.session.skips.get(nodeid)
        reason, where = (skip.message, skip.where) if skip else (reason, "")
        self.session.outcomes[nodeid] = OutcomeRecord(
            item=nodeid, kind=plan.kind, outcome=outcome, reason=reason, where=where, key=plan.key
        )

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Keep pytest from printing a letter where our line already tells; its summary still needs the word."""
        if not self._line.active or report.nodeid not in self.session.items:
            return None
        if report.when != "call" and report.passed:
            return "", "", ""
        category = "error" if report.failed and report.when != "call" else report.outcome
        return category, "", category.upper()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """An item has ended: the run so far goes to disk, so that whatever happens next takes nothing away."""
        if nodeid in self.session.items:
            outcome = self.session.outcomes.get(nodeid)
            self._line.finish(self.session.items[nodeid].key, outcome.outcome if outcome else "interrupted")
            self.session.write()

    def pytest_benchmark_update_json(self, output_json: dict[str, Any]) -> None:
        """Add our records to what pytest-benchmark writes."""
        self.session.amend_document(output_json)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Write the run for the last time."""
        self._line.close()
        self.session.finish()
        if self.session.write_error:
            session.exitstatus = EXIT_BAD_INPUT

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print the tables, after pytest-benchmark's."""
        close(self.session, terminalreporter)


def _outcome(report: pytest.TestReport, call: pytest.CallInfo[None]) -> tuple[OutcomeKind, str]:
    if report.passed:
        return "passed", ""
    if report.skipped:
        longrepr = report.longrepr
        return "skipped", longrepr[2].removeprefix("Skipped: ") if isinstance(longrepr, tuple) else str(longrepr)
    reason = str(call.excinfo.value) if call.excinfo else str(report.longrepr)
    told = (AssertionError, pytest.fail.Exception)
    failed = call.when == "call" and call.excinfo is not None and call.excinfo.errisinstance(told)
    return "failed" if failed else "error", reason


def _refuse_duplicates(plan: Mapping[str, PlanItem]) -> None:
    nodes: dict[str, str] = {}
    for node, item in plan.items():
        if item.key in nodes:
            raise UsageError(f"{item.key} would be measured twice, by {nodes[item.key]} and {node}: select one of them")
        nodes[item.key] = node
