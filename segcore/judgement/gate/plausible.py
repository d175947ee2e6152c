"""Times that no machine reaches: the item did not do its work, or the run file was edited."""

from __future__ import annotations

from segcore.core.records import Benchmark, RunRecord

MAX_EFFICIENCY = {"fp32": 10.0}
"""By precision, more than any kernel exceeds the measured rates of plain matrix products and convolutions in fp32."""
MAX_EFFICIENCY_OTHERS = 100.0
"""Tensor cores multiply 8-bit numbers some thirty times faster than fp32 ones."""


def implausible_rate(benchmark: Benchmark, run: RunRecord) -> str:
    """Return what makes the times of an item implausible, by the peak rates of its run; empty if nothing does."""
    info = benchmark.info
    peak = run.peak_gmacs_per_s(info.device, "fp32")
    if info.kind not in ("latency", "throughput") or not info.gmacs or not peak:
        return ""
    rate = info.gmacs / min(benchmark.all_samples)
    if rate <= peak * MAX_EFFICIENCY.get(info.precision, MAX_EFFICIENCY_OTHERS):
        return ""
    return f"{rate:,.0f} GMAC/s in {info.precision}, of at most {peak:,.0f} measured in fp32"
