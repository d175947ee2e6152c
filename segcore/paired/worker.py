"""The worker process of one arm: runs a bench under pytest and measures its calls on request.

Run by its path (``python -P worker.py DESCRIPTOR``), so that each arm imports its own code and shares only this file
with the other. The file descriptor is a `multiprocessing.connection.Connection` that carries JSON objects::

    gate:    {"args": [...], "items": null | [node ids], "code": null | directory, "own_bench": bool,
              "forbidden": [directories]}
    worker:  {"item": "bench/test_x.py::test_latency[...]", "max_slowdown": null | 0.05, "cold_start_s": null | 0.2}
                                                                                            it is ready
    gate:    {"measure": 4}
    worker:  {"times_ns": [51200311, ...]}    of each call; or, of a process of a bench run:
    bench:   {"measure": 4, "device": "cpu"}
    worker:  {"times_ns": [51200311, ...], "reference_ns": [1520322, ...], "cpu_ns": 402000000}
                                               with the mean of the reference task before and after each call
    gate:    {"next_item": true}    and so on, until
    worker:  {"finished": true}    or, at any time,    {"error": "what went wrong", "no_code": bool}

The call is the function that the bench passes to pytest-benchmark's fixture, plain or pedantic.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Generator
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

MEASURED = "measured by the paired gate"
OTHER_OUTPUT: dict[str, object] = {
    "benchmark_only": False,
    "benchmark_enable": False,
    "benchmark_save": None,
    "benchmark_autosave": None,
    "benchmark_json": None,
    "benchmark_compare": None,
    "benchmark_compare_fail": None,
    "benchmark_histogram": None,
    "segcore_baseline": None,
    "segcore_profile": None,
    "xmlpath": None,
    "usepdb": False,
    "log_file": os.devnull,
    "basetemp": None,  # would be deleted first
    "numprocesses": None,  # pytest-xdist
    "dist": "no",
    "distload": False,
    "cov_source": [],  # pytest-cov, which also slows down what is measured
    "report_log": None,  # pytest-reportlog
    "htmlpath": None,  # pytest-html
    "json_report": False,  # pytest-json-report
    "allure_report_dir": None,  # allure-pytest
    "clean_alluredir": False,
    "memray": False,  # pytest-memray
}
"""Values, by name, of the options of pytest and its plugins that write or delete files, judge, ask, or measure and
distribute themselves, none of which a worker does."""
PR_SET_PDEATHSIG = 1
"""Option of prctl(2)."""


class WorkerPlugin:
    """The pytest plugin that selects the items, and measures each call that reaches the benchmark fixture."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.start = self._receive()
        if connection.poll():  # the end of the input: the gate died before `main` called prctl
            os._exit(1)
        self._item: pytest.Item | None = None
        self._problems: list[str] = []
        self._measured = False
        self._cold_start_s: float | None = None
        self._references: dict[str, Callable[[], float]] = {}
        self._patch_benchmark_fixture()

    def _patch_benchmark_fixture(self) -> None:
        from pytest_benchmark.fixture import BenchmarkFixture

        def timed(_: object, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
            self._cold_start_s = getattr(function, "cold_start_s", None)
            self.serve(lambda: function(*args, **kwargs))

        def pedantic(_: object, target: Callable[..., object], args: Any = (), kwargs: Any = None, **more: Any) -> None:
            given = [args, kwargs or {}]
            self._cold_start_s = None

            def prepare() -> None:
                given[:] = more["setup"]() or given

            self.serve(lambda: target(*given[0], **given[1]), prepare if more.get("setup") else None)

        pytest.MonkeyPatch().setattr(BenchmarkFixture, "__call__", timed)
        pytest.MonkeyPatch().setattr(BenchmarkFixture, "pedantic", pedantic)

    def send(self, **message: object) -> None:
        """Send one message to the gate."""
        self._connection.send_bytes(json.dumps(message).encode())

    def _receive(self) -> dict[str, Any]:
        try:
            message: dict[str, Any] = json.loads(self._connection.recv_bytes())
        except (EOFError, OSError):  # the gate has ended
            os._exit(1)
        return message

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_load_initial_conftests(self, early_config: pytest.Config) -> Generator[None]:
        """Switch off what only the bench itself is to do: pytest-cov starts here."""
        switch_off(early_config.known_args_namespace)
        yield

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_cmdline_main(self, config: pytest.Config) -> Generator[None, object, object]:
        """Switch it off in the final options as well."""
        switch_off(config.option)
        return (yield)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the requested items, in the order requested and as often, or all that use the benchmark fixture."""
        timed = [item for item in items if "benchmark" in getattr(item, "fixturenames", ())]
        by_node = {item.nodeid: item for item in timed}
        wanted = self.start["items"]
        items[:] = timed if wanted is None else [by_node[node] for node in wanted if node in by_node]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Remember the current item."""
        self._item = item

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record why an item could not be measured."""
        if report.failed or (report.skipped and MEASURED not in str(report.longrepr)):
            self._problems.append(f"{report.nodeid} {report.outcome} in {report.when}: {_reason(report.longrepr)}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record which modules cannot be imported."""
        if report.failed:
            self._problems.append(f"{report.nodeid} cannot be collected: {_reason(report.longrepr)}")

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Finish before other plugins write summaries; if nothing was measured, wait for pytest's error message."""
        if self._measured:
            self.finish(exitstatus)

    def serve(self, call: Callable[[], object], setup: Callable[[], object] | None = None) -> None:
        """Measure the call on request until the gate wants the next item; `setup` runs before each call."""
        assert self._item
        self._measured = True
        limit = case_limit(getattr(self._item, "callspec", None))
        self.send(item=self._item.nodeid, max_slowdown=limit, cold_start_s=self._cold_start_s)
        while "measure" in (request := self._receive()):
            try:
                answer = self._answer(call, setup, request)
            except Exception as error:
                self.send(error=f"{self._item.nodeid} failed: {type(error).__name__}: {error}")
                raise
            self.send(**answer)
        pytest.skip(MEASURED)

    def _answer(
        self, call: Callable[[], object], setup: Callable[[], object] | None, request: dict[str, Any]
    ) -> dict[str, Any]:
        if "device" not in request:
            return {"times_ns": measure(call, request["measure"], setup)}
        from segcore.inference.devices import open_device  # a paired arm may have a version without any of this
        from segcore.measurement.neighbours import processor_s
        from segcore.measurement.reference import ReferenceTask

        device = request["device"]
        if device not in self._references:
            self._references[device] = ReferenceTask(open_device(device))
        ends: list[float] = []

        def prepare() -> None:
            if setup:
                setup()
            ends.append(self._references[device]())

        start_s = processor_s()
        times = measure(call, request["measure"], prepare)
        ends.append(self._references[device]())
        reference = [round(5e8 * (before + after)) for before, after in pairwise(ends)]
        return {"times_ns": times, "reference_ns": reference, "cpu_ns": round(1e9 * (processor_s() - start_s))}

    def finish(self, exit_code: int) -> None:
        """Report the end of the bench, or what went wrong, and exit."""
        bench, code = Path(self.start["args"][0]).resolve(), self.start["code"]
        sys.stdout.flush()  # the gate quotes the log in errors
        foreign = foreign_modules(self.start["forbidden"], bench, code)
        if self._problems:
            self.send(error="; ".join(self._problems))
        elif not self._measured:
            arguments = " ".join(self.start["args"])
            self.send(error=f"pytest ran no benchmark (exit code {exit_code}): {arguments}")
        elif foreign:
            self.send(error=f"it imported code from outside its worktree: {', '.join(foreign[:3])}")
        elif code and not self.start["own_bench"] and not any(p.is_relative_to(code) for _, p in _imported(bench)):
            self.send(error=f"it imported nothing from its worktree {code}", no_code=True)
        else:
            self.send(finished=True)
        os._exit(0)


def measure(call: Callable[[], object], calls: int, setup: Callable[[], object] | None = None) -> list[int]:
    """Return the nanoseconds of each of several calls, without garbage collection and without `setup`."""
    gc.collect()
    gc.freeze()  # otherwise each turn would spend a tenth of a second on the objects of the loaded modules
    gc.disable()
    times = []
    for _ in range(calls):
        if setup:
            setup()
        start = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start)
    gc.enable()
    return times


def switch_off(options: argparse.Namespace) -> None:
    """Give the options of `OTHER_OUTPUT` that are declared their values there."""
    for name, value in OTHER_OUTPUT.items():
        if hasattr(options, name):
            setattr(options, name, value)


def case_limit(callspec: Any) -> float | None:
    """Return the largest slowdown of the median that an item's case allows; None if it has no such limit.

    The plan in the item's parameters may be of another version of segcore.
    """
    for plan in getattr(callspec, "params", {}).values():
        if hasattr(getattr(plan, "case", None), "limits_for"):
            names = ("model", "device", "runtime", "precision", "size")
            old = not hasattr(plan, "limits")
            limits = plan.case.limits_for(**{name: getattr(plan, name) for name in names}) if old else plan.limits
            if "max_slowdown" in limits.model_fields_set:
                limit: float | None = limits.slowdowns.get(0.5)
                return limit
    return None


def foreign_modules(forbidden: list[str], bench: Path, code: str | None) -> list[str]:
    """Return the modules that were imported from forbidden directories, which may contain the arm's own code."""
    return sorted(
        f"{name} ({path})"
        for name, path in _imported(bench)
        if "site-packages" not in path.parts
        and not (code and path.is_relative_to(code))
        and any(path.is_relative_to(directory) for directory in forbidden)
    )


def _imported(bench: Path) -> list[tuple[str, Path]]:
    """Return name and file of the imported modules, except this one, the bench's and conftest files."""
    files = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
    # torch.ops and similar modules have a file name without a directory.
    paths = [(name, Path(file).resolve()) for name, file in files if file and Path(file).is_absolute()]
    shared = (Path(__file__).name, "conftest.py")
    return [(name, path) for name, path in paths if not path.is_relative_to(bench) and path.name not in shared]


def _reason(longrepr: object) -> str:
    """Return the line of a report that names the error or the reason of a skip."""
    if isinstance(longrepr, tuple):
        return str(longrepr[2])
    lines = [line.strip() for line in str(longrepr).splitlines() if line.strip()]
    errors = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (errors or lines or ["no reason given"])[0]


def main(plugin_type: type[WorkerPlugin] = WorkerPlugin) -> None:
    """Run the bench that the gate asks for."""
    if sys.platform == "linux":  # be killed when the gate dies, even while stopped
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    descriptor = int(sys.argv[-1])
    os.set_inheritable(descriptor, False)
    plugin = plugin_type(Connection(descriptor))
    try:
        code = pytest.main([*plugin.start["args"], "-q", "-p", "no:cacheprovider"], plugins=[plugin])
    except Exception as error:
        plugin.send(error=f"pytest did not start: {type(error).__name__}: {error}")
        raise
    plugin.finish(int(code))


if __name__ == "__main__":
    main()
