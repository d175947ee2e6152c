"""The pytest plugin: options, fixtures and parametrisation. Its parts are in `segcore.plugin`.

pytest loads this wherever segcore is installed, so nothing heavy is imported, nothing is printed and no file is touched
until a test asks for one of the fixtures `accuracy_item`, `latency_item`, `throughput_item` or `load_item`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, cast

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from segcore.core.bench_options import SCENARIOS
from segcore.core.errors import SegcoreError
from segcore.core.system import explain, explained
from segcore.plugin.arguments import CONFIGURED, NAMELESS, ArgumentHooks
from segcore.plugin.conflicts import find_conflict, uses_fixture_of
from segcore.plugin.options import add_options, read_choices
from segcore.report.escape import plain_text

if TYPE_CHECKING:
    from segcore.core.records import Kind
    from segcore.plugin.collect import Collector
    from segcore.plugin.hooks import BenchHooks
    from segcore.plugin.items import AccuracyItem, SpeedItem
    from segcore.plugin.load import LoadItem
    from segcore.plugin.plan import PlanItem

FIXTURES: dict[str, Kind] = {
    "accuracy_item": "accuracy",
    "latency_item": "latency",
    "throughput_item": "throughput",
    "load_item": "load",
}
HOOKS = "segcore-bench"
"""Name of the plugin that is registered for the run if there are items of ours."""
EXECUTE_NOTHING = ("collectonly", "setuponly", "showfixtures", "show_fixtures_per_test")
"""Options of pytest that collect tests and execute none; ``--setup-plan`` implies ``--setup-only``."""

UNPLANNED = object()
"""Parameter of a load item without a scenario; pytest would report an empty set of parameters as a skipped test."""

_LF_COLLECTION = "lfplugin-collwrapper"
"""Plugin of pytest that keeps what ``--lf`` leaves out from being collected, where it cannot; else it is deselected."""
_COLLECTOR = pytest.StashKey["Collector"]()
_ERROR = pytest.StashKey[SegcoreError]()
_REFUSED = pytest.StashKey[str]()
_DESELECTED = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the ``segcore`` options."""
    add_options(parser)
    pluginmanager.register(ArgumentHooks(parser, pluginmanager.getplugin("pytestconfig")), "segcore-arguments")


def pytest_configure(config: pytest.Config) -> None:
    """Give crashes of a judged run an exit code of their own, and let it know what ``--lf`` leaves out."""
    if config.option.segcore_baseline is not None:
        from segcore.plugin.crash import CrashHooks

        config.pluginmanager.register(CrashHooks())
    is_kept = config.option.segcore_baseline is not None or config.getoption("benchmark_save", None)
    if is_kept and config.pluginmanager.has_plugin(_LF_COLLECTION):
        config.pluginmanager.unregister(name=_LF_COLLECTION)


def pytest_exception_interact(
    node: pytest.Collector | pytest.Item, call: pytest.CallInfo[Any], report: pytest.CollectReport | pytest.TestReport
) -> None:
    """Refuse a bench that cannot be imported until a setting is mended in one line, not in a traceback per module."""
    if isinstance(report, pytest.CollectReport) and call.excinfo and isinstance(error := call.excinfo.value, Exception):
        modules = (entry.frame.f_globals.get("__name__", "") for entry in call.excinfo.traceback)
        if (line := explain(error)) and any(name.partition(".")[0] == "segcore" for name in modules):
            _refuse(node.config, [], line)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise a function that uses one of our fixtures with the planned items."""
    for fixture, kind in FIXTURES.items():
        # not a fixture of the same name from another plugin or conftest
        if uses_fixture_of(__name__, fixture, metafunc._arg2fixturedefs.get(fixture, ())):
            items: tuple[PlanItem, ...] = ()
            try:
                with explained():
                    items = _collector(metafunc.config).items(kind)
            except SegcoreError as error:
                metafunc.config.stash[_ERROR] = error  # raised here, it would be shown as a traceback per module
            if items or kind != "load":
                metafunc.parametrize(fixture, items, indirect=True, ids=[item.id for item in items])
            else:
                metafunc.parametrize(fixture, [UNPLANNED], indirect=True, ids=["no-scenario"])


def _collector(config: pytest.Config) -> Collector:
    if _COLLECTOR not in config.stash:
        from segcore.plugin.collect import Collector

        config.stash[_COLLECTOR] = Collector(read_choices(config))
    return config.stash[_COLLECTOR]


def _params(item: pytest.Item) -> dict[str, Any]:
    params: dict[str, Any] = getattr(getattr(item, "callspec", None), "params", {})
    return params


def _plans(items: list[pytest.Item]) -> dict[pytest.Item, PlanItem]:
    """Return what was planned for those of pytest's items that use one of our fixtures."""
    return {item: plan for item in items for plan in _planned(item)}


def _planned(item: pytest.Item) -> list[PlanItem]:
    values = [value for name, value in _params(item).items() if name in FIXTURES]
    return [value for value in values if hasattr(value, "model_key")]


def _test_name(item: pytest.Item) -> str:
    """Return a test's name without what our fixtures and plugins that repeat tests (pytest-repeat) add to it."""
    own = [f"{name}={value!r}" for name, value in _params(item).items() if name not in FIXTURES and name[0] != "_"]
    return item.nodeid.partition("[")[0] + (f"[{', '.join(own)}]" if own else "")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Remove load items without a scenario; order the items so that every model is loaded once."""
    if _ERROR in config.stash:
        _refuse(config, items, str(config.stash[_ERROR]))
    kept = [item for item in items if all(value is not UNPLANNED for value in _params(item).values())]
    if items and not kept:
        _refuse(config, items, f"load items need --segcore-scenario NAME, one of: {', '.join(SCENARIOS)}")
    items[:] = kept
    plans = _plans(items)
    if plans:
        from segcore.plugin.plan import run_order

        order = run_order(plans.values())
        items.sort(key=lambda item: order[plans[item].key] if item in plans else -1)


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember the keys of the items of ours that the command line deselects."""
    if plans := _plans(items):
        from segcore.plugin.selection import command_line, leaves_out

        config = items[0].config
        options = command_line(config)
        keys = [plan.key for item, plan in plans.items() if leaves_out(options, item)]
        config.stash.setdefault(_DESELECTED, []).extend(keys)


def _refuse(config: pytest.Config, items: list[pytest.Item], error: str) -> None:
    """Raise a usage error; a worker of pytest-xdist would crash with it, so it hands the error to its controller."""
    config.stash.setdefault(_REFUSED, error)
    error = "\n".join(map(plain_text, error.splitlines()))
    output: dict[str, str] | None = getattr(config, "workeroutput", None)
    if output is None:
        raise pytest.UsageError(error)
    output.setdefault("segcore_error", error)
    items.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Raise the usage error of a worker of pytest-xdist."""
    error = getattr(node, "workeroutput", {}).get("segcore_error")
    if error:
        raise pytest.UsageError(error)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Prepare the run before its first item: photos, weights, calibration, where to write."""
    config, items = session.config, session.items
    if _REFUSED in config.stash:  # pytest comes here all the same, and would show a second error in place of the first
        return
    plans = _plans(items)
    if not plans:
        if config.getoption("benchmark_save", None) is NAMELESS:
            _refuse(config, items, "--benchmark-save: wanted a name: only items of segcore have a default")
        elif _is_asked_to_judge(config) and not _executes_nothing(config):
            _refuse(config, items, "--segcore-baseline: no item of segcore is selected, there is nothing to judge")
        return
    from segcore.plugin.plan import find_duplicate
    from segcore.plugin.storage import load_baseline, save_nothing

    problem = find_duplicate((_test_name(item), plan) for item, plan in plans.items())
    if crowded := next((item for item in plans if len(_planned(item)) > 1), None):
        problem = f"{crowded.nodeid}: wanted one fixture in a test, found several of {', '.join(FIXTURES)}"
    if problem := find_conflict(config, list(plans)) or problem:
        _refuse(config, items, problem)
        return
    if _executes_nothing(config):
        save_nothing(config)
        return
    from segcore.plugin.hooks import BenchHooks

    baseline = load_baseline(config)
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():  # for the progress bars of downloads
        try:
            by_node = {item.nodeid: plan for item, plan in plans.items()}
            deselected = config.stash.get(_DESELECTED, [])
            with explained():
                hooks = BenchHooks(config, _collector(config).choices, by_node, baseline, deselected)
        except SegcoreError as error:
            raise pytest.UsageError(plain_text(str(error))) from error
    config.pluginmanager.register(hooks, HOOKS)


def _is_asked_to_judge(config: pytest.Config) -> bool:
    """Return whether the command line names a baseline; one of pyproject.toml is for runs that have items of ours."""
    is_set = config.option.segcore_baseline is not None
    return is_set and "--segcore-baseline" not in config.stash.get(CONFIGURED, ())


def _executes_nothing(config: pytest.Config) -> bool:
    return any(config.getoption(name, False) for name in EXECUTE_NOTHING)


def _open(request: pytest.FixtureRequest, benchmark: BenchmarkFixture | None = None) -> Any:
    """Return the item of a fixture; None with ``--setup-only``, which sets fixtures up without a run."""
    if not hasattr(request, "param"):  # requested by a unittest.TestCase, or while a test or fixture runs
        pytest.fail(
            f"{request.fixturename}: wanted as an argument of a test function, so that it can be planned", False
        )
    if _REFUSED in request.config.stash:  # pytest-xdist's --looponfail goes on all the same
        pytest.fail(request.config.stash[_REFUSED], pytrace=False)
    hooks: BenchHooks | None = request.config.pluginmanager.getplugin(HOOKS)
    if benchmark and (hooks is None or request.param.kind == "load"):
        # pytest-benchmark warns of a fixture that is not used.
        request.addfinalizer(lambda: setattr(benchmark, "skipped", True))
    return hooks and hooks.open(request.param, request.node, benchmark)


@pytest.fixture
def accuracy_item(request: pytest.FixtureRequest) -> AccuracyItem:
    """One photo held against its case's expectations: ``check()`` it, ``explain()`` what does not hold."""
    return cast("AccuracyItem", _open(request))


@pytest.fixture
def latency_item(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> SpeedItem:
    """One photo to be timed: ``warm_up()``, then ``benchmark(latency_item)``."""
    return cast("SpeedItem", _open(request, benchmark))


@pytest.fixture
def throughput_item(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> SpeedItem:
    """A batch of copies of one photo to be timed: ``warm_up()``, then ``benchmark(throughput_item)``."""
    return cast("SpeedItem", _open(request, benchmark))


@pytest.fixture
def load_item(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> LoadItem:
    """One photo under a load scenario: ``measure()`` it, ``explain()`` a limit that was not kept."""
    return cast("LoadItem", _open(request, benchmark))
