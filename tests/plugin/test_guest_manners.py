"""Ways in which pytest, its marks and its plugins drive or shadow items of ours: each is right, or a clear error.

Rows of plugins that are not installed are skipped; `pip install --group guests` has them all.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from segcore.results.store import load_run

pytest_plugins = ["pytester"]

FAST = "--segcore-case=red --segcore-size=32 --benchmark-max-time=0.001 --benchmark-min-rounds=2 -W default"
PLUGINS = "-p pytest_benchmark.plugin -p segcore.pytest_plugin"
BOTH = ("accuracy", "latency")


@dataclass(frozen=True)
class Way:
    """One way to run a bench of an accuracy and a latency item, and what comes of it."""

    name: str
    args: str = ""
    plugin: str = ""
    """Modules of plugins, separated by spaces, without which the row is skipped."""
    code: int = 0
    says: str = ""
    """Part of the output."""
    recorded: tuple[str, ...] | None = BOTH
    """Kinds of items in the run file; None if nothing was recorded."""
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)


def runs(args: str, *recorded: str, **more: str) -> Way:
    return Way(args, args, recorded=recorded or BOTH, **more)  # type: ignore[arg-type]


def refused(args: str, says: str, plugin: str = "", code: int = 4, **files: str) -> Way:
    way = Way(f"refused: {args} {plugin}", args, plugin, code, says, None)
    return replace(way, files={f"{name}.py": text for name, text in files.items()})


def lists(args: str) -> Way:
    return Way(args, args, recorded=None)


def timed(name: str, head: str = "", argument: str = "", tail: str = "", **more: object) -> Way:
    """Return a way to write the latency test: what precedes it, one more argument, and what follows the measurement."""
    body = f"    latency_item.warm_up()\n    benchmark(latency_item)\n    {tail or 'pass'}\n"
    kind = "async def" if head.endswith("async") else "def"
    return written(
        name, f"{head.removesuffix('async')}\n{kind} test_it(latency_item, benchmark, {argument}):\n{body}", **more
    )


def written(name: str, module: str, **more: object) -> Way:
    return Way(name, files={"bench/test_latency.py": f"import pytest\n{module}\n"}, **more)  # type: ignore[arg-type]


def conftest(name: str, module: str, **more: object) -> Way:
    return Way(name, files={"conftest.py": f"import pytest\n{module}\n"}, **more)  # type: ignore[arg-type]


ACCURACY = ("accuracy",)
NO_ARGUMENT = "wanted as an argument of a test function"
BAD_SETTING = "(_ for _ in ()).throw(ValueError('\\nInvalid log settings: nonsense'))"
UNUSED = "fixture was not used at all"

COMMAND_LINE = (
    runs("-v -s -rA --tb=native -l --durations=3 --color=yes --strict-markers --strict-config --full-trace"),
    runs("-qq --tb=line --no-header --no-summary --capture=tee-sys --show-capture=no --keep-duplicates -x"),
    runs("--ff --nf --runxfail --import-mode=importlib --assert=plain --setup-show --maxfail=1"),
    runs("--lf --sw --import-mode=append --capture=sys --log-cli-level=DEBUG --log-file=log -o addopts= --basetemp=t"),
    runs("--rootdir=. --confcutdir=bench --noconftest --continue-on-collection-errors --trace-config"),
    runs("-W error -W 'ignore:Module already imported'"),  # pytest's own, because the outer pytest has the plugin
    runs("--benchmark-json=out.json --benchmark-autosave --benchmark-disable-gc --benchmark-verbose"),
    runs("--benchmark-save=x --benchmark-cprofile=tottime --benchmark-timer=time.time --benchmark-warmup=on"),
    runs("--pyargs bench.test_accuracy bench.test_latency --benchmark-quiet"),
    runs("bench/test_latency.py bench"),
    runs("-p segcore.pytest_plugin -p no:terminal"),
    runs("-p no:capture -p no:assertion -p no:skipping -p no:logging -p no:cacheprovider"),
    runs("-p no:setuponly -p no:setupplan -p no:tmpdir -p no:warnings -p no:junitxml -p no:faulthandler"),
    runs("-k latency", "latency"),
    runs("--deselect=bench/test_latency.py", "accuracy"),
    runs("--ignore=bench/test_latency.py", "accuracy"),
    runs("--benchmark-only", "latency"),
    runs("--benchmark-skip", "accuracy"),
    runs("--benchmark-disable", "accuracy"),
    *map(lists, ("--collect-only", "--setup-plan", "--setup-only", "--fixtures", "--fixtures-per-test", "--markers")),
    refused("-k nothing", "deselected", code=5),
    refused("--rootdir=cases", "--segcore-cases DIR"),
    refused("--segcore-baseline=x -k nothing", "nothing to judge"),
    Way("PYTEST_ADDOPTS", env={"PYTEST_ADDOPTS": "-k latency -v"}, recorded=("latency",)),
    conftest("pytest_plugins", "pytest_plugins = ['segcore.pytest_plugin', 'pytest_benchmark.plugin']"),
)

TESTS = (
    *(
        timed(f"mark {mark}", f"@pytest.mark.{mark}")
        for mark in ("skipif(False, reason='no')", "usefixtures('tmp_path')")
    ),
    timed("mark filterwarnings", "@pytest.mark.filterwarnings('error')"),
    timed("mark benchmark", "@pytest.mark.benchmark(group='g', min_rounds=2, max_time=0.01, warmup=True)"),
    timed("mark skip", "@pytest.mark.skip(reason='why')", recorded=ACCURACY),
    timed("mark xfail", "@pytest.mark.xfail"),
    timed("mark xfail, strict", "@pytest.mark.xfail(strict=True)", code=1, says="XPASS(strict)"),
    timed("mark xfail, not run", "@pytest.mark.xfail(run=False)", recorded=ACCURACY),
    timed("parametrize once", "@pytest.mark.parametrize('x', [1])", "x"),
    timed("parametrize never", "@pytest.mark.parametrize('x', [])", "x", recorded=ACCURACY),
    timed("parametrize", "@pytest.mark.parametrize('x', [1, 2])", "x", code=4, recorded=None, says="measured twice"),
    timed(
        "indirect", "@pytest.mark.parametrize('latency_item', [1], indirect=True)", code=2, recorded=None, says="dupl"
    ),
    *(
        timed("subtest", argument="subtests", tail="with subtests.test(): assert 0", code=1)
        for _ in range(pytest.version_tuple >= (9,))  # which has the fixture
    ),
    timed("no coroutines", "async", code=1, recorded=ACCURACY, says="async def functions are not natively supported"),
    written("class", "class TestIt:\n  def test_it(self, latency_item, benchmark): benchmark(latency_item)"),
    written("pedantic", "def test_it(latency_item, benchmark): benchmark.pedantic(latency_item, rounds=2)"),
    written(
        "cannot be imported until a setting is mended",
        f"from segcore.core.lazy import Lazy\nLazy(1, lambda _: {BAD_SETTING})[0]",
        code=4,
        recorded=None,
        says="nonsense; unset TORCH_LOGS",
    ),
    written("fails with what segcore knows", BAD_SETTING, code=2, recorded=None, says="1 error"),
    written("not measured", "def test_it(latency_item): pass", recorded=ACCURACY, says=UNUSED),
    written(
        "usefixtures", "@pytest.mark.usefixtures('latency_item')\ndef test_it(): 1", recorded=ACCURACY, says=UNUSED
    ),
    written(
        "fixture of a fixture",
        "@pytest.fixture\ndef it(latency_item): return latency_item\ndef test_it(it, benchmark): benchmark(it)",
    ),
    written(
        "fixture of a module",
        "@pytest.fixture(scope='module')\ndef it(latency_item): return latency_item\ndef test_it(it): pass",
        code=1,
        recorded=ACCURACY,
        says="ScopeMismatch",
    ),
    *(
        written(code.partition(":")[0], code, code=1, recorded=ACCURACY, says=NO_ARGUMENT)
        for code in (
            "def test_it(request): request.getfixturevalue('latency_item')",
            "@pytest.mark.usefixtures('latency_item')\n"
            "class TestIt(__import__('unittest').TestCase):\n  def test_it(self): 1",
        )
    ),
)

HOOKS = (
    conftest("shadows latency_item", "@pytest.fixture\ndef latency_item(): pass", code=1, recorded=ACCURACY),
    conftest("extends latency_item", "@pytest.fixture\ndef latency_item(latency_item): return latency_item"),
    conftest(
        "shadows benchmark",
        "@pytest.fixture\ndef benchmark(): return lambda call: call()",
        code=4,
        recorded=None,
        says="but conftest replaces it: rename it",
    ),
    conftest("extends benchmark", "@pytest.fixture\ndef benchmark(benchmark): return benchmark"),
    conftest(
        "wraps benchmark",
        "@pytest.fixture\ndef benchmark(benchmark): return lambda call: benchmark(call)",
        code=1,
        recorded=ACCURACY,
        says="benchmark: wanted the fixture of pytest-benchmark",
    ),
    conftest("autouse", "@pytest.fixture(autouse=True)\ndef there(tmp_path, monkeypatch): monkeypatch.chdir(tmp_path)"),
    conftest("reverses", "def pytest_collection_modifyitems(items): items.reverse()"),
    conftest("renames", "def pytest_itemcollected(item): item._nodeid = item.name"),
    conftest("skips", "def pytest_runtest_setup(item): pytest.skip('why')", recorded=None),
    conftest("moves", "import os\ndef pytest_runtest_setup(): os.chdir('/')"),
    conftest("calls nothing", "def pytest_pyfunc_call(): return True", recorded=None, says=UNUSED),
    conftest("runs nothing", "def pytest_runtest_protocol(): return True", recorded=None),
    conftest("adds to the file", "def pytest_benchmark_update_json(output_json): output_json['x'] = 1"),
    conftest(
        "empties the file", "def pytest_benchmark_update_json(output_json): output_json.clear()", code=2, recorded=None
    ),
)

FAKE = "def pytest_addoption(parser): parser.addoption('--{}', action='store_true')"
OTHERS = (
    *(runs(args, plugin="xdist") for args in ("-n0", "--dist=no", "")),
    conftest(
        "in a worker of xdist",
        "def pytest_configure(config): config.workerinput = {}\n",
        code=4,
        recorded=None,
        says="pytest-xdist",
    ),
    conftest(
        "other tests in a worker of xdist",
        "def pytest_configure(config): config.workerinput = {}\n",
        args="-k nothing",
        code=5,
        recorded=None,
    ),
    refused("-p pytest_forked --forked", "drop `--forked`", pytest_forked=FAKE.format("forked")),
    refused("-p pytest_memray --memray", "drop `--memray`", pytest_memray=FAKE.format("memray")),
    refused("--forked", "drop `--forked`", "pytest_forked"),
    refused("--parallel-threads=2", "drop `--parallel-threads`", "pytest_run_parallel.plugin"),
    refused("--profile", "drop `--profile`", "pytest_profiling"),
    refused("--memray", "drop `--memray`", "pytest_memray.plugin"),
    refused("--codspeed", "drop `--codspeed`", "pytest_codspeed.plugin"),
    timed(
        "mark limit_memory",
        "@pytest.mark.limit_memory('9 GB')",
        plugin="pytest_memray.plugin",
        code=4,
        recorded=None,
        says="marker `limit_memory`",
    ),
    timed(
        "mark freeze_time",
        "@pytest.mark.freeze_time('2020-01-01')",
        plugin="pytest_freezer",
        code=1,
        recorded=ACCURACY,
        says="perf_counter() stands still",
    ),
    timed("freezer", argument="freezer", plugin="pytest_freezer", code=1, recorded=ACCURACY, says="stands still"),
    timed("mark flaky", "@pytest.mark.flaky(reruns=1)", plugin="pytest_rerunfailures"),
    timed("check", argument="check", tail="check.equal(1, 2)", plugin="pytest_check.plugin", code=1),
    timed(
        "subtests", argument="subtests", tail="with subtests.test(): assert 0", plugin="pytest_subtests.plugin", code=1
    ),
    timed(
        "timeout",
        tail="import time; time.sleep(9)",
        args="--timeout=0.7",
        plugin="pytest_timeout",
        code=1,
        recorded=BOTH,
    ),
    timed("mocker", argument="mocker", plugin="pytest_mock"),
    timed("asyncio", "async", args="--asyncio-mode=auto", plugin="pytest_asyncio.plugin"),
    timed("anyio", "@pytest.mark.anyio\nasync", "anyio_backend_name", plugin="anyio.pytest_plugin"),
    timed("order", "@pytest.mark.order(1)", plugin="pytest_order.plugin", recorded=("latency", "accuracy")),
    timed("dependency", "@pytest.mark.dependency(depends=['x'])", plugin="pytest_dependency", recorded=ACCURACY),
    written(
        "lazy fixture",
        "from pytest_lazy_fixtures import lf\n"
        "@pytest.mark.parametrize('it', [lf('latency_item')])\n"
        "def test_it(it): pass",
        plugin="pytest_lazy_fixtures.plugin",
        code=1,
        recorded=ACCURACY,
        says=NO_ARGUMENT,
    ),
    runs("--reruns=1", plugin="pytest_rerunfailures"),
    runs("--force-flaky --max-runs=2 --min-passes=2", plugin="flaky.flaky_pytest_plugin"),
    runs("--count=2 --repeat-scope=session", plugin="pytest_repeat"),
    runs("--flake-finder --flake-runs=2", plugin="pytest_flakefinder"),
    runs("--retries=1", plugin="pytest_retry.retry_plugin"),
    runs("--cov=bench --cov-report=", plugin="pytest_cov.plugin"),
    runs("--timeout=60 --timeout-method=thread", plugin="pytest_timeout"),
    runs("--html=out.html", plugin="pytest_metadata.plugin pytest_html.plugin"),
    runs("--json-report", plugin="pytest_metadata.plugin pytest_jsonreport.plugin"),
    runs("--report-log=log.jsonl", plugin="pytest_reportlog.plugin"),
    runs("--alluredir=allure", plugin="allure_pytest.plugin"),
    runs("--splits=2 --group=1", "accuracy", plugin="pytest_split.plugin"),
    runs("--disable-socket", plugin="pytest_socket"),
    runs("--force-sugar", plugin="pytest_sugar"),
    runs("--instafail", plugin="pytest_instafail"),
    runs("--random-order", plugin="random_order.plugin"),
    runs("--reverse", plugin="pytest_reverse"),
    *(
        runs("", plugin=plugin)
        for plugin in (
            "pytest_forked pytest_memray.plugin pytest_profiling pytest_codspeed.plugin pytest_run_parallel.plugin",
            "pytest_asyncio.plugin pytest_aiohttp.plugin pytest_httpserver.pytest_plugin pytest_django.plugin",
            "pytest_bdd.plugin pytest_datadir.plugin pytest_regressions.plugin pytest_env.plugin syrupy",
            "pytest_randomly pytest_clarity.plugin pytest_github_actions_annotate_failures.plugin",
            "pytest_order.plugin pytest_icdiff pytest_custom_exit_code",
            "_hypothesis_pytestplugin",
        )
    ),
)


@pytest.fixture
def bench(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, where: Path) -> Path:
    """Return a project with one accuracy and one latency item; pytest finds no plugin by itself."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.syspathinsert()
    for name in ("test_load.py", "test_throughput.py"):
        (where / "bench" / name).unlink()
    return where


@pytest.mark.slow
@pytest.mark.parametrize("way", [*COMMAND_LINE, *TESTS, *HOOKS, *OTHERS], ids=lambda way: way.name or way.plugin)
def test_a_way_to_run_a_bench_is_right_or_a_clear_error(
    bench: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    for plugin in way.plugin.split():
        pytest.importorskip(plugin, reason="needs plugins: pip install --group guests")
    for name, value in way.env.items():
        monkeypatch.setenv(name, value)
    for name, text in way.files.items():
        (bench / name).write_text(text)
    target = "" if "bench" in way.args else "bench"
    plugins = " ".join(f"-p {plugin}" for plugin in way.plugin.split())
    done = pytester.runpytest_inprocess(*shlex.split(f"{target} {FAST} {PLUGINS} {plugins} {way.args}"))
    output = done.stdout.str() + done.stderr.str()
    assert done.ret == way.code
    assert way.says in output
    assert "INTERNALERROR" not in output
    found = [load_run(path) for path in bench.glob("reports/runs/**/*.json")]
    assert [tuple(b.info.kind for b in run.benchmarks) for run in found if run.benchmarks] == (
        [] if way.recorded is None else [way.recorded]
    )
    assert all(run.record.complete for run in found)


RED = "bench/test_accuracy.py::test_accuracy[red-embedded-torch-cpu-32]"
LEFT_OUT = "not selected in the current run, and so not judged:"
FAILED_LAST = {".pytest_cache/v/cache/lastfailed": f'{{"{RED}": true}}'}
STOPPED_LAST = {
    "conftest.py": "import os, pytest\n"
    "def pytest_runtest_setup(item):\n  if 'blue' in item.name and os.environ.get('BREAK'): pytest.fail('broken')"
}


@dataclass(frozen=True)
class Judged:
    """One way to run a bench that is judged against its run before, and what comes of it."""

    name: str
    args: str = ""
    code: int = 0
    says: str = ""
    """Part of what the gate says."""
    target: str = "bench/test_accuracy.py"
    files: Mapping[str, str] = field(default_factory=dict)
    """Written between the two runs."""
    stops: str = ""
    """Arguments of a run in between, which ends at an item that fails."""


def expected_to_fail(name: str, body: str, code: int, says: str, mark: str = "reason='known'") -> Judged:
    test = f"import pytest\n@pytest.mark.xfail({mark})\ndef test_accuracy(accuracy_item):\n    {body}\n"
    return Judged(f"xfail, {name}", code=code, says=says, files={"bench/test_accuracy.py": test})


JUDGED = (
    Judged("--lf, none failed", "--lf", says="gate passed"),
    Judged("--lf", "--lf", says=f"{LEFT_OUT} accuracy[blue", files=FAILED_LAST),
    Judged("--lf, other files", "--lf", says="32], latency[red", files=FAILED_LAST, target="bench"),
    Judged("--ff", "--ff", says="gate passed", files=FAILED_LAST),
    Judged("--sw", "--sw", says=f"{LEFT_OUT} accuracy[red", files=STOPPED_LAST, stops="--sw"),
    Judged("--sw-skip", "--sw-skip", says="gate passed", files=STOPPED_LAST),
    expected_to_fail("passes", "accuracy_item.check()", 0, "gate passed"),
    expected_to_fail("fails", "assert not accuracy_item.check()", 1, "skipped: xfail: known"),
    expected_to_fail("measures nothing", "assert 0", 1, "skipped in the current run: xfail: known"),
    expected_to_fail("is not run", "assert 0", 1, "xfail: [NOTRUN] known", "reason='known', run=False"),
    expected_to_fail("strict, passes", "accuracy_item.check()", 1, "XPASS(strict)", "strict=True"),
)


@pytest.mark.slow
@pytest.mark.parametrize("way", JUDGED, ids=lambda way: way.name)
def test_a_run_that_is_judged_is_right_or_says_what_it_leaves_out(
    bench: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, way: Judged
) -> None:
    def run(args: str) -> pytest.RunResult:
        quick = FAST.replace("--segcore-case=red", "--segcore-wait=0")
        return pytester.runpytest_inprocess(*shlex.split(f"{way.target} {quick} {PLUGINS} {args}"))

    assert run("--benchmark-save=old").ret == 0
    for name, text in way.files.items():
        (bench / name).parent.mkdir(parents=True, exist_ok=True)
        (bench / name).write_text(text)
    if way.stops:
        with monkeypatch.context() as broken:
            broken.setenv("BREAK", "1")
            assert run(way.stops).ret == 2
    done = run(f"{way.args} --segcore-baseline=old")
    assert done.ret == way.code
    assert way.says in " ".join(done.stdout.str().split())
