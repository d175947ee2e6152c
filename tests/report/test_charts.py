"""Charts: every mark's number is the one in the table behind it, and both are those of the run."""

from __future__ import annotations

import math
import re
import statistics
from html import unescape
from pathlib import Path

import pytest

from segcore.core.records import Run
from segcore.judgement.statistics import quantile_interval
from segcore.report import charts, vega
from segcore.report.vega import Chart
from segcore.report.wording import milliseconds, number, run_labels
from tests.support.factories import MODELS, make_run
from tests.support.tables import as_number


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"), "base")


def labels(chart: Chart) -> list[str]:
    """Return the labels of a chart's marks, without those of axes and legends."""
    marks = re.findall(r'aria-label="([^"]*)" role="graphics-symbol" aria-roledescription="([^"]*)"', chart.svg)
    return [unescape(text) for text, what in marks if what not in ("axis", "legend")]


def made(chart: Chart | None) -> Chart:
    assert chart is not None
    return chart


def with_samples(run: Run, samples: tuple[float, ...]) -> Run:
    return run.model_copy(
        update={"benchmarks": tuple(b.model_copy(update={"samples": samples}) for b in run.benchmarks)}
    )


def test_latency(run: Run) -> None:
    chart = made(charts.latency([run]))
    items = [b for b in run.benchmarks if b.info.kind == "latency"]
    assert len(chart.table.rows) == len(items) == 8
    for row, benchmark in zip(chart.table.rows, items, strict=True):
        interval = quantile_interval(benchmark.samples, 0.5).exp()
        assert row[2:] == (interval.value * 1e3, interval.low * 1e3, interval.high * 1e3, 40.0)
        label_start = f"{row[0]}, base: {milliseconds(interval.value)} (95%: {number(interval.low * 1e3)} to "
        assert any(label.startswith(label_start) for label in labels(chart))


def test_too_few_rounds_have_no_interval(run: Run) -> None:
    chart = made(charts.latency([with_samples(run, (0.01, 0.011))]))
    assert all("too few rounds for an interval" in label for label in labels(chart))
    assert all(math.isinf(as_number(row[4])) for row in chart.table.rows)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_unusable_samples_are_not_drawn(run: Run, bad: float) -> None:
    assert charts.all_charts([with_samples(run, (0.01, bad))]) == ()


def test_distribution_draws_every_round(run: Run) -> None:
    chart = made(charts.distribution([run]))
    assert len(labels(chart)) == 8 * 40
    first = next(b for b in run.benchmarks if b.info.kind == "latency")
    assert chart.table.rows[0][2] == pytest.approx(min(first.samples) * 1e3)
    assert chart.table.rows[0][6] == pytest.approx(max(first.samples) * 1e3)


def test_very_many_rounds_are_thinned(run: Run) -> None:
    chart = made(charts.distribution([with_samples(run, tuple(0.01 + i * 1e-6 for i in range(5000)))]))
    assert 1000 < len(labels(chart)) <= vega.MAX_MARKS
    assert len(chart.svg) < 700_000


def test_throughput_is_images_not_batches(run: Run) -> None:
    chart = made(charts.throughput([run]))
    for series, batch, rate in chart.table.rows:
        benchmark = next(
            b for b in run.benchmarks if b.info.kind == "throughput" and (b.info.model, b.info.batch) == (series, batch)
        )
        assert as_number(rate) == pytest.approx(as_number(batch) / statistics.median(benchmark.samples), rel=1e-3)


def test_stages_are_medians_in_the_order_of_the_pipeline(run: Run) -> None:
    chart = made(charts.stages([run]))
    assert [row[2] for row in chart.table.rows[:3]] == ["preprocess", "forward", "postprocess"]
    first = next(b for b in run.benchmarks if b.info.kind == "latency")
    assert [row[3] for row in chart.table.rows[:3]] == [statistics.median(s) * 1e3 for s in first.info.stages.values()]


def test_efficiency_is_a_share_of_the_calibrated_peak(run: Run) -> None:
    chart = made(charts.efficiency([run]))
    latency = next(row for row in chart.table.rows if row[0] == "fcn_resnet101 chelsea @320")
    gmacs, seconds = MODELS["fcn_resnet101"]
    assert latency[2] == gmacs
    assert latency[3] == pytest.approx(0.02 * gmacs**0.5)
    assert as_number(latency[4]) == pytest.approx(gmacs / (0.85 * seconds), rel=0.03)
    assert latency[5] == pytest.approx(190.0)
    assert as_number(latency[6]) == pytest.approx(100 * as_number(latency[4]) / 190.0)


def test_roof_has_its_ridge_where_copy_and_matrix_product_meet(run: Run) -> None:
    left, ridge, right = charts._roofs([run], [5.0, 400.0])
    assert (ridge["intensity"], ridge["rate"]) == (pytest.approx(190 / 14), 190.0)
    assert left["rate"] == pytest.approx(14 * left["intensity"])
    assert left["intensity"] < 5 < 400 < right["intensity"]
    assert (right["rate"], right["name"]) == (190.0, "cpu")


def test_no_efficiency_without_calibration(run: Run) -> None:
    record = run.record.model_copy(update={"calibration": ()})
    assert charts.efficiency([run.model_copy(update={"record": record})]) is None


def test_trade_off_scores_expectations_where_there_is_no_truth(run: Run) -> None:
    chart = made(charts.trade_off([run]))
    assert [(row[0], row[1]) for row in chart.table.rows] == [
        ("embedded torch fp32 cpu @320", 100.0),
        ("fcn_resnet101 torch fp32 cpu @320", 100.0),
    ]


def test_run_order_shows_a_drift(run: Run) -> None:
    chart = made(charts.run_order([with_samples(run, (0.010,) * 20 + (0.012,) * 20)]))
    assert all(as_number(row[4]) == pytest.approx(20.0) for row in chart.table.rows)


def test_history_rings_where_an_item_changed_for_good(tmp_path: Path) -> None:
    runs = [
        make_run(
            tmp_path,
            f"r{day}",
            seed=day,
            slower=1.0 if day < 4 else 1.3,
            models=("embedded",),
            started=f"2026-11-{day + 1:02}T09:00:00+00:00",
        )
        for day in range(8)
    ]
    chart = made(charts.over_time(runs))
    steps = [(row[2], row[5]) for row in chart.table.rows if row[5] and "latency" in str(row[0])]
    assert {run for run, _ in steps} == {"r4"}
    assert all(re.fullmatch(r"changed for good by \+(2[6-9]|3[0-4])\.\d%", str(text)) for _, text in steps)


def test_runs_of_one_name_are_numbered(run: Run) -> None:
    assert run_labels([run, run]) == ("#1 base", "#2 base")
    assert len(made(charts.latency([run, run])).table.rows) == 16


def test_nothing_to_draw(run: Run) -> None:
    assert charts.all_charts([run.model_copy(update={"benchmarks": ()})]) == ()


def test_a_sweep_over_threads_has_a_line_each(run: Run) -> None:
    swept = tuple(
        b.model_copy(
            update={
                "info": b.info.model_copy(update={"threads": threads}),
                "samples": tuple(seconds / threads for seconds in b.samples),
            }
        )
        for threads in (1, 2)
        for b in run.benchmarks
        if b.info.kind == "throughput" and b.info.model == "embedded"
    )
    assert charts.thread_sweep([run]) is None
    both = run.model_copy(update={"benchmarks": (*run.benchmarks, *swept)})
    chart = made(charts.thread_sweep([both]))
    assert [row[:2] for row in chart.table.rows] == [
        (f"{threads} thread{s}", batch) for threads, s in ((1, ""), (2, "s")) for batch in (1.0, 2.0, 4.0)
    ]
    one, two = (as_number(row[2]) for row in chart.table.rows if row[1] == 4.0)
    assert two == pytest.approx(2 * one)
    assert f"2 threads, batch 4: {number(two)} images/s" in labels(chart)
    assert len(chart.svg) > 1000
    assert len(made(charts.throughput([both])).table.rows) == len(
        made(charts.throughput([run])).table.rows
    )  # not these too
    assert [chart.name for chart in charts.all_charts([both])].count("threads") == 1


def test_lanes_and_marks_are_cut_with_a_note(run: Run) -> None:
    one = run.benchmarks[0]
    many = [
        one.model_copy(update={"info": one.info.model_copy(update={"case": f"case {n}"})})
        for n in range(vega.MAX_LANES + 50)
    ]
    chart = made(charts.latency([run.model_copy(update={"benchmarks": tuple(many)})]))
    assert len(chart.table.rows) == vega.MAX_LANES + 50
    assert len(labels(chart)) == 2 * vega.MAX_LANES, "an interval and a point in each lane"
    assert "50 of 150 marks are left out" in chart.caption


@pytest.mark.slow
def test_a_chart_whose_converter_dies_keeps_its_numbers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    vega._converter().close()
    monkeypatch.setattr("segcore.report.vega._PROGRAM", "import os, sys; sys.stdin.readline(); os.abort()")
    chart = made(charts.latency([run]))
    assert (chart.svg, len(chart.table.rows)) == ("", 8)
    assert "Not drawn" in chart.caption
    monkeypatch.undo()
    assert made(charts.latency([run])).svg, "the next chart has another converter"


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """A run of each of three machines, as `segcore sync` stores them."""
    store = tmp_path_factory.mktemp("store") / "machines"
    names = ("laptop", "server-with-a-name-of-its-own-that-is-long", "ci")
    return [make_run(store / name, "main", slower=1 + n / 4, seed=n) for n, name in enumerate(names)]


def colours(svg: str, marks: str) -> set[str]:
    """Return the colours of the marks of one kind: points, lines."""
    groups = re.findall(rf'<g class="mark-{marks}[^"]*"[^>]*>(.*?)</g>', svg, re.DOTALL)
    return set(re.findall(r'(?:fill|stroke)="(var\(--c\d\))"', "".join(groups)))


def test_colour_is_the_machine_and_shape_the_case(machines: list[Run]) -> None:
    for chart in charts.all_charts(machines):
        if chart.name == "stages":  # whose colours are stages
            continue
        legend = re.findall(r">([^<>]+)</text>", chart.svg)
        assert {"laptop", "server-with-a-name-of-its…", "ci"} <= set(map(unescape, legend)), chart.name
        assert colours(chart.svg, "symbol") <= {f"var(--c{n})" for n in (1, 2, 3)}, chart.name
    efficiency = made(charts.efficiency(machines))
    assert {"chelsea", "astronaut"} <= set(re.findall(r">([^<>]+)</text>", efficiency.svg))


def test_roofs_carry_their_machine(machines: list[Run]) -> None:
    roofs = charts._roofs(machines, [5.0])
    assert len({roof["machine"] for roof in roofs}) == 3
    assert [roof["name"] for roof in roofs if roof["name"]] == ["laptop cpu"], "others of the same height have colours"
    assert colours(made(charts.efficiency(machines)).svg, "line") == {f"var(--c{n})" for n in (1, 2, 3)}


def test_every_drawing_scales_and_wide_ones_have_one_for_narrow_screens(machines: list[Run]) -> None:
    for chart in charts.all_charts(machines):
        for svg, most in ((chart.svg, vega.WIDE if chart.wide else vega.NARROW), (chart.small, vega.NARROW)):
            if svg:
                (width,) = re.findall(r'viewBox="0 0 ([\d.]+) [\d.]+"', svg[:500])
                assert float(width) <= most + 1, chart.name
        assert bool(chart.small) == chart.wide
        assert len(chart.small) < 700_000


@pytest.mark.parametrize("length", [5, 26, 40])
def test_legends_fit_whatever_the_names(length: int) -> None:
    rows = [{"machine": f"{n}{'W' * length}", "label": "", "x": 1.0} for n in range(5)]
    spec = {"mark": "point", "encoding": {"x": vega.linear("x", "x"), "color": vega.colour("machine", rows)}}
    svg = vega.draw(rows, spec, wide=False, height=100)
    (width,) = re.findall(r'viewBox="0 0 ([\d.]+)', svg)
    assert float(width) <= vega.NARROW + 1 or length == 40


def test_bars_too_different_for_one_axis_are_shares(run: Run, machines: list[Run]) -> None:
    assert "share of each stage" in made(charts.stages([run])).svg
    alike = run.model_copy(update={"benchmarks": tuple(b for b in run.benchmarks if b.info.model == "embedded")})
    assert "median of each stage, ms" in made(charts.stages([alike])).svg
