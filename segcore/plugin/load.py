"""The load item: one photo under one scenario of MLPerf Inference."""

from __future__ import annotations

from dataclasses import dataclass

from segcore.core.records import LoadRecord
from segcore.inference.allocator import give_back_freed_memory
from segcore.inference.pipeline import SegmentationResult
from segcore.measurement.conditions import MIN_ROUNDS, sample_warnings
from segcore.measurement.load.driver import Driver, load_record, load_samples
from segcore.measurement.load.early_stopping import over_invalid, queries_needed
from segcore.measurement.load.schedule import PERCENTILES, LoadPlan
from segcore.measurement.load.search import Search
from segcore.measurement.timing import PipelineCall
from segcore.plugin.items import BenchItem, check_clock
from segcore.plugin.options import load_plan


@dataclass
class LoadItem(BenchItem):
    """One photo under load: ``measure()`` it, ``explain()`` a limit that was not kept."""

    disabled: bool
    """Whether benchmarks are disabled: then one query is served and nothing recorded."""

    def measure(self) -> LoadRecord:
        """Run the scenario and record it, up to the last query if it is interrupted."""
        assert self.plan.scenario is not None
        check_clock()
        plan = load_plan(self.session.choices, self.plan.scenario, self.plan.batch)
        give_back_freed_memory()  # of the previous item
        call = PipelineCall(self.segmenter, [self.photo] * plan.batch, self.plan.size)
        call.warm_up()
        result = call()[0]
        driver = Driver(lambda: self.segmenter.run(call.photos, size=self.plan.size))
        if self.disabled:
            plan = LoadPlan("single-stream", plan.batch)
            driver.run(plan)
            return load_record(plan, driver.runs)
        search: Search | None = None
        try:
            if plan.is_search:
                search = driver.search(plan)
            else:
                driver.run(plan)
        finally:
            self._record(result, driver, plan, search)
        return load_record(plan, driver.runs, search)

    def _record(self, result: SegmentationResult, driver: Driver, plan: LoadPlan, search: Search | None) -> None:
        samples = load_samples(plan, driver.runs)
        if not samples:
            return
        queued = plan.rate is not None  # waiting spreads the latencies
        warnings = () if queued or len(samples) < MIN_ROUNDS else sample_warnings(samples)
        record = self.new_record(result, load=load_record(plan, driver.runs, search), warnings=warnings)
        self.session.add(self.node, samples, record)

    def explain(self, found: LoadRecord) -> str:
        """Return which limit was not proven to be kept, and what would prove it."""
        limit = f"p99 of {found.max_p99_ms:g} ms"
        if found.rate is None:
            if found.lowest_failed_rate is None:
                return f"no rate keeps the {limit}: queries that never wait already exceed it"
            return f"no rate was proven to keep the {limit}, down to {found.lowest_failed_rate:.3g} queries/s"
        late = f"{found.over} of {found.queries} queries were late at {found.rate:g} queries/s"
        percentile = PERCENTILES["server"]
        if found.validity == "invalid":
            overloaded = found.over < over_invalid(found.queries, percentile)
            cause = f"{found.rate:g} queries/s exceed the capacity, the queue grows forever" if overloaded else late
            return f"the {limit} was not kept: {cause}"
        missing = queries_needed(found.over, percentile) - found.queries
        return f"the {limit} is undecided: {late}; {missing} more in time would prove it: raise --segcore-queries"
