"""The report in a terminal: folded to its width, in colour only where there is any, without control characters."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Literal

import pytest
from rich.console import Console

from segcore.core.limits import Limits
from segcore.core.records import Benchmark, CheckRecord, EnergyRecord, OutcomeRecord, Run, WarningRecord, WeightsRecord
from segcore.judgement.gate import judge
from segcore.report.model import ReportModel, build_report
from segcore.report.terminal import print_report, render_run
from tests.support.factories import make_hostile, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"))


def row(text: str, *cells: str) -> str:
    """The line that begins with these cells."""
    pattern = r"^" + r"\s+".join(re.escape(cell) for cell in cells) + r"\b.*$"
    found = re.findall(pattern, text, re.MULTILINE)
    assert found, f"no line {cells} in\n{text}"
    return str(found[0])


def test_accuracy_latency_and_throughput_have_a_table_each(run: Run) -> None:
    text = render_run(run)
    assert re.search(r"Accuracy \(runtime torch, precision fp32, device cpu, size 320\)", text)
    assert re.search(r"Latency, ms \(runtime torch, precision fp32, device cpu\)", text)
    assert row(text, "chelsea", "embedded", "cat").endswith("2/2  passed")
    heading = row(text, "case", "model", "size", "p50")
    assert "p90" in heading  # 40 rounds bound it
    assert "p99" not in heading
    assert "batch 1  batch 2  batch 4" in text


def test_the_figures_are_those_of_the_samples(run: Run) -> None:
    benchmark = next(b for b in run.benchmarks if b.info.key == "latency[chelsea-embedded-torch-cpu-320]")
    ordered = sorted(benchmark.samples)
    p50, p90, forward, rounds = row(render_run(run), "chelsea", "embedded", "320").split()[3:]
    assert float(p50) == pytest.approx((ordered[19] + ordered[20]) / 2 * 1e3, rel=0.005)
    assert ordered[34] * 1e3 * 0.995 <= float(p90) <= ordered[37] * 1e3 * 1.005
    assert (forward, rounds) == ("85", "40")


def test_throughput_counts_photos_not_batches(run: Run) -> None:
    text = render_run(run)
    cells = row(text[text.index("Throughput") :], "embedded").split()
    one, two, four = (float(cell) for cell in cells[1:])
    batch = next(b for b in run.benchmarks if b.info.key == "throughput[chelsea-embedded-torch-cpu-320-b4]")
    assert four == pytest.approx(4 / sorted(batch.samples)[20], rel=0.02)
    assert one < two < four  # the factory's batches are sublinear


def test_random_weights_are_marked_in_every_table(run: Run) -> None:
    random = WeightsRecord(kind="random", name="seed 0", sha256="0" * 64)
    infos = [
        b.model_copy(update={"info": b.info.model_copy(update={"weights": random})})
        if b.info.model != "embedded"
        else b
        for b in run.benchmarks
    ]
    text = render_run(run.model_copy(update={"benchmarks": tuple(infos)}), width=200)
    for line in text.splitlines():
        if "fcn_resnet101" in line:
            assert "fcn_resnet101 (random)" in line


def test_failures_skips_errors_warnings_and_interruption_are_shown(run: Run) -> None:
    first = next(b for b in run.benchmarks if b.info.kind == "accuracy")
    assert first.info.accuracy is not None
    check = CheckRecord(name="dominant class", wanted="dog", found="cat", passed=False)
    accuracy = first.info.accuracy.model_copy(update={"checks": (check,)})
    info = first.info.model_copy(
        update={"accuracy": accuracy, "warnings": (WarningRecord(code="trend", value=-0.12, text="changed by -12 %"),)}
    )
    other = run.benchmarks[0].info.model_copy(
        update={"warnings": (WarningRecord(code="trend", value=0.07, text="changed by +7 %"),)}
    )
    outcomes = (
        OutcomeRecord(item="a", kind="latency", outcome="skipped", reason="no network [bold]", key="latency[a]"),
        OutcomeRecord(item="b", kind="latency", outcome="skipped", reason="no network [bold]", key="latency[b]"),
        OutcomeRecord(item="c", kind="latency", outcome="error", reason="out of memory", key="latency[c]"),
    )
    record = run.record.model_copy(
        update={
            "outcomes": outcomes,
            "complete": False,
            "warnings": (WarningRecord(code="battery", text="on battery"),),
        }
    )
    text = render_run(
        run.model_copy(
            update={
                "record": record,
                "benchmarks": (
                    run.benchmarks[0].model_copy(update={"info": other}),
                    first.model_copy(update={"info": info}),
                ),
            }
        ),
        width=200,
    )
    assert re.search(r"0/1 +FAILED", text)
    assert "2 skipped: no network [bold]\n  latency[a], latency[b]" in text
    assert "1 error: out of memory" in text
    assert "  on battery" in text
    assert f"{first.info.key}: changed by -12 % (and 1 more)" in text
    assert "Incomplete:" in text


def test_nothing_is_cut_off_in_80_columns(run: Run) -> None:
    long = "a-case-with-a-name-of-as-many-letters-as-a-name-may-have-in-a-yaml"
    benchmarks = [b.model_copy(update={"info": b.info.model_copy(update={"case": long})}) for b in run.benchmarks]
    for width in (80, 60):
        text = render_run(run.model_copy(update={"benchmarks": tuple(benchmarks)}), width=width)
        assert max(map(len, text.splitlines())) <= width
        assert "…" not in text
        joined = re.sub(r"\s", "", text)
        assert joined.count("passed") == 4
    assert max(map(len, render_run(run, width=80).splitlines())) <= 80


def test_plain_text_has_no_escapes_and_colour_has(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in render_run(run)
    assert "\x1b[32mpassed" in render_run(run, color=True)


def test_samples_that_cannot_be_judged_show_no_figure(run: Run, tmp_path: Path) -> None:
    broken = run.benchmarks[0].model_copy(update={"samples": (float("nan"), 1.0)})
    text = render_run(run.model_copy(update={"benchmarks": (broken,)}))
    assert "nan" not in text
    assert re.search(r"320?\s+-\s+-\s+2|160\s+-\s+-\s+2", text)


def test_builds_are_listed_with_their_longest_time(run: Run) -> None:
    def item(number: int, **more: object) -> Benchmark:
        benchmark = run.benchmarks[number]
        return benchmark.model_copy(update={"info": benchmark.info.model_copy(update=more)})

    benchmarks = (
        item(0, runtime="torch", build_s=0.0),
        item(1, runtime="openvino", precision="int8", build_s=0.0),
        item(2, runtime="torch-compile", build_s=3.0),
        item(3, runtime="torch-compile", build_s=12.34),
    )
    text = render_run(run.model_copy(update={"benchmarks": benchmarks}))
    assert "Export, quantisation and compilation" in text
    assert re.search(r"^  embedded openvino int8 cpu: [^0-9]+$", text, re.MULTILINE)
    assert "  embedded torch-compile fp32 cpu: 12.3 s\n" in text
    assert text.count(" cpu: ") == 2
    assert "compilation" not in render_run(run)


def test_energy_is_shown_where_it_was_counted(run: Run) -> None:
    first = run.benchmarks[0]
    energy = EnergyRecord(joules=60.0, calls=8, counter="RAPL package-0")
    counted = first.model_copy(update={"info": first.info.model_copy(update={"energy": energy})})
    text = render_run(run.model_copy(update={"benchmarks": (counted, *run.benchmarks[1:])}))
    assert row(text, "case", "model", "size", "p50").endswith("J/image")
    assert row(text, "chelsea", "embedded", "160").split()[-1] == "7.50"
    assert row(text, "chelsea", "embedded", "320").split()[-1] == "-"
    assert "J/image" not in render_run(run)


def test_an_empty_run(run: Run) -> None:
    assert render_run(run.model_copy(update={"benchmarks": ()})) == ""


def test_a_sweep_over_threads_has_a_row_each(run: Run) -> None:
    swept = tuple(
        b.model_copy(update={"info": b.info.model_copy(update={"threads": threads})})
        for threads in (1, 2)
        for b in run.benchmarks
        if b.info.kind == "throughput" and b.info.model == "embedded"
    )
    text = render_run(run.model_copy(update={"benchmarks": swept}))
    assert row(text, "threads").split() == ["threads", "batch", "1", "batch", "2", "batch", "4"]
    assert re.findall(r"^ +(\d)(?: +[\d.]+){3}$", text, re.MULTILINE) == ["1", "2"]
    assert "threads" not in render_run(run)


# ---- the report of one run against another


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    directory = tmp_path_factory.mktemp("runs")
    base = make_run(directory, "base", models=("embedded",))
    return base, make_run(directory, "head", models=("embedded",), slower=1.5, shift=9, seed=1)


def printed(report: ReportModel, colours: Literal["truecolor"] | None = None, *, quiet: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=80, color_system=colours, force_terminal=colours is not None, highlight=False)
    print_report(report, console, quiet=quiet)
    return out.getvalue()


def bare(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.parametrize("colours", [None, "truecolor"])
def test_it_fits_into_80_columns(pair: tuple[Run, Run], colours: Literal["truecolor"] | None) -> None:
    base, head = pair
    text = bare(printed(build_report([head], base, judge([base], [head], Limits())), colours))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert text.startswith("Failed: ")
    assert re.search(r"^latency\[chelsea-embedded-torch-cpu-320\]\n  median +[\d.]+ ms", text, re.MULTILINE)
    for part in ("base cpu", "Latency", "Accuracy"):
        assert part in text


def test_pictures_are_drawn_where_there_are_colours(pair: tuple[Run, Run]) -> None:
    report = build_report([pair[1]], pair[0])
    assert "▀" not in printed(report)
    coloured = printed(report, "truecolor")
    assert coloured.count("▀") > 1000
    assert "38;2;64;0;0" in coloured  # the cat's colour of the VOC palette
    assert "of the pixels changed class" in coloured


def test_plain_output_has_no_escape_sequences(pair: tuple[Run, Run]) -> None:
    assert "\x1b" not in printed(build_report(pair))


def test_quiet_is_one_line(pair: tuple[Run, Run]) -> None:
    assert printed(build_report([pair[0]]), quiet=True) == "Passed: all 9 items\n"


def test_names_cannot_control_the_terminal(pair: tuple[Run, Run]) -> None:
    hostile = make_hostile(pair[1])
    assert "\x1b" not in printed(build_report([hostile]))
    assert "\x1b[2J" not in printed(
        build_report([hostile], hostile, judge([hostile], [hostile], Limits())), "truecolor"
    )
