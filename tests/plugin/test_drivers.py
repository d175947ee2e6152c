"""pytest driven in unusual ways: other plugins, repetitions, interruptions, runs that execute nothing."""

from __future__ import annotations

import importlib.util
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

# pytester forgets modules that an inner run was the first to import, and torch cannot be imported twice.
import segcore.plugin.hooks
import segcore.report.html
import segcore.results.store
from segcore.core.errors import OutputError
from segcore.core.records import Run
from segcore.results.store import journal_path, load_run
from tests.support.bench_project import QUICK, fake_calibration
from tests.support.factories import make_run
from tests.support.hostile import CI_COMMAND

pytest_plugins = ["pytester"]

LATENCY = ("bench/test_latency.py", "--segcore-size=32", *QUICK)


def needs(package: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not importlib.util.find_spec(package), reason=f"needs {package}")


def files(where: Path) -> set[str]:
    return {str(path.relative_to(where)) for path in where.glob("reports/**/*") if path.is_file()}


def only_run(where: Path) -> Run:
    (path,) = where.glob("reports/runs/*/*.json")
    return load_run(path)


@pytest.mark.parametrize("listing", ["--collect-only", "--setup-plan", "--setup-only"])
@pytest.mark.parametrize("save", [(), ("--benchmark-save=x",), ("--benchmark-json=reports/copy.json",)])
def test_a_run_that_executes_nothing_writes_and_deletes_nothing(
    where: Path, pytester: pytest.Pytester, listing: str, save: tuple[str, ...]
) -> None:
    kept = where / "reports/runs/unsaved/red.png"
    kept.parent.mkdir(parents=True)
    kept.write_text("of the last run")
    done = pytester.runpytest_inprocess("bench/", listing, *save, "-W", "error", *QUICK)
    assert done.ret == pytest.ExitCode.OK
    assert files(where) == {"reports/runs/unsaved/red.png"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plugins", "code"),
    [
        (["pytest_benchmark.plugin", "segcore.pytest_plugin"], 0),
        (["segcore.pytest_plugin", "pytest_benchmark.plugin"], 0),
        (["segcore.pytest_plugin"], 4),
    ],
)
def test_plugins_can_be_named_instead_of_found(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, plugins: list[str], code: int
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    options = [word for plugin in plugins for word in ("-p", plugin)]
    done = pytester.runpytest_inprocess("bench/test_accuracy.py", *options, "-p", "no:cacheprovider")
    assert done.ret == code
    assert "Traceback" not in done.stderr.str()
    if code:
        assert "-p pytest_benchmark.plugin" in done.stderr.str()


RETRY = """
import pytest

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    '''Execute every test twice, as pytest-rerunfailures does it.'''
    from _pytest.runner import runtestprotocol
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    runtestprotocol(item, nextitem=nextitem, log=False)
    item._initrequest()
    runtestprotocol(item, nextitem=nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True
"""
REPEAT = """
import pytest

@pytest.fixture
def __pytest_repeat_step_number(request): return request.param

def pytest_generate_tests(metafunc):
    '''Make two tests of each, as pytest-repeat does it.'''
    metafunc.fixturenames.append("__pytest_repeat_step_number")
    metafunc.parametrize("__pytest_repeat_step_number", range(2), indirect=True, ids=["1-2", "2-2"])
"""


@pytest.mark.slow
@pytest.mark.parametrize("driver", [RETRY, REPEAT], ids=["retry", "repeat"])
@pytest.mark.parametrize("first_fails", [False, True])
def test_of_an_item_that_is_executed_twice_the_last_execution_counts(
    where: Path, pytester: pytest.Pytester, driver: str, first_fails: bool
) -> None:
    pytester.makeconftest(driver)
    (where / "bench" / "test_latency.py").write_text(
        f"""
tries = {{}}
def test_latency(latency_item, benchmark):
    latency_item.warm_up()
    tries[latency_item.plan.key] = tries.get(latency_item.plan.key, 0) + 1
    benchmark.pedantic(latency_item, rounds=2 + tries[latency_item.plan.key])
    assert tries[latency_item.plan.key] > {int(first_fails)}
"""
    )
    (where / "bench" / "test_accuracy.py").write_text("def test_accuracy(accuracy_item): accuracy_item.check()\n")
    pytester.runpytest_inprocess("bench/", "-k", "not throughput", "--benchmark-save=x", *QUICK)
    run = only_run(where)
    assert run.record.complete
    assert [o.outcome for o in run.record.outcomes] == ["passed"] * 6
    assert [len(b.samples) for b in run.benchmarks if b.info.kind == "latency"] == [4] * 3
    assert sum(b.info.kind == "accuracy" for b in run.benchmarks) == 3


@pytest.mark.slow
def test_an_execution_that_measures_nothing_replaces_one_that_did(where: Path, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(RETRY)
    (where / "bench" / "test_latency.py").write_text(
        "tries = []\n"
        "def test_latency(latency_item, benchmark):\n"
        "    tries.append(1)\n"
        "    assert len(tries) == 1\n"
        "    benchmark(latency_item)\n"
    )
    assert pytester.runpytest_inprocess(*LATENCY, "--segcore-case=red", "--benchmark-save=x").ret == 1
    run = only_run(where)
    assert run.benchmarks == ()
    assert [o.outcome for o in run.record.outcomes] == ["failed"]


def test_parametrised_tests_of_one_item_are_not_repetitions(where: Path, pytester: pytest.Pytester) -> None:
    (where / "bench" / "test_latency.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('x', [1, 2])\n"
        "def test_latency(latency_item, benchmark, x): benchmark(latency_item)\n"
    )
    done = pytester.runpytest_inprocess(*LATENCY)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "would be measured twice" in done.stderr.str()


@pytest.mark.parametrize("target", ["collect.Collector.items", "session.fingerprint"])
@pytest.mark.parametrize("save", [(), ("--segcore-baseline=none?",)])
def test_what_the_system_refuses_is_a_usage_error_before_anything_runs(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, target: str, save: tuple[str, ...]
) -> None:
    def refuse(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(f"segcore.plugin.{target}", refuse)
    done = pytester.runpytest_inprocess(*LATENCY, *save)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "ulimit -v" in done.stderr.str()
    assert "Traceback" not in done.stderr.str()
    assert files(where) == set()


def test_a_bad_case_is_named_also_if_there_is_a_baseline(where: Path, pytester: pytest.Pytester) -> None:
    (where / "cases" / "all.yaml").write_text("nonsense: 1")
    done = pytester.runpytest_inprocess(*LATENCY, "--segcore-baseline=x")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "all.yaml" in done.stderr.str()


@pytest.mark.slow
def test_pytest_runs_in_another_thread(where: Path, pytester: pytest.Pytester) -> None:
    with ThreadPoolExecutor(1) as threads:
        assert threads.submit(pytest.main, [*LATENCY, "--benchmark-save=x"]).result() == 0
    assert only_run(where).record.complete


@pytest.mark.parametrize("hook", ["runtestloop(session)", "runtest_protocol(item)"])
def test_a_run_that_executes_none_of_its_items_is_no_pass(where: Path, pytester: pytest.Pytester, hook: str) -> None:
    make_run(where, "base", models=("embedded",))
    pytester.makeconftest(f"def pytest_{hook}: return True")
    done = pytester.runpytest_inprocess(*LATENCY, "--segcore-baseline=base.json")
    assert done.ret == 1
    assert "FAILED" in done.stdout.str()


def test_two_fixtures_in_one_test_are_refused(where: Path, pytester: pytest.Pytester) -> None:
    (where / "bench" / "test_latency.py").write_text("def test_latency(latency_item, accuracy_item): pass")
    done = pytester.runpytest_inprocess(*LATENCY)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "test_latency" in done.stderr.str()


def test_an_error_that_cannot_say_what_it_is_is_that_of_its_item(where: Path, pytester: pytest.Pytester) -> None:
    (where / "bench" / "test_latency.py").write_text(
        "class Odd(Exception):\n"
        "    def __str__(self): return 1 / 0\n"
        "def test_latency(latency_item, benchmark):\n"
        "    benchmark(latency_item)\n"
        "    raise Odd\n"
    )
    assert pytester.runpytest_inprocess(*LATENCY, "--benchmark-save=x").ret == 1
    assert {(o.outcome, o.reason) for o in only_run(where).record.outcomes} == {("error", "Odd")}


@pytest.mark.parametrize(
    ("path", "code"), [("/dev/null", 0), ("/dev/full", 2), ("/dev/stdout", 0), ("pipe", 0), ("bench", 4)]
)
@pytest.mark.parametrize("save", [(), ("--benchmark-save=x",)])
def test_a_copy_of_the_run_may_be_a_stream(
    where: Path, pytester: pytest.Pytester, path: str, code: int, save: tuple[str, ...]
) -> None:
    os.mkfifo(where / "pipe")
    reader = os.open(where / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    options = (f"--benchmark-json={path}", "-k", "not throughput and not load", *save)
    try:
        assert pytester.runpytest_inprocess("bench", "--segcore-size=32", *options, *QUICK).ret == code
        if path == "pipe":
            assert json.loads(os.read(reader, 1 << 20))["segcore"]["complete"]  # once
    finally:
        os.close(reader)
    kept = [load_run(path) for path in where.glob("reports/runs/**/*.json")]
    assert [run.record.complete for run in kept] == [True] * (code != 4)
    assert not list(Path("/dev").glob("*.json*"))


def test_a_run_that_cannot_be_written_is_shown_and_judged(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, document: object) -> None:
        raise OutputError(f"{path}: cannot be written: No space left on device")

    make_run(where, "base", models=("embedded",))
    monkeypatch.setattr("segcore.plugin.session.save_document", full)
    for options, code in (((), 2), (("--segcore-baseline=base.json",), 2)):
        done = pytester.runpytest_inprocess(*LATENCY, *options)
        assert done.ret == code
        done.stdout.fnmatch_lines(["Latency, ms*", "*NOT written*No space*"])
    assert "segcore gate" in done.stdout.str()


FORK = """
import os
import signal
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    child = os.fork()
    if not child:
        signal.alarm(30)  # a lock that a thread of the parent held at the fork would never be released
        runtestprotocol(item, nextitem=nextitem, log=False)
        os._exit(0)
    os.waitpid(child, 0)
    return True
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_an_item_that_another_process_executes_is_not_recorded(where: Path, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(FORK)
    pytester.runpytest_inprocess(*LATENCY, "--benchmark-save=x", "-W", "ignore")
    assert files(where) == set()


EVIL = "::error::owned ##vso[task.setvariable variable=a]b \x1b[2J\u202e"


@pytest.mark.parametrize(
    ("case", "options"),
    [
        (f"skip_reason: {json.dumps(EVIL)}", ()),
        (f"tags: {json.dumps(EVIL)}", ()),
        (f"{json.dumps(EVIL)}: 1", ()),
        (f"image: {json.dumps({'path': EVIL})}", ()),
        ("", ("--segcore-baseline=evil.json",)),
    ],
)
def test_text_of_strangers_runs_no_command(
    where: Path, pytester: pytest.Pytester, case: str, options: tuple[str, ...]
) -> None:
    document = json.loads(make_run(where, "evil", models=("embedded",)).path.read_bytes())
    document["benchmarks"][0]["stats"]["data"][0] = EVIL
    (where / "evil.json").write_text(json.dumps(document))
    image = "" if case.startswith("image") else "image: {path: red.png}\n"
    (where / "cases" / "all.yaml").write_text(f"name: red\n{image}models: [embedded]\nsizes: [32]\n{case}\n")
    done = pytester.runpytest_inprocess(*LATENCY, *options)
    for text in (done.stdout.str(), done.stderr.str()):
        assert not CI_COMMAND.search(text)
        assert "\x1b" not in text
        assert "\u202e" not in text


@needs("xdist")
@pytest.mark.slow
def test_the_controller_of_xdist_ends_with_what_its_worker_refuses(where: Path, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess(*LATENCY, "-n1", "-W", "ignore")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert "pytest-xdist" in done.stderr.str()
    assert not (where / "reports").exists()


@pytest.mark.slow
@pytest.mark.parametrize("when", ["calibrate", "load"])
def test_an_interruption_before_the_first_result_saves_nothing(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    target = "segcore.plugin.session.calibrate" if when == "calibrate" else "segcore.inference.models.load"
    (where / "reports/runs").mkdir(parents=True)
    (where / "reports/runs/unsaved.json").write_text("the last run")
    monkeypatch.setattr(target, interrupt)
    for save in ((), ("--benchmark-save=x",)):
        done = pytester.runpytest_inprocess(*LATENCY, *save, no_reraise_ctrlc=True)
        assert done.ret == pytest.ExitCode.INTERRUPTED
        assert files(where) == {"reports/runs/unsaved.json"}
        assert (where / "reports/runs/unsaved.json").read_text() == "the last run"
        assert not list(where.glob("reports/runs/*/0001_x"))
    monkeypatch.undo()


def test_the_journal_keeps_what_the_run_file_does_not_have_yet(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is killed while it writes a line."""
    (where / "reports/runs").mkdir(parents=True)
    stale = journal_path(where / "reports/runs/unsaved.json")
    stale.write_text(json.dumps({"started": "long ago", "benchmarks": [], "outcome": None}) + "\n")
    monkeypatch.setattr(segcore.plugin.session.BenchSession, "finish", lambda self: None)
    pytester.runpytest_inprocess("bench/", "--segcore-size=32", "-k", "not throughput", *QUICK)
    path = where / "reports/runs/unsaved.json"
    assert len(json.loads(path.read_bytes())["benchmarks"]) == 1
    with journal_path(path).open("a") as file:
        file.write('{"started": "202')
    run = load_run(path)
    assert len(run.benchmarks) == len(run.record.outcomes) == 4
    assert not run.record.complete
    assert fake_calibration(segcore.inference.devices.open_device("cpu")) in run.record.calibration
    assert (path.parent / "unsaved").is_dir()
