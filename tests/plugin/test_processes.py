"""Further processes of a bench run: their results, their failures; one real run at the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

# pytester forgets modules that an inner run was the first to import, and torch cannot be imported twice.
import segcore.plugin.hooks
import segcore.plugin.processes
import segcore.results.store
from segcore.core.errors import ArmError
from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.judgement.gate import judge
from segcore.measurement.neighbours import Neighbours, Usage
from segcore.paired.arms import Arm
from segcore.paired.process import Rounds, WorkerItem
from segcore.plugin.processes import Wanted, bench_arm, measure_process, visits
from segcore.results.store import load_run
from tests.support.bench_project import QUICK
from tests.support.processes import ALONE

pytest_plugins = ["pytester"]


@dataclass
class Workers:
    """Starts fake workers that time every call at 10 ms; some nodes do something else when they are measured."""

    odd: dict[str, Callable[[], None]] = field(default_factory=dict)
    never_run: tuple[str, ...] = ()
    started: list[tuple[Arm, tuple[str, ...]]] = field(default_factory=list)
    closed: int = 0

    @contextmanager
    def start(self, arm: Arm, items: tuple[str, ...] | None) -> Iterator[Worker]:
        assert items
        self.started.append((arm, items))
        try:
            yield Worker(self, [item for item in items if not any(name in item for name in self.never_run)])
        finally:
            self.closed += 1


class Worker:
    def __init__(self, workers: Workers, nodes: list[str]) -> None:
        self._workers, self._nodes = workers, nodes

    def item(self) -> WorkerItem | None:
        first = len(self._nodes) and "red-embedded-torch-cpu-32" in self._nodes[0]  # the model is loaded for it
        return WorkerItem(self._nodes[0], cold_start_s=0.25 if first else None) if self._nodes else None

    def measure(self, calls: int) -> list[int]:
        return [10_000_000] * calls

    def measure_rounds(self, calls: int, device: str) -> Rounds:
        for name, act in self._workers.odd.items():
            if name in self._nodes[0]:
                act()
        first = 0.01 + 1e-6 * len(self._workers.started)
        return Rounds(tuple(first + 1e-7 * n for n in range(calls)), (0.002,) * calls, 0.01 * calls)

    def next_item(self) -> None:
        del self._nodes[0]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    found = Workers()
    monkeypatch.setattr(segcore.plugin.processes, "start_worker", found.start)
    return found


def crash() -> None:
    raise ArmError("process arm: it ended")


def interrupt() -> None:
    raise KeyboardInterrupt


def saved(where: Path) -> Run:
    (path,) = where.glob("reports/runs/*/0001_*.json")
    return load_run(path)


ARM = Arm("process 2", ("bench",), Path())
FREE = ("-k", "not throughput", "--benchmark-max-time=0.000001", *QUICK[2:])
RUN = ("bench/", "--benchmark-save=x", "--segcore-processes=4")


@pytest.mark.slow
def test_a_run_holds_the_samples_of_every_process(where: Path, pytester: pytest.Pytester, workers: Workers) -> None:
    done = pytester.runpytest_inprocess(*RUN, "--segcore-offline", *FREE)
    done.assert_outcomes(passed=6, deselected=9)
    run = saved(where)
    assert run.record.complete
    for item in run.benchmarks:
        if item.info.kind == "latency":
            assert len(item.samples) == 2  # 7 in all, at least
            assert [len(process) for process in item.processes] == [2, 2, 2, 2]
            assert [len(times) for times in item.references] == [2, 2, 2, 2]
            assert {warning.code for warning in item.info.warnings} <= {"neighbours"}
    cold = {b.info.key: [p.cold_start_s for p in b.info.processes] for b in run.benchmarks if b.info.processes}
    assert cold.pop("latency[red-embedded-torch-cpu-32]") == [0.25, 0.25, 0.25]
    assert {seconds for each in cold.values() for seconds in each} == {None}
    assert [arm.name for arm, _ in workers.started] == ["process 2", "process 3", "process 4"]
    assert all("--segcore-offline" in arm.args for arm, _ in workers.started)
    assert len({items for _, items in workers.started}) == 1
    assert workers.closed == 3
    assert "[9/9] process 4 of 4 passed" in done.stdout.str()
    pytester.run(sys.executable, "-m", "pytest_benchmark", "--storage", "reports/runs", "compare").stdout.fnmatch_lines(
        ["*test_latency*"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("how", ["crashes", "never run"])
def test_an_item_that_a_process_cannot_measure_is_an_error(
    where: Path, pytester: pytest.Pytester, workers: Workers, how: str
) -> None:
    if how == "crashes":
        workers.odd["red-embedded-torch-cpu-48"] = crash
    else:
        workers.never_run = ("red-embedded-torch-cpu-48",)
    done = pytester.runpytest_inprocess(*RUN, *FREE)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    run = saved(where)
    outcomes = {outcome.key: outcome.outcome for outcome in run.record.outcomes}
    bad = "latency[red-embedded-torch-cpu-48]"
    assert [key for key, outcome in outcomes.items() if outcome != "passed"] == [bad]
    counts = {b.info.key: len(b.processes) for b in run.benchmarks if b.info.kind == "latency"}
    assert counts == {bad: 1, "latency[red-embedded-torch-cpu-32]": 4, "latency[blue-embedded-torch-cpu-32]": 4}
    assert run.record.complete
    verdicts = {row.item: row.verdict for row in judge([run], [run], Limits()).rows}
    assert verdicts[bad] != "pass"
    assert judge([run], [run], Limits()).exit_code == 1
    # After a crash, another process measures what is left.
    assert len(workers.started) == (4 if how == "crashes" else 3)


@pytest.mark.slow
def test_an_interrupted_process_leaves_an_incomplete_run(
    where: Path, pytester: pytest.Pytester, workers: Workers
) -> None:
    workers.odd["blue"] = interrupt
    done = pytester.runpytest_inprocess(*RUN, *FREE, no_reraise_ctrlc=True)
    assert done.ret == pytest.ExitCode.INTERRUPTED
    run = saved(where)
    assert not run.record.complete
    assert len(run.benchmarks) == 6
    assert workers.closed == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [("--benchmark-disable",), ("--segcore-processes=1",), ("-k", "accuracy"), ("--benchmark-skip",)]
)
def test_some_runs_need_no_further_process(
    where: Path, pytester: pytest.Pytester, workers: Workers, options: tuple[str, ...]
) -> None:
    done = pytester.runpytest_inprocess(*RUN, *FREE, *options)
    assert done.ret == 0
    assert workers.started == []
    assert saved(where).record.complete


@pytest.mark.slow
def test_a_run_says_how_long_it_waited(
    where: Path, pytester: pytest.Pytester, workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = Neighbours(0.0)
    waited.waited_s = 7.0
    monkeypatch.setattr(segcore.plugin.session, "Neighbours", lambda _: waited)
    done = pytester.runpytest_inprocess(*RUN, *FREE)
    done.stdout.fnmatch_lines(["waited 7 s for other processes (--segcore-wait)"])
    assert saved(where).record.conditions["waited"] == "7 s for other processes"


@pytest.mark.slow
def test_items_that_failed_are_not_measured_further(where: Path, pytester: pytest.Pytester, workers: Workers) -> None:
    (where / "bench" / "test_latency.py").write_text(
        "def test_latency(latency_item, benchmark):\n"
        "    latency_item.warm_up()\n"
        "    benchmark(latency_item)\n"
        "    assert 'red' not in latency_item.plan.key\n"
    )
    assert pytester.runpytest_inprocess(*RUN, *FREE).ret == 1
    assert [len(items) for _, items in workers.started] == [1, 1, 1]


def test_a_disturbed_process_is_measured_again_when_it_is_quiet() -> None:
    workers, now, busy = Workers(), [0.0], [0.0]

    def probe() -> Usage:
        return Usage(now[0], busy[0], 0.0, 2)

    def disturb() -> None:
        now[0] += 2.0
        busy[0] += 2.0 if now[0] < 3.0 else 0.0

    def sleep(seconds: float) -> None:
        now[0] += seconds

    workers.odd["a"] = disturb
    neighbours = Neighbours(10.0, probe, sleep)
    records, errors = measure_process(ARM, {"a": Wanted(3, 0.01, "cpu")}, neighbours, start=workers.start)
    assert errors == {}
    assert records["a"].other_load == 0.0
    assert len(records["a"].samples) == 3
    assert neighbours.waited_s == pytest.approx(2.0)


def test_long_calls_are_measured_in_several_turns() -> None:
    workers = Workers()
    records, _ = measure_process(ARM, {"a": Wanted(5, 25.0, "cpu")}, Neighbours(0.0), start=workers.start)
    assert len(records["a"].samples) == len(records["a"].reference) == 5


@pytest.mark.parametrize(
    ("items", "order"),
    [
        ({"a": (7, 0.05, 1), "b": (7, 0.05, 1)}, "ab ab ab"),
        ({"a": (7, 0.05, 1), "S": (2, 2.0, 1), "b": (2, 0.05, 1)}, "aSb ab a"),
        ({"a": (7, 0.05, 1)}, "a"),  # it would follow itself
        ({"a": (7, 0.05, 1), "b": (1, 0.05, 1)}, "ab a"),
        ({"a": (7, 0.05, 1), "b": (7, 0.05, 1), "c": (3, 0.05, 2), "d": (3, 0.05, 2)}, "ab ab ab cd cd cd"),
    ],
)
def test_a_process_comes_back_to_short_calls(items: dict[str, tuple[int, float, int]], order: str) -> None:
    wanted = {name: Wanted(rounds, call_s, "cpu", (model,)) for name, (rounds, call_s, model) in items.items()}
    assert visits(wanted) == tuple(order.replace(" ", ""))


def test_the_rounds_of_all_visits_are_one_record() -> None:
    workers = Workers()
    wanted = {name: Wanted(7, 0.01, "cpu") for name in "ab"}
    records, errors = measure_process(ARM, wanted, Neighbours(0.0), start=workers.start)
    assert errors == {}
    assert [items for _, items in workers.started] == [tuple("ababab")]
    for record in records.values():
        assert len(record.samples) == len(record.reference) == 7
        assert record.samples[0] == record.samples[3] == record.samples[5]  # visits of 3, 2 and 2 rounds


def test_an_item_that_fails_when_a_process_comes_back_has_no_record() -> None:
    workers, visited = Workers(), list[str]()

    def fail_at_second() -> None:
        visited.append("b")
        if len(visited) > 1:
            crash()

    workers.odd["b"] = fail_at_second
    wanted = {name: Wanted(7, 0.01, "cpu") for name in "abc"}
    records, errors = measure_process(ARM, wanted, Neighbours(0.0), start=workers.start)
    assert list(errors) == ["b"]
    assert {name: len(record.samples) for name, record in records.items()} == {"a": 7, "c": 7}
    assert [items for _, items in workers.started] == [tuple("abcabcabc"), tuple("cac")]


@pytest.mark.parametrize("option", ["--lf", "--stepwise", "--last-failed"])
def test_the_cache_of_pytest_is_left_to_the_main_process(option: str, tmp_path: Path) -> None:
    arm = bench_arm("process 2", ["bench", option, "-k", "cat"], tmp_path)
    assert arm.args == ("bench", "-k", "cat")
    assert set(arm.path) <= {*sys.path, str(tmp_path)}


@pytest.mark.slow
def test_a_real_run_measures_in_real_processes(tmp_path: Path) -> None:
    """The whole path: our bench on random weights, two processes that come back, files only where they belong."""
    root = Path(__file__).parents[2]
    words = [
        "-k",
        "latency and (chelsea or camera)",
        "--segcore-model=embedded",
        "--segcore-size=32",
        "--segcore-weights=random",
    ]
    words += ["--segcore-offline", "--segcore-wait=0", "--benchmark-max-time=0.05", "--benchmark-only"]
    words += ["--segcore-processes=2", f"--benchmark-json={tmp_path / 'run.json'}", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", str(root / "bench"), f"--segcore-cases={root / 'cases'}", *words]
    environment = {**os.environ, **ALONE}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "run.json").read_bytes())
    items = load_run(tmp_path / "run.json").benchmarks
    assert len(items) == 2
    for item, entry in zip(items, document["benchmarks"], strict=True):
        assert len(item.samples) > 1  # so that a process comes back
        assert [len(process) for process in item.processes] == [len(item.samples)] * 2
        assert [len(times) for times in item.references] == [len(item.samples)] * 2
        assert entry["stats"]["data"] == list(item.samples)
    assert {path.name for path in tmp_path.iterdir()} <= {"run.json", "reports"}
