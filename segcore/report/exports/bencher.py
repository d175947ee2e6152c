"""Bencher Metric Format: figures by item and measure.

Format and names of the built-in measures (`latency` in nanoseconds, `throughput` per second):
https://bencher.dev/docs/reference/bencher-metric-format. Other measures keep their name: times are in
nanoseconds, shares from 0 to 1, sizes in bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from segcore.report.escape import plain_text
from segcore.report.metrics import Metric, rounded

MAX_BENCHMARK, MAX_MEASURE = 1024, 64
"""Characters of a name."""
_FACTORS = {"s": 1e9}


def bencher(metrics: Sequence[Metric]) -> str:
    """Return the figures as Bencher Metric Format."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for metric in metrics:
        factor = _FACTORS.get(metric.unit, 1.0)
        values = {"value": metric.value, "lower_value": metric.low, "upper_value": metric.high}
        measures = found.setdefault(plain_text(metric.item)[:MAX_BENCHMARK], {})
        measures[_measure(metric.name)] = {k: rounded(factor * v) for k, v in values.items() if v is not None}
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def _measure(name: str) -> str:
    """Return a name as Bencher's slugs are: ``peak-memory``, ``iou-cat``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:MAX_MEASURE].strip("-") or "unnamed"
