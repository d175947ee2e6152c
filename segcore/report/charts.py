"""Charts of run files as inline SVG, each with the table behind it.

Each mark carries its number as its ``aria-label``, which the page shows on hover.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from segcore.core.records import STAGES, TIMED, Benchmark, Run
from segcore.judgement.compare import achieved
from segcore.judgement.estimate import own_interval
from segcore.judgement.history import history
from segcore.judgement.statistics import Interval, usable
from segcore.report.table import Row, Table
from segcore.report.tables import accuracy_score
from segcore.report.vega import (
    MAX_LANES,
    MAX_MARKS,
    Chart,
    Spec,
    colour,
    linear,
    make_chart,
    nominal,
    quantity,
    shape,
)
from segcore.report.wording import milliseconds, number, run_labels, short_labels, shortened
from segcore.results.machines import machine_labels

MAX_SPAN = 20
"""Ratio of the longest to the shortest bar up to which both can be read on one axis."""
MAX_MACHINE = 26


@dataclass(frozen=True)
class Item:
    """A timed item with its label, unique among those of its run, and the interval of its median in seconds."""

    run: Run
    run_name: str
    machine: str
    label: str
    benchmark: Benchmark
    median: Interval

    @property
    def title(self) -> str:
        """Return label and run."""
        return f"{self.label}, {self.run_name}"

    def row(self, label: str, **fields: object) -> Spec:
        """Return a row of data; `label` describes its mark."""
        return {"item": self.label, "run": self.run_name, "machine": self.machine, "label": label, **fields}


def timed_items(
    runs: Sequence[Run], wanted: Callable[[Benchmark], bool], without: Sequence[str] = ()
) -> tuple[Item, ...]:
    """Return the wanted items whose samples are usable, in the order of the runs; see `short_labels` for `without`."""
    found = [
        (run, name, machine, b)
        for run, name, machine in zip(runs, run_labels(runs), _machines(runs), strict=True)
        for b in run.benchmarks
        if usable(b.all_samples) and wanted(b)
    ]
    labels = short_labels([b.info for *_, b in found], without)
    return tuple(
        Item(run, name, machine, label, b, own_interval(b).exp())
        for (run, name, machine, b), label in zip(found, labels, strict=True)
    )


def _machines(runs: Sequence[Run]) -> list[str]:
    """Return what the machine of each run is called, short enough for a legend."""
    return shortened(machine_labels(runs), MAX_MACHINE)


def _colour_by(rows: Sequence[Spec], otherwise: str) -> str:
    """Return the field that colours tell apart: the machine if there are several."""
    return "machine" if len({row["machine"] for row in rows}) > 1 else otherwise


def all_charts(runs: Sequence[Run]) -> tuple[Chart, ...]:
    """Return every chart that the runs have data for, most wanted first."""
    makers = (latency, distribution, stages, throughput, thread_sweep, trade_off, efficiency, run_order, over_time)
    return tuple(chart for chart in (make(runs) for make in makers) if chart)


def latency(runs: Sequence[Run]) -> Chart | None:
    """Return the medians with their intervals, one lane per item."""
    rows: list[Spec] = []
    table: list[Row] = []
    for item in timed_items(runs, lambda b: b.info.kind == "latency"):
        low, mid, high = (1e3 * bound for bound in (item.median.low, item.median.value, item.median.high))
        table.append((item.label, item.run_name, mid, low, high, len(item.benchmark.samples)))
        known = math.isfinite(high) and low > 0
        bounds = f"95%: {number(low)} to {number(high)}" if known else "too few rounds for an interval"
        label = f"{item.title}: {milliseconds(item.median.value)} ({bounds})"
        rows.append(item.row(label, ms=mid, low=low if known else mid, high=high if known else mid))
    x = quantity("ms", "median latency, ms", [row[k] for row in rows for k in ("low", "high")])
    interval = {"type": "rule", "strokeWidth": 7, "opacity": 0.35, "strokeCap": "round"}
    point = {"type": "point", "filled": True, "size": 64, "opacity": 1}
    spec = {
        "encoding": {"color": colour(_colour_by(rows, "run"), rows)},
        "layer": [
            {"mark": interval, "encoding": {"x": {**x, "field": "low"}, "x2": {"field": "high"}}},
            {"mark": point, "encoding": {"x": x}},
        ],
    }
    about = ("latency", "Latency", "Median of one call and its 95% interval within the measured process.")
    columns = ("item", "run", "median, ms", "low, ms", "high, ms", "rounds")
    return make_chart(about, rows, spec, Table(columns, tuple(table)), wide=True, height=None)


def distribution(runs: Sequence[Run]) -> Chart | None:
    """Return every sample as a tick."""
    items = timed_items(runs, lambda b: b.info.kind == "latency")
    rows = [
        item.row(f"{item.title}, round {index + 1}: {milliseconds(seconds)}", ms=seconds * 1e3)
        for item in items
        for index, seconds in _thinned(item.benchmark.samples, MAX_MARKS // min(len(items), MAX_LANES))
    ]
    x = quantity("ms", "latency of each round, ms", [row["ms"] for row in rows])
    spec = {
        "mark": {"type": "tick", "thickness": 1.5, "opacity": 0.6},
        "encoding": {"x": x, "color": colour(_colour_by(rows, "run"), rows)},
    }
    quartiles = [1e3 * np.quantile(item.benchmark.samples, (0, 0.25, 0.5, 0.75, 1)) for item in items]
    table = Table(
        ("item", "run", "minimum, ms", "p25, ms", "median, ms", "p75, ms", "maximum, ms"),
        tuple((item.label, item.run_name, *ms.tolist()) for item, ms in zip(items, quartiles, strict=True)),
    )
    about = ("distribution", "Distribution", "One tick per round, evenly thinned if there are very many.")
    return make_chart(about, rows, spec, table, wide=True, height=None, folded=True)


def stages(runs: Sequence[Run]) -> Chart | None:
    """Return the median seconds of each stage, stacked."""
    rows: list[Spec] = []
    for item in timed_items(runs, lambda b: bool(b.info.stages)):
        for stage, seconds in item.benchmark.info.stages.items():
            if seconds:
                mid = statistics.median(seconds)
                label = f"{item.title}, {stage}: {milliseconds(mid)}"
                rows.append(item.row(label, stage=stage, ms=mid * 1e3, order=STAGES.index(stage)))
    in_order = sorted(rows, key=lambda row: (row["order"], row["stage"]))
    totals: dict[tuple[str, str], float] = defaultdict(float)
    for row in rows:
        totals[row["item"], row["run"]] += row["ms"]
    stack, x_title = "zero", "median of each stage, ms"
    if rows and max(totals.values()) > MAX_SPAN * min(totals.values()):
        stack, x_title = "normalize", "share of each stage"
    spec = {
        "mark": {"type": "bar"},
        "encoding": {
            "x": linear("ms", x_title, stack=stack),
            "color": colour("stage", in_order),
            "order": {"field": "order", "type": "quantitative"},
        },
    }
    names = list(dict.fromkeys(row["run"] for row in rows))
    several = f" One bar per run, from top to bottom: {', '.join(names)}." if len(names) > 1 else ""
    about = ("stages", "Stages", f"Where the time of one call goes.{several}")
    columns = {"item": "item", "run": "run", "stage": "stage", "median, ms": "ms"}
    return make_chart(about, rows, spec, columns, wide=True, height=None)


def throughput(runs: Sequence[Run]) -> Chart | None:
    """Return images per second over the batch, one line per model, device and run."""
    return _rates(runs, ("throughput", "Throughput", "Images per second by batch."), swept=False)


def thread_sweep(runs: Sequence[Run]) -> Chart | None:
    """Return images per second over the batch, one line per number of threads; None if threads were not swept."""
    return _rates(runs, ("threads", "Threads", "Images per second by batch and intra-op threads."), swept=True)


def _rates(runs: Sequence[Run], about: tuple[str, str, str], *, swept: bool) -> Chart | None:
    rows: list[Spec] = []
    for item in timed_items(
        runs, lambda b: b.info.kind == "throughput" and bool(b.info.threads) == swept, without=("batch",)
    ):
        batch = item.benchmark.info.batch
        rate = batch / item.median.value
        series = item.title if len(runs) > 1 else item.label
        label = f"{series}, batch {batch}: {number(rate)} images/s"
        rows.append(item.row(label, batch=batch, rate=rate, series=series))
    x = {"field": "batch", "type": "ordinal", "title": "images in a batch", "axis": {"labelAngle": 0, "grid": False}}
    y = quantity("rate", "images/s", [row["rate"] for row in rows])
    colour_by = _colour_by(rows, "series")
    shapes = shape("item", rows) if colour_by == "machine" else {}
    spec = {
        "encoding": {"x": x, "y": y, "color": colour(colour_by, rows)},
        "layer": [
            {"mark": {"type": "line", "strokeWidth": 2}, "encoding": {"detail": nominal("series")}},
            {"mark": {"type": "point", "size": 60, "filled": True, "opacity": 1}, "encoding": shapes},
        ],
    }
    return make_chart(about, rows, spec, {"series": "series", "batch": "batch", "images/s": "rate"})


def efficiency(runs: Sequence[Run]) -> Chart | None:
    """Return a roofline: achieved GMAC/s over MACs per byte, below what calibration reached (Williams et al. 2009)."""
    rows: list[Spec] = []
    table: list[Row] = []
    for item in timed_items(runs, lambda b: b.info.kind in TIMED):
        info, known = item.benchmark.info, achieved(item.run, item.benchmark)
        if known is None or not info.gmacs or not info.gbytes:
            continue
        rate, peak, share = known.gmacs_per_s, known.peak, known.share
        of_peak = "calibration disturbed" if known.disturbed else f"{share:.0%} of peak" if share else info.precision
        label = f"{item.title}: {number(rate)} GMAC/s, {of_peak}"
        intensity = info.gmacs / info.gbytes
        rows.append(item.row(label, intensity=intensity, rate=rate, model=info.model, case=info.case))
        table.append((item.label, item.run_name, info.gmacs, info.gbytes, rate, peak, 100 * share if share else None))
    if not rows:
        return None
    roofs = _roofs(runs[-MAX_LANES:], [row["intensity"] for row in rows])
    x = quantity("intensity", "MACs per byte moved", [r["intensity"] for r in rows + roofs], log=True)
    y = quantity("rate", "GMAC/s", [r["rate"] for r in rows + roofs], log=True)
    colour_by = _colour_by(rows, "model")
    by = colour(colour_by, rows)
    of_roofs = {"color": by} if colour_by == "machine" else {}
    roof = {"type": "line", "strokeDash": [5, 4], "strokeWidth": 1.5, "color": "var(--soft)"}
    text = {"type": "text", "align": "right", "baseline": "bottom", "dy": -3, "color": "var(--soft)"}
    point = {"type": "point", "filled": True, "size": 70, "opacity": 1}
    named = {"values": [corner for corner in roofs if corner["name"]]}
    spec = {
        "encoding": {"x": x, "y": y},
        "layer": [
            {"data": {"values": roofs}, "mark": roof, "encoding": {"detail": nominal("roof"), **of_roofs}},
            {"data": named, "mark": text, "encoding": {"text": nominal("name"), **of_roofs}},
            {"mark": point, "encoding": {"color": by, **shape("case", rows)}},
        ],
    }
    caption = "Roofline: forward passes below what memory copy (slope) and the fastest product (flat) reached here."
    columns = ("item", "run", "GMAC", "GB", "GMAC/s", "peak, GMAC/s", "share, %")
    return make_chart(("efficiency", "Efficiency", caption), rows, spec, Table(columns, tuple(table)))


def _roofs(runs: Sequence[Run], intensities: Sequence[float]) -> list[Spec]:
    """Return three corners per device and run; of roofs whose names would overlap, only the first has one."""
    found: list[Spec] = []
    machines = _machines(runs)
    peaks = [c.peak_gmacs_per_s for run in runs for c in run.record.calibration]
    apart = max(0.1, 0.1 * math.log(max(peaks, default=1) / min(peaks, default=1)))
    for run, name, machine in zip(runs, run_labels(runs), machines, strict=True):
        for c in run.record.calibration:
            rate, bandwidth = c.peak_gmacs_per_s, c.copy_gbytes_per_s
            ridge = rate / bandwidth
            crowded = any(other["name"] and abs(math.log(rate / other["rate"])) < apart for other in found)
            left, right = min(*intensities, ridge) / 2, max(*intensities, ridge) * 1.5
            device = c.device if c.precision == "fp32" else f"{c.device} {c.precision}"
            of = f"{machine} {device}" if len(set(machines)) > 1 else device
            label = f"{device}, {name}: product {number(rate)} GMAC/s, memory copy {number(bandwidth)} GB/s"
            corners = ((left, left * bandwidth, ""), (ridge, rate, ""), (right, rate, "" if crowded else of))
            found += [
                {"intensity": x, "rate": y, "name": text, "roof": f"{name} {of}", "machine": machine, "label": label}
                for x, y, text in corners
            ]
    return found


def trade_off(runs: Sequence[Run]) -> Chart | None:
    """Return accuracy over latency: mean score and median latency over the cases, per model and settings."""
    groups: dict[tuple[str, str, str], tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for run, name, machine in zip(runs, run_labels(runs), _machines(runs), strict=True):
        for b in run.benchmarks:
            info, score = b.info, accuracy_score(b)
            setup = f"{info.model} {info.runtime} {info.precision} {info.device} @{info.size}"
            scores, seconds = groups[info.model, machine, setup + (f", {name}" if len(runs) > 1 else "")]
            scores += [] if score is None else [score]
            seconds += [statistics.median(b.samples)] if info.kind == "latency" and usable(b.samples) else []
    rows: list[Spec] = []
    for (model, machine, setup), (scores, seconds) in groups.items():
        if scores and seconds:
            score, mid = 100 * statistics.fmean(scores), statistics.median(seconds)
            label = f"{setup}: {score:.1f}% at {milliseconds(mid)}"
            fields = {"setup": setup, "model": model, "machine": machine, "label": label}
            rows.append({**fields, "ms": mid * 1e3, "score": score})
    colour_by = _colour_by(rows, "model")
    spec = {
        "mark": {"type": "point", "filled": True, "size": 90, "opacity": 0.9},
        "encoding": {
            "x": quantity("ms", "median latency, ms", [row["ms"] for row in rows]),
            "y": linear("score", "mean score, %", scale={"domain": [0, 100]}),
            "color": colour(colour_by, rows),
            **(shape("model", rows) if colour_by == "machine" else {}),
        },
    }
    caption = "mIoU of cases with ground truth, else the share of expectations met; up and left is better."
    columns = {"model and settings": "setup", "mean score, %": "score", "median latency, ms": "ms"}
    return make_chart(("trade-off", "Accuracy against latency", caption), rows, spec, columns)


def run_order(runs: Sequence[Run]) -> Chart | None:
    """Return each sample against its item's median over the time since the run began."""
    items = timed_items(runs, lambda b: b.info.kind in TIMED)
    rows: list[Spec] = []
    table: list[Row] = []
    for item in items:
        samples, began = item.benchmark.samples, item.benchmark.info.started_s
        ends = (began + np.cumsum(samples)).tolist()
        for index, seconds in _thinned(samples, MAX_MARKS // len(items)):
            percent = 100 * (seconds / item.median.value - 1)
            label = f"{item.title}, after {ends[index]:.1f} s: {percent:+.1f}%"
            rows.append(item.row(label, at=ends[index], percent=percent))
        half = len(samples) // 2
        change = 100 * (statistics.median(samples[half:]) / statistics.median(samples[:half]) - 1) if half else None
        table.append((item.label, item.run_name, item.benchmark.info.order, began, change))
    spec = {
        "mark": {"type": "point", "filled": True, "size": 16, "opacity": 0.65},
        "encoding": {
            "x": linear("at", "since the run began, s"),
            "y": linear("percent", "from its median, %"),
            "color": colour(_colour_by(rows, "run"), rows),
        },
    }
    caption = "Each round against its item's median, in the order measured: shows drift and bursts of other load."
    columns = ("item", "run", "position", "began at, s", "second half against first, %")
    return make_chart(("run-order", "Run order and drift", caption), rows, spec, Table(columns, tuple(table)))


def over_time(runs: Sequence[Run]) -> Chart | None:
    """Return the history of items that have three runs on a machine, against their first run, with change points."""
    rows: list[Spec] = []
    for series in history(runs):
        for index, point in enumerate(series.points if len(series.points) >= 3 else (), 1):
            step = "" if point.change is None else f"changed for good by {100 * point.change:+.1f}%"
            fields = {"item": series.item, "machine": series.machine, "run": point.run, "commit": point.commit}
            label = f"{', '.join(fields.values())}: {milliseconds(point.seconds)} {step}".strip()
            percent = 100 * point.seconds / series.points[0].seconds
            rows.append(
                {**fields, "index": index, "percent": percent, "ms": 1e3 * point.seconds, "label": label, "step": step}
                | {"series": f"{series.item} {series.machine}"}
            )
    line = {"type": "line", "strokeWidth": 1.5, "opacity": 0.7, "point": {"size": 40, "filled": True}}
    ring = {"type": "point", "size": 220, "filled": False, "strokeWidth": 2, "color": "var(--bad)", "opacity": 1}
    colour_by = _colour_by(rows, "item")
    colours = colour(colour_by, rows, legend=colour_by == "machine")
    spec = {
        "encoding": {
            "x": linear("index", "run, oldest first", axis={"tickMinStep": 1, "format": "d"}),
            "y": linear("percent", "of its first run, %", scale={"zero": False}),
        },
        "layer": [
            {"mark": line, "encoding": {"color": colours, "detail": nominal("series")}},
            {"data": {"values": [row for row in rows if row["step"]][:MAX_LANES]}, "mark": ring},
        ],
    }
    caption = "Median latency of each item against its first run here; rings mark where it changed for good."
    columns = {name: name for name in ("item", "machine", "run", "commit")}
    columns |= {"median, ms": "ms", "change point": "step"}
    return make_chart(("history", "Over time", caption), rows, spec, columns, wide=True, height=280)


def _thinned(samples: Sequence[float], most: int) -> Iterable[tuple[int, float]]:
    """Return every k-th sample with its index, at most about `most`."""
    step = max(1, math.ceil(len(samples) / max(1, most)))
    return list(enumerate(samples))[::step]
