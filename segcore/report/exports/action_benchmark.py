"""JSON of github-action-benchmark, with its tools ``customSmallerIsBetter`` and ``customBiggerIsBetter``.

Format: https://github.com/benchmark-action/github-action-benchmark#examples (`BenchmarkResult` in its src/extract.ts).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from segcore.report.escape import plain_text
from segcore.report.metrics import Metric


def smaller_is_better(metrics: Sequence[Metric]) -> str:
    """Return times, memory and energy."""
    return _array(metric for metric in metrics if metric.smaller_is_better)


def bigger_is_better(metrics: Sequence[Metric]) -> str:
    """Return throughput and scores."""
    return _array(metric for metric in metrics if not metric.smaller_is_better)


def _array(metrics: Iterable[Metric]) -> str:
    return json.dumps([_entry(metric) for metric in metrics], indent=2, ensure_ascii=False) + "\n"


def _entry(metric: Metric) -> dict[str, str | float]:
    shown = metric.shown
    entry: dict[str, str | float] = {
        "name": plain_text(f"{metric.item} {metric.name}"),
        "value": shown.value,
        "unit": shown.unit,
    }
    if shown.low is not None and shown.high is not None:
        entry["range"] = f"{shown.low:g} to {shown.high:g}"
    if metric.about:
        entry["extra"] = plain_text(metric.about)
    return entry
