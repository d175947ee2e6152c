"""The worker of one arm: loads the items of a bench under pytest, and times their calls when asked.

A program, run by its path (``python -P worker.py``), so that the arm under test imports its own code and this is the
only file that both share. Standard input and output carry one JSON object per line::

    gate:    {"args": [...], "only": null | [node ids], "slowdown": 0.0, "code": null | dir, "forbidden": [dirs]}
    worker:  {"item": "bench/test_x.py::test_latency[...]", "limit": null | 0.05}    loaded, and its call is ready
    gate:    {"run": 4}
    worker:  {"ns": [51200311, ...]}    nanoseconds of each call
    gate:    {"next": true}             ... and so on with the next item, until
    worker:  {"done": true}    or, at any time,    {"error": "what went wrong"}

The call is what the bench hands to pytest-benchmark's fixture, under any of its interfaces.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

MEASURED = "measured by the paired gate"


class Channel:
    """JSON lines to and from the gate; what else is printed goes to standard error."""

    def __init__(self) -> None:
        self._in = os.fdopen(os.dup(0), "rb")
        self._out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - a device
            os.dup2(nothing.fileno(), 0)

    def send(self, **message: object) -> None:
        """Send one message."""
        self._out.write(json.dumps(message).encode() + b"\n")
        self._out.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for one message; when the gate is gone, so are we."""
        line = self._in.readline()
        if not line:
            os._exit(1)
        message: dict[str, Any] = json.loads(line)
        return message


class Burner:
    """Makes calls slower by a share, with real arithmetic inside the forward pass: for the gate's audit of itself."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.call_s = 0.0
        """What the last call took without what was burnt in it."""
        self.burnt_s = 0.0

    def install(self) -> None:
        """Wrap the forward pass of every session that is opened from now on."""
        import segcore.inference.pipeline
        import segcore.inference.runtimes

        opened = segcore.inference.runtimes.open_session

        def open_session(*args: Any, **options: Any) -> Any:
            session = opened(*args, **options)
            forward = session.forward

            def slower(batch: Any) -> Any:
                start = time.perf_counter()
                logits = forward(batch)
                if logits.is_cuda:
                    import torch

                    torch.cuda.synchronize()
                self.burn(self.share * (self.call_s or time.perf_counter() - start))
                return logits

            pytest.MonkeyPatch().setattr(session, "forward", slower)
            return session

        pytest.MonkeyPatch().setattr(segcore.inference.pipeline, "open_session", open_session)

    def burn(self, seconds: float) -> None:
        """Multiply matrices until that time is over."""
        import torch

        start = time.perf_counter()
        matrix = torch.full((64, 64), 1 / 64)
        while time.perf_counter() - start < seconds:
            matrix = matrix @ matrix
        self.burnt_s += time.perf_counter() - start


class Paired:
    """The pytest plugin: keeps the items wanted, and serves each call that reaches the benchmark fixture."""

    def __init__(self, channel: Channel, start: dict[str, Any], burner: Burner | None) -> None:
        self._start = start
        self._channel = channel
        self._burner = burner
        self._problems: list[str] = []
        self._served = False
        self._item = self._last = ""
        self._limit: float | None = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the items that are not decided yet, and of all only those that use the benchmark fixture."""
        items[:] = [i for i in items if "benchmark" in getattr(i, "fixturenames", ())]
        if self._start["only"] is not None:
            items[:] = [i for i in items if i.nodeid in self._start["only"]]

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note which item is the last; what is to be slowed down is imported by now."""
        self._last = session.items[-1].nodeid if session.items else ""
        if self._burner:
            self._burner.install()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note which item it is, and its own limit."""
        self._item = item.nodeid
        self._limit = case_limit(getattr(getattr(item, "callspec", None), "params", {}).values())
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note why an item could not be served."""
        if report.failed or (report.skipped and MEASURED not in str(report.longrepr)):
            self._problems.append(f"{report.nodeid} {report.outcome} in {report.when}: {_last_line(report.longrepr)}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note modules that cannot be imported."""
        if report.failed:
            self._problems.append(f"{report.nodeid} cannot be collected: {_last_line(report.longrepr)}")

    def serve(self, call: Callable[[], object]) -> None:
        """Answer requests to run the call, until the next item is wanted."""
        self._served = True
        self._channel.send(item=self._item, limit=self._limit)
        while True:
            request = self._channel.receive()
            if "run" not in request:
                if self._item == self._last:
                    self.conclude()
                    os._exit(0)  # pages and summaries are not wanted
                pytest.skip(MEASURED)
            try:
                times = self._time(call, request["run"])
            except Exception as error:
                self._channel.send(error=f"{self._item} failed: {type(error).__name__}: {error}")
                raise
            self._channel.send(ns=times)

    def _time(self, call: Callable[[], object], calls: int) -> list[int]:
        gc.collect()
        gc.freeze()  # what is loaded stays: else each turn would spend a tenth of a second on looking through it
        gc.disable()
        times = []
        for _ in range(calls):
            start = time.perf_counter_ns()
            call()
            times.append(time.perf_counter_ns() - start)
            if self._burner:
                self._burner.call_s = times[-1] / 1e9 - self._burner.burnt_s
                self._burner.burnt_s = 0.0
        gc.enable()
        return times

    def conclude(self, code: int = 0) -> None:
        """Tell the gate that there are no more items, or what went wrong."""
        start, bench = self._start, Path(self._start["args"][0]).resolve()
        foreign = foreign_modules(start["forbidden"], bench)
        if self._problems:
            self._channel.send(error="; ".join(self._problems))
        elif not self._served:
            self._channel.send(error=f"pytest served no benchmark (exit code {code}): {' '.join(start['args'])}")
        elif foreign:
            self._channel.send(error=f"it imported code that is not its own: {', '.join(foreign[:3])}")
        elif start["code"] and not any(path.is_relative_to(start["code"]) for _, path in _imported(bench)):
            self._channel.send(error=f"it imported nothing from its worktree {start['code']}: what is under test?")
        else:
            self._channel.send(done=True)


def case_limit(params: Iterable[Any]) -> float | None:
    """Return the slowdown of the median that the case of an item of ours allows, None where it leaves it open."""
    for plan in params:
        if hasattr(getattr(plan, "case", None), "limits_for"):
            names = ("model", "device", "runtime", "precision", "size")
            limits = plan.case.limits_for(**{name: getattr(plan, name) for name in names})
            if "max_slowdown" in limits.model_fields_set:
                limit: float | None = limits.slowdowns.get(0.5)
                return limit
    return None


def serve_benchmarks(plugin: Paired) -> None:
    """Put the gate in the place of pytest-benchmark's clock."""
    from pytest_benchmark.fixture import BenchmarkFixture

    def timed(_: object, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        plugin.serve(lambda: function(*args, **kwargs))

    def pedantic(
        _: object,
        target: Callable[..., object],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        setup: Callable[[], object] | None = None,
        **__: object,
    ) -> None:
        if setup is not None:
            raise RuntimeError("a benchmark with a setup function cannot be measured in turns")
        plugin.serve(lambda: target(*args, **(kwargs or {})))

    pytest.MonkeyPatch().setattr(BenchmarkFixture, "__call__", timed)
    pytest.MonkeyPatch().setattr(BenchmarkFixture, "pedantic", pedantic)


def foreign_modules(forbidden: list[str], bench: Path) -> list[str]:
    """Return what was imported from trees that this arm must not touch, the bench itself left aside."""
    found = []
    for name, path in _imported(bench):
        if "site-packages" not in path.parts and any(path.is_relative_to(tree) for tree in forbidden):
            found.append(f"{name} ({path})")
    return sorted(found)


def _imported(bench: Path) -> list[tuple[str, Path]]:
    """Return name and file of every module but this one, the bench's, and conftest files, which belong to the bench."""
    files = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
    # torch.ops and its like have a file name without a directory.
    paths = [(name, Path(file).resolve()) for name, file in files if file and Path(file).is_absolute()]
    apart = (Path(__file__).name, "conftest.py")
    return [(n, path) for n, path in paths if not path.is_relative_to(bench) and path.name not in apart]


def _last_line(longrepr: object) -> str:
    if isinstance(longrepr, tuple):
        return str(longrepr[2])
    lines = [line.strip() for line in str(longrepr).strip().splitlines() if line.strip()]
    errors = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (errors or lines or ["no reason given"])[0]


def main() -> int:
    """Serve one session; return the exit code."""
    channel = Channel()
    start = channel.receive()
    burner = Burner(start["slowdown"]) if start["slowdown"] else None
    plugin = Paired(channel, start, burner)
    serve_benchmarks(plugin)
    try:
        code = pytest.main([*start["args"], "-q", "-p", "no:cacheprovider"], plugins=[plugin])
    except Exception as error:
        channel.send(error=f"pytest did not start: {type(error).__name__}: {error}")
        raise
    plugin.conclude(int(code))
    return 0


if __name__ == "__main__":
    sys.exit(main())
