"""Numbers, labels and reasons as every report prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from segcore.core.records import BenchmarkRecord, Run, thread_words
from segcore.report.escape import plain_text
from segcore.results.machines import distinct_names, told_apart

if TYPE_CHECKING:  # they load scipy, which most commands do without
    from segcore.judgement.gate.verdict import Unit
    from segcore.judgement.statistics import Interval

MAX_LABEL = 40
MAX_CHANGE = 1000
"""A bound on a relative change beyond this (100,000 %) is none."""


def number(value: float) -> str:
    """Return three significant digits without exponents: ``0.123``, ``12.3``, ``1,234``; ``n/a`` for NaN."""
    if math.isnan(value):
        return "n/a"
    if not math.isfinite(value):
        return "∞" if value > 0 else "-∞"
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value))) if value else 0
    return f"{value:,.{min(max(digits, 0), 9)}f}"


def milliseconds(seconds: float) -> str:
    """Return seconds as ``12.3 ms``."""
    return f"{number(seconds * 1e3)} ms"


def value_text(value: float | None, unit: Unit) -> str:
    """Return a value with its unit, ``71.25%`` for a share, nothing for None."""
    if value is None:
        return ""
    return f"{value:.2%}" if unit == "share" else f"{number(value)} {unit}".rstrip()


def change_text(change: Interval | None, unit: Unit) -> str:
    """Return ``+3.1% [+1.0%, +5.2%]``, ``-1.23 pp [-2.04, -0.42]`` for a difference of shares, or nothing.

    A difference of shares is in percentage points, and has no interval if it is exact or there is none.
    """
    if change is None:
        return ""
    if unit == "share":
        bounded = change.low < change.high and math.isfinite(change.high - change.low)
        interval = f" [{100 * change.low:+.2f}, {100 * change.high:+.2f}]" if bounded else ""
        return f"{100 * change.value:+.2f} pp{interval}"
    low, high = (f"{bound:+.1%}" if abs(bound) < MAX_CHANGE else "?" for bound in (change.low, change.high))
    return f"{change.value:+.1%} [{low}, {high}]"


def model_name(info: BenchmarkRecord) -> str:
    """Return the model's name, followed by the kind of its weights unless they are pretrained."""
    return info.model if info.weights.kind == "pretrained" else f"{info.model} ({info.weights.kind})"


def run_labels(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the names of the runs, with their machine if that is another one, numbered if several have the same."""
    return tuple(shortened(distinct_names(runs, "#{1} {0}")))


def identity(info: BenchmarkRecord) -> dict[str, str]:
    """Return what identifies an item among those of its kind, by name; what does not apply is empty."""
    found = {name: getattr(info, name) for name in ("case", "runtime", "precision", "device", "size", "threads")}
    batch = info.batch if info.kind == "throughput" else ""
    return (
        {"model": model_name(info)} | {name: str(value or "") for name, value in found.items()} | {"batch": str(batch)}
    )


def short_labels(infos: Sequence[BenchmarkRecord], without: Sequence[str] = ()) -> list[str]:
    """Return a label per item, made of the properties in which the items differ, model first.

    Those named in `without` (as by `identity`) are left out.
    """
    parts = [{**identity(info), "size": f"@{info.size}", "threads": thread_words(info)} for info in infos]
    parts = [{**part, "batch": part["batch"] and f"batch {part['batch']}"} for part in parts]
    shown = [n for n in (parts[0] if parts else ()) if n not in without and len({part[n] for part in parts}) > 1]
    return shortened([" ".join(filter(None, (part[name] for name in shown or ["model"]))) for part in parts])


def shortened(labels: Sequence[str], most: int = MAX_LABEL) -> list[str]:
    """Return labels of at most about `most` characters; equal labels stay equal, different ones different."""
    clean = {label: plain_text(label) for label in labels}
    short = {label: text if len(text) <= most else f"{text[: most - 1]}…" for label, text in clean.items()}
    apart = told_apart(short)
    return [apart[label] for label in labels]
