"""Fixtures of several test modules."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import settings

from segcore.inputs.download import FetchSettings
from tests.support.http_server import MisbehavingServer
from tests.support.repositories import repository

__all__ = ["repository"]

# Photos are so small in tests that threads would wait for each other most of the time. Before torch is imported;
# processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
# What tests run is no worker of pytest-xdist, even if they run in one: pytest-benchmark would measure nothing there.
os.environ.pop("PYTEST_XDIST_WORKER", None)
# Assertions are rewritten and modules compiled once, not by each worker and each of the processes that tests start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# The suite draws the same examples every time; `make fuzz` explores. How long an example takes depends on the machine.
settings.register_profile("segcore", deadline=None, derandomize=True, database=None, max_examples=100)
settings.register_profile("fuzz", deadline=None, max_examples=2000, print_blob=True)
settings.load_profile("segcore")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[MisbehavingServer]:
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with MisbehavingServer() as server:
        yield server


@pytest.fixture
def rules(tmp_path: Path) -> FetchSettings:
    return FetchSettings(tmp_path / "cache", allowed_hosts=frozenset({"127.0.0.1"}), backoff=0.0, retries=3)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Exempt what is imported from garbage collection, which bench sessions run in full after each model."""
    gc.disable()
    found = yield
    gc.collect()
    gc.freeze()
    gc.enable()
    return found


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Let each worker of pytest-xdist begin with slow tests, those of a module in one; quick ones fill the end.

    With ``--dist worksteal``, each worker begins with an equal part of the items in their order.
    """
    workers: int = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers == 1:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    quick = [item for item in items if not item.get_closest_marker("slow")]
    parts: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for _, tests in groupby(slow, key=lambda item: item.path):
        min(parts, key=len).extend(tests)
    left = len(items)
    for number, part in enumerate(parts):
        size = left // (workers - number)
        count = max(0, size - len(part))
        part += quick[:count]
        del quick[:count]
        left -= size
    items[:] = [item for part in parts for item in part] + quick


@pytest.fixture(scope="session", autouse=True)
def _can_be_interrupted() -> None:
    """Undo what a suite started in the background inherits, and would hand on to the processes that it interrupts."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def torch_threads() -> Iterator[None]:
    """Set the number of threads back that a test sets."""
    import torch  # many modules run without it

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
