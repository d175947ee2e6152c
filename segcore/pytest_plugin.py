"""The pytest plugin: options, fixtures and parametrisation. Its parts are in `segcore.plugin`.

pytest loads this wherever segcore is installed, so nothing heavy is imported, nothing is printed and no file is touched
until a test asks for one of the fixtures `accuracy_item`, `latency_item`, `throughput_item` or `load_item`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import TYPE_CHECKING

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from segcore.core.errors import SegcoreError
from segcore.plugin import load_options, options, storage

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
"""Name of the plugin that is registered for the run when there are items of ours."""

_COLLECTOR = pytest.StashKey["Collector"]()
_ERROR = pytest.StashKey[SegcoreError]()


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    """Add the ``segcore`` options; let ``--benchmark-save`` go without a name."""
    options.add_options(parser)
    options.let_save_go_without_name(parser, pluginmanager)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser, args: list[str]) -> None:
    """Name a nameless ``--benchmark-save``."""
    options.mend_arguments(early_config, parser, args)


def pytest_configure(config: pytest.Config) -> None:
    """Come before pytest-benchmark, which asks to be last: it shall compare once it is known where runs are."""
    storage.postpone_compare(config)
    if config.option.segcore_baseline:
        from segcore.plugin.crash import CrashHooks

        config.pluginmanager.register(CrashHooks())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test per item of the plan out of a function that uses one of our fixtures."""
    for fixture, kind in FIXTURES.items():
        if _is_ours(metafunc, fixture):
            items: tuple[PlanItem, ...] = ()
            try:
                items = _collector(metafunc.config).items(kind)
            except SegcoreError as error:
                metafunc.config.stash[_ERROR] = error  # raised here, it would be shown as a traceback per module
            metafunc.parametrize(fixture, items, indirect=True, ids=[item.id for item in items])


def _is_ours(metafunc: pytest.Metafunc, fixture: str) -> bool:
    """Return whether a test uses a fixture of this module, not one of the same name from another plugin or conftest."""
    definitions = metafunc._arg2fixturedefs.get(fixture, ())
    return bool(definitions) and definitions[-1].func.__module__ == __name__


def _collector(config: pytest.Config) -> Collector:
    if _COLLECTOR not in config.stash:
        from segcore.plugin.collect import Collector

        config.stash[_COLLECTOR] = Collector(options.read_choices(config))
    return config.stash[_COLLECTOR]


def _plan_of(item: pytest.Item) -> PlanItem | None:
    params: dict[str, PlanItem] = getattr(getattr(item, "callspec", None), "params", {})
    found = next((params[name] for name in FIXTURES if name in params), None)
    return found if hasattr(found, "key") else None  # pytest puts a mark of its own in the place of an empty plan


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse what cannot be run; order the items so that every model is loaded once."""
    if _ERROR in config.stash:
        raise pytest.UsageError(str(config.stash[_ERROR]))
    _remove_unplanned(items)
    if _COLLECTOR in config.stash:
        from segcore.plugin.plan import run_order

        plans = {item: plan for item in items if (plan := _plan_of(item)) is not None}
        order = run_order(plans.values())
        items.sort(key=lambda item: order[plans[item].key] if item in plans else -1)


def _remove_unplanned(items: list[pytest.Item]) -> None:
    """Remove load items without a scenario, which pytest would report as skipped."""

    def planned(item: pytest.Item) -> bool:
        return "load_item" not in getattr(getattr(item, "callspec", None), "params", {}) or _plan_of(item) is not None

    kept = list(filter(planned, items))
    if items and not kept:
        scenarios = ", ".join(load_options.SCENARIOS)
        raise pytest.UsageError(f"load items need --segcore-scenario NAME, one of: {scenarios}")
    items[:] = kept


@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Look around before the first item: photos, weights, calibration, where to write."""
    config = session.config
    plan = {item.nodeid: found for item in session.items if (found := _plan_of(item)) is not None}
    storage.settle_storage(config, ours=bool(plan) and not config.option.collectonly)
    if config.option.collectonly:
        if plan:
            storage.save_nothing(config)
        return
    if not plan:
        if config.option.segcore_baseline:
            raise pytest.UsageError("--segcore-baseline: no item of segcore is selected, there is nothing to judge")
        return
    from segcore.plugin.baseline import BaselineHooks, load_baseline
    from segcore.plugin.hooks import BenchHooks
    from segcore.plugin.page import PageHooks

    baseline = load_baseline(config)
    capture = config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture else nullcontext():  # downloads show a bar
        try:
            hooks = BenchHooks(config, _collector(config).choices, plan)
        except SegcoreError as error:
            raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(hooks, HOOKS)
    judged = BaselineHooks(baseline, hooks.session) if baseline else None
    if judged:
        config.pluginmanager.register(judged)
    config.pluginmanager.register(PageHooks(hooks.session, judged))


def _hooks(request: pytest.FixtureRequest) -> BenchHooks:
    hooks: BenchHooks = request.config.pluginmanager.getplugin(HOOKS)
    return hooks


@pytest.fixture
def accuracy_item(request: pytest.FixtureRequest) -> AccuracyItem:
    """One photo held against its case's expectations: ``check()`` it, ``explain()`` what did not hold."""
    return _hooks(request).open_accuracy(request.param, request.node)


@pytest.fixture
def latency_item(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> SpeedItem:
    """One photo to be timed: ``warm_up()``, then ``benchmark(latency_item)``."""
    return _hooks(request).open_speed(request.param, request.node, benchmark)


@pytest.fixture
def throughput_item(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> SpeedItem:
    """A batch of copies of one photo to be timed: ``warm_up()``, then ``benchmark(throughput_item)``."""
    return _hooks(request).open_speed(request.param, request.node, benchmark)


@pytest.fixture
def load_item(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> Iterator[LoadItem]:
    """One photo under a load scenario: ``measure()`` it, ``explain()`` a limit that was not kept."""
    yield _hooks(request).open_load(request.param, request.node, benchmark)
    benchmark.skipped = True  # requested for the flags of pytest-benchmark alone; unused, it would warn
