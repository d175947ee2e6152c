"""Charts of run files as inline SVG, each with the table behind it.

Each mark carries its number as its ``aria-label``, which the page shows on hover.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segcore.core.records import STAGES, Benchmark, Run
from segcore.judgement.compare import achieved
from segcore.judgement.history import history
from segcore.judgement.statistics import Interval, quantile_interval, usable
from segcore.report.vega import NARROW, Spec, colour, draw, lanes, nominal, quantity
from segcore.report.wording import milliseconds, number, short_labels, shortened

MAX_MARKS = 1500
"""Samples drawn in one chart: 250 bytes each, so that a page stays small; more are thinned evenly."""

Cells = tuple[str | float, ...]


@dataclass(frozen=True)
class Chart:
    """A drawing and the numbers in it."""

    name: str
    title: str
    caption: str
    svg: str
    columns: tuple[str, ...]
    rows: tuple[Cells, ...]
    """Floats are numbers in the column's unit, NaN where there is none."""
    wide: bool = True
    folded: bool = False
    """Shown on demand."""


@dataclass(frozen=True)
class Item:
    """A timed item with its label, unique among those of its run, and the interval of its median in seconds."""

    run: Run
    run_name: str
    label: str
    benchmark: Benchmark
    median: Interval

    @property
    def title(self) -> str:
        """Label and run."""
        return f"{self.label}, {self.run_name}"


def timed_items(
    runs: Sequence[Run], wanted: Callable[[Benchmark], bool], without: Sequence[str] = ()
) -> tuple[Item, ...]:
    """Return the wanted items whose samples are numbers, in the order of the runs.

    Args:
        runs: any number.
        wanted: which items.
        without: properties to leave out of their labels.
    """
    names = run_labels(runs)
    found = [
        (run, name, b)
        for run, name in zip(runs, names, strict=True)
        for b in run.benchmarks
        if usable(b.samples) and wanted(b)
    ]
    labels = short_labels([b.info for _, _, b in found], without)
    return tuple(
        Item(run, name, label, b, quantile_interval(b.samples, 0.5).exp())
        for (run, name, b), label in zip(found, labels, strict=True)
    )


def run_labels(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the runs' names, numbered where two have the same."""
    names = [run.name for run in runs]
    return tuple(
        shortened([n if names.count(n) == 1 else f"#{names[: i + 1].count(n)} {n}" for i, n in enumerate(names)])
    )


def all_charts(runs: Sequence[Run]) -> tuple[Chart, ...]:
    """Return every chart that the runs have data for, most wanted first."""
    makers = (latency, distribution, stages, throughput, thread_sweep, trade_off, efficiency, run_order, over_time)
    return tuple(chart for chart in (make(runs) for make in makers) if chart)


def latency(runs: Sequence[Run]) -> Chart | None:
    """Return the medians with their intervals, one lane per item."""
    items = timed_items(runs, lambda b: b.info.kind == "latency")
    if not items:
        return None
    rows: list[Spec] = []
    for item in items:
        low, mid, high = item.median.low, item.median.value, item.median.high
        known = math.isfinite(high) and low > 0
        bounds = f"95 %: {number(low * 1e3)} to {number(high * 1e3)}" if known else "too few rounds for an interval"
        drawn = (low, high) if known else (mid, mid)
        rows.append(
            {
                "item": item.label,
                "run": item.run_name,
                "ms": mid * 1e3,
                "low": drawn[0] * 1e3,
                "high": drawn[1] * 1e3,
                "label": f"{item.title}: {milliseconds(mid)} ({bounds})",
            }
        )
    x = quantity("ms", "median latency, ms", [row[k] for row in rows for k in ("low", "high")])
    spec = {
        "encoding": {**lanes(rows), "description": nominal("label"), "color": colour("run", rows)},
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 7, "opacity": 0.35, "strokeCap": "round"},
                "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}},
            },
            {"mark": {"type": "point", "filled": True, "size": 64, "opacity": 1}, "encoding": {"x": x}},
        ],
    }
    table = [
        (
            i.label,
            i.run_name,
            i.median.value * 1e3,
            i.median.low * 1e3,
            i.median.high * 1e3,
            float(len(i.benchmark.samples)),
        )
        for i in items
    ]
    columns = ("item", "run", "median, ms", "low, ms", "high, ms", "rounds")
    caption = "Median of one call and its 95 % interval within the process that was measured."
    return Chart("latency", "Latency", caption, draw(rows, spec), columns, tuple(table))


def distribution(runs: Sequence[Run]) -> Chart | None:
    """Return every sample as a tick: what a median hides."""
    items = timed_items(runs, lambda b: b.info.kind == "latency")
    if not items:
        return None
    rows: list[Spec] = [
        {
            "item": item.label,
            "run": item.run_name,
            "ms": seconds * 1e3,
            "label": f"{item.title}, round {index + 1}: {milliseconds(seconds)}",
        }
        for item in items
        for index, seconds in _thinned(item.benchmark.samples, MAX_MARKS // len(items))
    ]
    spec = {
        "mark": {"type": "tick", "thickness": 1.5, "opacity": 0.6},
        "encoding": {
            **lanes(rows),
            "x": quantity("ms", "latency of each round, ms", [r["ms"] for r in rows]),
            "description": nominal("label"),
            "color": colour("run", rows),
        },
    }
    quantiles = (0.0, 0.25, 0.5, 0.75, 1.0)
    table: list[Cells] = [
        (i.label, i.run_name, *(float(v) * 1e3 for v in np.quantile(i.benchmark.samples, quantiles))) for i in items
    ]
    columns = ("item", "run", "least, ms", "quartile, ms", "median, ms", "quartile, ms", "most, ms")
    caption = "Every round is a tick, evenly thinned where there are very many."
    return Chart("distribution", "Distribution", caption, draw(rows, spec), columns, tuple(table), folded=True)


def stages(runs: Sequence[Run]) -> Chart | None:
    """Return where the time goes: median seconds of each stage, stacked."""
    rows: list[Spec] = []
    for item in timed_items(runs, lambda b: bool(b.info.stages)):
        for stage, seconds in item.benchmark.info.stages.items():
            if seconds and all(math.isfinite(s) and s >= 0 for s in seconds):
                mid = statistics.median(seconds)
                order = STAGES.index(stage) if stage in STAGES else len(STAGES)
                rows.append(
                    {
                        "item": item.label,
                        "run": item.run_name,
                        "stage": stage,
                        "ms": mid * 1e3,
                        "order": order,
                        "label": f"{item.title}, {stage}: {milliseconds(mid)}",
                    }
                )
    if not rows:
        return None
    in_order = sorted(rows, key=lambda row: (row["order"], row["stage"]))
    spec = {
        "mark": {"type": "bar"},
        "encoding": {
            **lanes(rows),
            "x": {"field": "ms", "type": "quantitative", "title": "median of each stage, ms", "stack": "zero"},
            "color": colour("stage", in_order, columns=6),
            "order": {"field": "order", "type": "quantitative"},
            "description": nominal("label"),
        },
    }
    table = tuple((r["item"], r["run"], r["stage"], float(r["ms"])) for r in rows)
    names = list(dict.fromkeys(r["run"] for r in rows))
    several = f" One bar per run, from top to bottom: {', '.join(names)}." if len(names) > 1 else ""
    caption = f"Where the time of one call goes.{several}"
    return Chart("stages", "Stages", caption, draw(rows, spec), ("item", "run", "stage", "median, ms"), table)


def throughput(runs: Sequence[Run]) -> Chart | None:
    """Return images per second over the batch, one line per model, device and run."""
    items = timed_items(runs, lambda b: b.info.kind == "throughput" and not b.info.threads, without=("batch",))
    return _rates(runs, items, "throughput", "Throughput", "Images per second by batch.")


def thread_sweep(runs: Sequence[Run]) -> Chart | None:
    """Return images per second over the batch, one line per number of threads; None where no threads were swept."""
    items = timed_items(runs, lambda b: b.info.kind == "throughput" and bool(b.info.threads), without=("batch",))
    return _rates(runs, items, "threads", "Threads", "Images per second by batch and intra-op threads.")


def _rates(runs: Sequence[Run], items: Sequence[Item], name: str, title: str, caption: str) -> Chart | None:
    if not items:
        return None
    rows: list[Spec] = []
    for item in items:
        batch = item.benchmark.info.batch
        rate = batch / item.median.value
        series = item.title if len(runs) > 1 else item.label
        label = f"{series}, batch {batch}: {number(rate)} images/s"
        rows.append({"batch": batch, "rate": rate, "series": series, "label": label})
    batches = sorted({row["batch"] for row in rows})
    spec = {
        "mark": {"type": "line", "point": {"size": 60, "filled": True}, "strokeWidth": 2},
        "encoding": {
            "x": {
                "field": "batch",
                "type": "ordinal",
                "sort": batches,
                "title": "images in a batch",
                "axis": {"labelAngle": 0, "grid": False},
            },
            "y": quantity("rate", "images/s", [r["rate"] for r in rows]),
            "color": colour("series", rows, columns=2),
            "description": nominal("label"),
        },
    }
    table = tuple((r["series"], float(r["batch"]), float(r["rate"])) for r in rows)
    svg = draw(rows, spec, width=NARROW, height=240)
    columns = ("series", "batch", "images/s")
    return Chart(name, title, caption, svg, columns, table, wide=False)


def efficiency(runs: Sequence[Run]) -> Chart | None:
    """Return a roofline: achieved GMAC/s over MACs per byte, below what calibration reached (Williams et al. 2009)."""
    rows: list[Spec] = []
    table: list[Cells] = []
    for item in timed_items(runs, lambda b: b.info.kind in ("latency", "throughput")):
        info, known = item.benchmark.info, achieved(item.run, item.benchmark)
        if known is None or not info.gmacs or not info.gbytes or not math.isfinite(info.gbytes):
            continue
        rate, share = known
        label = f"{item.title}: {number(rate)} GMAC/s, {share:.0%} of the matrix product's"
        rows.append({"intensity": info.gmacs / info.gbytes, "rate": rate, "model": info.model, "label": label})
        table.append((item.label, item.run_name, info.gmacs, info.gbytes, rate, rate / share, 100 * share))
    if not rows:
        return None
    roofs = _roofs(runs, [row["intensity"] for row in rows])
    names = [roof for roof in roofs if roof["name"]]
    x = quantity("intensity", "MACs per byte moved", [r["intensity"] for r in rows + roofs], log=True)
    roof = {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": "var(--soft)"}
    text = {"type": "text", "align": "right", "baseline": "bottom", "dy": -3, "color": "var(--soft)"}
    spec = {
        "encoding": {
            "x": x,
            "y": quantity("rate", "GMAC/s", [r["rate"] for r in rows + roofs], log=True),
            "description": nominal("label"),
        },
        "layer": [
            {"data": {"values": roofs}, "mark": roof, "encoding": {"detail": nominal("roof")}},
            {"data": {"values": names}, "mark": text, "encoding": {"text": nominal("name")}},
            {
                "mark": {"type": "point", "filled": True, "size": 70, "opacity": 1},
                "encoding": {"color": colour("model", rows, columns=2)},
            },
        ],
    }
    caption = "Roofline: forward passes below what memory copy (slope) and matrix product (flat) reached here."
    columns = ("item", "run", "GMAC", "GB", "GMAC/s", "matrix product, GMAC/s", "share, %")
    svg = draw(rows, spec, width=NARROW, height=240)
    return Chart("efficiency", "Efficiency", caption, svg, columns, tuple(table), wide=False)


def _roofs(runs: Sequence[Run], intensities: Sequence[float]) -> list[Spec]:
    """Three corners per device and run; of roofs that all but coincide only the first is named."""
    found: list[Spec] = []
    for run, name in zip(runs, run_labels(runs), strict=True):
        for c in run.record.calibration:
            rate, bandwidth = c.matmul_gmacs_per_s, c.copy_gbytes_per_s
            if not (0 < rate < math.inf and 0 < bandwidth < math.inf):
                continue
            ridge = rate / bandwidth
            crowded = any(other["name"] and abs(math.log(rate / other["rate"])) < 0.1 for other in found)
            left, right = min(*intensities, ridge) / 2, max(*intensities, ridge) * 1.5
            label = f"{c.device}, {name}: matrix product {number(rate)} GMAC/s, memory copy {number(bandwidth)} GB/s"
            corners = ((left, left * bandwidth, ""), (ridge, rate, ""), (right, rate, "" if crowded else c.device))
            found += [
                {"intensity": x, "rate": y, "name": text, "roof": f"{name} {c.device}", "label": label}
                for x, y, text in corners
            ]
    return found


def trade_off(runs: Sequence[Run]) -> Chart | None:
    """Return accuracy over latency: mean score and median latency over the cases, per way of running."""
    groups: dict[tuple[str, ...], tuple[list[float], list[float]]] = {}
    for run, name in zip(runs, run_labels(runs), strict=True):
        for b in run.benchmarks:
            info = b.info
            way = (name, info.model, f"{info.runtime} {info.precision}", info.device, f"@{info.size}")
            scores, seconds = groups.setdefault(way, ([], []))
            score = accuracy_score(b)
            scores += [] if score is None else [score]
            seconds += [statistics.median(b.samples)] if info.kind == "latency" and usable(b.samples) else []
    rows: list[Spec] = []
    for (run_name, model, *rest), (scores, seconds) in groups.items():
        if scores and seconds:
            name = " ".join((model, *rest)) + (f", {run_name}" if len(runs) > 1 else "")
            score, mid = 100 * statistics.fmean(scores), statistics.median(seconds)
            label = f"{name}: {score:.1f} % at {milliseconds(mid)}"
            rows.append({"way": name, "model": model, "ms": mid * 1e3, "score": score, "label": label})
    if not rows:
        return None
    spec = {
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9},
        "encoding": {
            "x": quantity("ms", "median latency, ms", [r["ms"] for r in rows]),
            "y": {"field": "score", "type": "quantitative", "title": "mean score, %", "scale": {"domain": [0, 100]}},
            "color": colour("model", rows, columns=2),
            "description": nominal("label"),
        },
    }
    caption = "mIoU where a case has ground truth, else the share of its expectations met; up and left is better."
    table = tuple((r["way"], float(r["score"]), float(r["ms"])) for r in rows)
    svg = draw(rows, spec, width=NARROW, height=240)
    columns = ("way of running", "mean score, %", "median latency, ms")
    return Chart("trade-off", "Accuracy against latency", caption, svg, columns, table, wide=False)


def accuracy_score(benchmark: Benchmark) -> float | None:
    """Return mIoU (0 to 1) where there is ground truth, else the share of expectations met, None without either."""
    accuracy = benchmark.info.accuracy
    if accuracy is None:
        return None
    if accuracy.miou is not None:
        return accuracy.miou if math.isfinite(accuracy.miou) else None
    return statistics.fmean(c.passed for c in accuracy.checks) if accuracy.checks else None


def run_order(runs: Sequence[Run]) -> Chart | None:
    """Return each sample against its item's median, over the time since the run began: drift and bursts of load."""
    items = timed_items(runs, lambda b: b.info.kind in ("latency", "throughput"))
    if not items:
        return None
    rows: list[Spec] = []
    table: list[Cells] = []
    for item in items:
        samples, began = item.benchmark.samples, item.benchmark.info.started_s
        ends = began + np.cumsum(samples)
        for index, seconds in _thinned(samples, MAX_MARKS // len(items)):
            percent, at = 100 * (seconds / item.median.value - 1), float(ends[index])
            label = f"{item.title}, after {at:.1f} s: {percent:+.1f} %"
            rows.append({"at": at, "percent": percent, "run": item.run_name, "label": label})
        half = len(samples) // 2
        change = statistics.median(samples[half:]) / statistics.median(samples[:half]) - 1 if half else math.nan
        table.append((item.label, item.run_name, float(item.benchmark.info.order), began, 100 * change))
    spec = {
        "mark": {"type": "point", "filled": True, "size": 16, "opacity": 0.65},
        "encoding": {
            "x": {"field": "at", "type": "quantitative", "title": "since the run began, s"},
            "y": {"field": "percent", "type": "quantitative", "title": "from its median, %"},
            "color": colour("run", rows, columns=2),
            "description": nominal("label"),
        },
    }
    caption = "Every round against its own item's median, in the order measured: a drift or a burst of load shows."
    columns = ("item", "run", "position", "began at, s", "second half against first, %")
    svg = draw(rows, spec, width=NARROW, height=240)
    return Chart("run-order", "Run order and drift", caption, svg, columns, tuple(table), wide=False)


def over_time(runs: Sequence[Run]) -> Chart | None:
    """Return the history of each item against its first run, with change points; three runs of a machine at least."""
    rows: list[Spec] = []
    table: list[Cells] = []
    for series in history(runs):
        if len(series.points) < 3:
            continue
        first = series.points[0].seconds
        for place, point in enumerate(series.points, 1):
            step = "" if point.change is None else f"changed for good by {100 * point.change:+.1f} %"
            where = f"{series.item}, {series.machine}, {point.run} {point.commit}"
            label = f"{where}: {milliseconds(point.seconds)} {step}".strip()
            rows.append(
                {
                    "place": place,
                    "percent": 100 * point.seconds / first,
                    "item": series.item,
                    "label": label,
                    "series": f"{series.item} {series.machine}",
                    "step": step,
                }
            )
            table.append((series.item, series.machine, point.run, point.commit, point.seconds * 1e3, step))
    if not rows:
        return None
    steps = [row for row in rows if row["step"]]
    ring = {"type": "point", "size": 220, "filled": False, "strokeWidth": 2, "color": "var(--bad)", "opacity": 1}
    spec = {
        "encoding": {
            "x": {
                "field": "place",
                "type": "quantitative",
                "title": "run, oldest first",
                "axis": {"tickMinStep": 1, "format": "d"},
            },
            "y": {"field": "percent", "type": "quantitative", "title": "of its first run, %", "scale": {"zero": False}},
            "description": nominal("label"),
        },
        "layer": [
            {
                "mark": {"type": "line", "strokeWidth": 1.5, "opacity": 0.7, "point": {"size": 40, "filled": True}},
                "encoding": {"color": {**colour("item", rows), "legend": None}, "detail": nominal("series")},
            },
            {"data": {"values": steps}, "mark": ring},
        ],
    }
    caption = "Median latency of each item against its first run here; rings mark where it changed for good."
    columns = ("item", "machine", "run", "commit", "median, ms", "change point")
    return Chart("history", "Over time", caption, draw(rows, spec, height=280), columns, tuple(table))


def _thinned(samples: Sequence[float], most: int) -> Iterable[tuple[int, float]]:
    """Every k-th sample with its index, so that at most about `most` remain."""
    step = max(1, math.ceil(len(samples) / max(1, most)))
    return list(enumerate(samples))[::step]
