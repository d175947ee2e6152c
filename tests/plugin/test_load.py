"""Load items in whole bench runs, most of them by a clock that only queries advance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segcore.core.records import Benchmark, LoadRecord, Run
from segcore.inference.pipeline import Segmenter
from segcore.measurement.load.driver import SystemClock
from segcore.measurement.load.search import MAX_RUNS
from segcore.results.store import load_run, save_run
from tests.support.bench_project import QUICK
from tests.support.fakes import FakeClock

pytest_plugins = ["pytester"]

SERVER = ("--segcore-scenario=server",)


def saved(where: Path) -> Run:
    (path,) = where.glob("reports/runs/*/0001_*.json")
    return load_run(path)


def bench(pytester: pytest.Pytester, *arguments: object, **options: Any) -> pytest.RunResult:
    arguments = ("bench/test_load.py", "--benchmark-save=x", *QUICK, *arguments)
    return pytester.runpytest_inprocess(*map(str, arguments), **options)


def measured(where: Path) -> tuple[Benchmark, LoadRecord]:
    (benchmark,) = saved(where).benchmarks
    assert benchmark.info.load is not None
    return benchmark, benchmark.info.load


@pytest.fixture
def tenth(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    """A machine that takes a tenth of a second per photo, by a clock that stands still otherwise."""
    clock = FakeClock()
    monkeypatch.setattr(SystemClock, "now", staticmethod(clock.now))
    monkeypatch.setattr(SystemClock, "sleep", staticmethod(clock.sleep))
    run = Segmenter.run
    results: dict[int, Any] = {}

    def run_once(self: Segmenter, photos: Any, *args: Any, **options: Any) -> Any:
        clock.time += 0.1 * len(photos)
        if len(photos) not in results:
            results[len(photos)] = run(self, photos, *args, **options)
        return results[len(photos)]

    monkeypatch.setattr(Segmenter, "run", run_once)
    return clock


@pytest.mark.slow
def test_there_are_no_load_items_without_a_scenario(where: Path, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess("bench/", "--benchmark-disable", *QUICK)
    done.assert_outcomes(passed=15)
    done = pytester.runpytest_inprocess("bench/test_load.py", *QUICK)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "--segcore-scenario" in done.stderr.str()


def test_a_fixture_of_the_same_name_is_left_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def load_item():
            return 17

        def test_theirs(load_item):
            assert load_item == 17
        """
    )
    pytester.runpytest_inprocess(*QUICK).assert_outcomes(passed=1)


@pytest.mark.slow
def test_each_scenario_is_an_item(where: Path, pytester: pytest.Pytester, tenth: FakeClock) -> None:
    scenarios = [f"--segcore-scenario={name}" for name in ("offline", "single-stream", "multi-stream", "server")]
    done = bench(
        pytester, *scenarios, "--segcore-queries=4", "--segcore-streams=2", "--segcore-batch=3", "--segcore-rate=1"
    )
    done.assert_outcomes(passed=4)
    run = saved(where)
    item = "load[red-embedded-torch-cpu-32"  # the case tagged `speed`, at its smallest size
    assert [b.info.key for b in run.benchmarks] == [
        f"{item}-b3-offline]",
        f"{item}-single-stream]",
        f"{item}-b2-multi-stream]",
        f"{item}-server]",
    ]
    assert [b.info.batch for b in run.benchmarks] == [3, 1, 2, 1]
    for benchmark, seconds in zip(run.benchmarks[:3], (0.3, 0.1, 0.2), strict=True):
        assert benchmark.samples == pytest.approx([seconds] * 4)
        assert benchmark.info.load is not None
        assert benchmark.info.load.images_per_s == pytest.approx(10)
        assert benchmark.info.load.validity is None
    assert {o.key for o in run.record.outcomes} == {b.info.key for b in run.benchmarks}
    text = done.stdout.str()
    assert "4 load on cpu" in text
    assert all(name in text for name in ("offline 3", "single-stream", "multi-stream 2", "server"))


@pytest.mark.slow
def test_percentiles_are_bounded_where_there_are_enough_queries(
    where: Path, pytester: pytest.Pytester, tenth: FakeClock
) -> None:
    bench(pytester, "--segcore-scenario=single-stream", "--segcore-queries=64").assert_outcomes(passed=1)
    benchmark, load = measured(where)
    assert load.bounds_s == {"p50": pytest.approx(0.1), "p90": max(benchmark.samples)}
    assert (load.queries, benchmark.info.weights.name) == (64, "constant")


@pytest.mark.slow
def test_server_queries_arrive_by_seed(where: Path, pytester: pytest.Pytester, tenth: FakeClock) -> None:
    found = []
    for number, seed in enumerate((1, 1, 2), 1):
        tenth.time = 0.0
        bench(pytester, *SERVER, "--segcore-rate=8", "--segcore-queries=50", f"--segcore-seed={seed}")
        (path,) = where.glob(f"reports/runs/*/000{number}_*.json")
        found.append(load_run(path).benchmarks[0].samples)
    assert found[0] == pytest.approx(found[1])
    assert found[0] != pytest.approx(found[2])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "validity", "words"),
    [
        ((*SERVER, "--segcore-rate=1", "--segcore-max-p99-ms=1000"), 0, "valid", "valid"),
        (
            (*SERVER, "--segcore-rate=1", "--segcore-max-p99-ms=1000", "--segcore-queries=458"),
            1,
            "undecided",
            "0 of 458 queries were late at 1 queries/s; 1 more",
        ),
        ((*SERVER, "--segcore-rate=5", "--segcore-max-p99-ms=110"), 1, "invalid", "was not kept"),
        (
            (*SERVER, "--segcore-rate=11", "--segcore-max-p99-ms=1e9"),
            1,
            "invalid",
            "exceed the capacity",
        ),
        ((*SERVER, "--segcore-rate=11"), 0, None, "server"),
        ((*SERVER, "--segcore-max-p99-ms=1000", "--segcore-duration=0.1"), 0, "valid", "valid"),
        ((*SERVER, "--segcore-max-p99-ms=99"), 1, "invalid", "no rate keeps the p99 of 99 ms"),
    ],
)
def test_the_limit_decides_whether_the_item_passes(
    where: Path,
    pytester: pytest.Pytester,
    tenth: FakeClock,
    arguments: tuple[str, ...],
    code: int,
    validity: str | None,
    words: str,
) -> None:
    done = bench(pytester, *arguments)
    assert done.ret == code
    benchmark, load = measured(where)
    assert load.validity == validity
    assert words in done.stdout.str()
    assert len(benchmark.samples) > 0


@pytest.mark.slow
def test_a_search_records_every_rate(where: Path, pytester: pytest.Pytester, tenth: FakeClock) -> None:
    done = bench(pytester, *SERVER, "--segcore-max-p99-ms=500")
    benchmark, load = measured(where)
    assert load.highest_rate is not None
    assert load.lowest_failed_rate is not None
    assert 2 <= len(load.trials) <= MAX_RUNS
    assert {trial.validity for trial in load.trials if trial.rate > load.highest_rate}.isdisjoint({"valid"})
    (best,) = (trial for trial in load.trials if trial.rate == load.highest_rate)
    assert len(best.latencies_s) == load.queries >= 662
    assert load.bounds_s["p99"] <= 0.5
    assert load.images_per_s == pytest.approx(load.highest_rate, rel=0.1)
    assert benchmark.samples == pytest.approx([0.1] * 64)  # served one by one
    assert f"{load.highest_rate:.3g}" in done.stdout.str()


@pytest.mark.slow
def test_load_items_are_judged_like_latency(
    where: Path, pytester: pytest.Pytester, tenth: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    monkeypatch.setattr(SystemClock, "now", staticmethod(lambda: tenth.time + 0.01 * rng.random()))
    arguments = ("--segcore-scenario=single-stream", "--segcore-queries=64")
    bench(pytester, *arguments).assert_outcomes(passed=1)
    run = saved(where)
    faster = tuple(0.5 * sample for sample in run.benchmarks[0].samples)
    baseline = where / "faster.json"
    save_run(
        run.model_copy(
            update={"path": baseline, "benchmarks": (run.benchmarks[0].model_copy(update={"samples": faster}),)}
        )
    )
    done = pytester.runpytest_inprocess("bench/test_load.py", *arguments, *QUICK, f"--segcore-baseline={baseline}")
    assert done.ret == 1
    assert "regressed" in done.stdout.str()


@pytest.mark.slow
def test_an_interrupted_item_keeps_what_it_measured(
    where: Path, pytester: pytest.Pytester, tenth: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Segmenter.run

    def interrupted(self: Segmenter, photos: Any, *args: Any, **options: Any) -> Any:
        if tenth.time > 5:
            raise KeyboardInterrupt
        return run(self, photos, *args, **options)

    monkeypatch.setattr(Segmenter, "run", interrupted)
    done = bench(pytester, "--segcore-scenario=single-stream", no_reraise_ctrlc=True)
    assert done.ret == pytest.ExitCode.INTERRUPTED
    benchmark, load = measured(where)
    assert not saved(where).record.complete
    assert len(benchmark.samples) == load.queries > 40


@pytest.mark.slow
def test_disabled_benchmarks_serve_one_query(where: Path, pytester: pytest.Pytester) -> None:
    done = bench(pytester, *SERVER, "--segcore-max-p99-ms=9", "--benchmark-disable", "-W", "error")
    done.assert_outcomes(passed=1)
    assert saved(where).benchmarks == ()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--segcore-scenario=sever",), "did you mean 'server'"),
        (SERVER, "--segcore-scenario server needs --segcore-rate"),
        (
            ("--segcore-scenario=offline", "--segcore-rate=2"),
            "--segcore-rate applies only to --segcore-scenario server",
        ),
        (("--segcore-max-p99-ms=2",), "--segcore-max-p99-ms applies only to --segcore-scenario server"),
        (
            ("--segcore-scenario=single-stream", "--segcore-streams=2"),
            "--segcore-streams applies only to --segcore-scenario multi-stream",
        ),
        ((*SERVER, "--segcore-max-p99-ms=9", "--segcore-queries=458"), "wanted at least 459"),
        ((*SERVER, "--segcore-rate=1", "--segcore-max-p99-ms=nan"), "'nan': wanted a positive number"),
        (("--segcore-scenario=offline", "--segcore-duration=inf"), "'inf': wanted a positive number"),
        ((*SERVER, "--segcore-rate=1e9"), "a run of 10,000,000,000 queries"),
        ((*SERVER, "--segcore-rate=0"), "'0': wanted a positive number"),
        (("--segcore-scenario=offline", "--segcore-queries=0"), "'0': wanted a whole number, at least 1"),
        (("--segcore-scenario=offline", "--segcore-queries=2", "--segcore-duration=3"), "choose one"),
    ],
)
def test_bad_options_are_one_line(
    where: Path, pytester: pytest.Pytester, arguments: tuple[str, ...], words: str
) -> None:
    done = pytester.runpytest_inprocess("bench/test_load.py", *arguments, *QUICK)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert words in done.stderr.str()
    assert "Traceback" not in done.stderr.str() + done.stdout.str()
