"""Whole bench runs in a directory of their own: small photos, a network that sees one class, real files."""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

import segcore.inference.runtimes.torch_profile
import segcore.measurement.machine

# All that a run imports is imported here: pytester forgets modules that an inner run was the first to import, and
# torch cannot be imported twice.
import segcore.plugin.collect
import segcore.plugin.hooks
import segcore.report.html
import segcore.report.markdown
from segcore.core.errors import DeviceError, OfflineError, OutputError
from segcore.core.image_files import load_indexed_png
from segcore.core.records import Run, WarningRecord
from segcore.inference.models import LoadedModel
from segcore.inference.pipeline import Segmenter
from segcore.judgement.statistics import bounds_quantile
from segcore.results.pictures import picture_path
from segcore.results.store import load_run
from tests.support.bench_project import QUICK, fake_calibration
from tests.support.fakes import fake_counter

pytest_plugins = ["pytester"]

CAT = 8
CAN_RESET_MEMORY = Path("/proc/self/clear_refs").exists()


def saved(where: Path) -> Run:
    (path,) = where.glob("reports/runs/*/0001_*.json")
    return load_run(path)


@pytest.mark.slow
@pytest.mark.parametrize(("given", "rounds"), [((), range(7, 29)), (("--benchmark-min-rounds=5",), [5])])
def test_an_item_has_enough_rounds_for_its_median_unless_the_user_says_how_many(
    where: Path, pytester: pytest.Pytester, given: tuple[str, ...], rounds: Sequence[int]
) -> None:
    (where / "bench" / "test_other.py").write_text(
        "def test_blue_latency(benchmark): benchmark(__import__('time').sleep, 0.01)"
    )
    options = ("-k", "blue and latency", "--benchmark-max-time=0.000001", *QUICK[2:], *given)
    pytester.runpytest_inprocess("bench/", "--benchmark-save", *options).assert_outcomes(passed=2, deselected=14)
    (item,) = saved(where).benchmarks
    assert len(item.samples) in rounds
    assert {len(times) for times in item.info.stages.values()} == {len(item.samples)}
    assert given or bounds_quantile(item.samples, 0.5) or len(item.samples) == 28
    written = json.loads(saved(where).path.read_bytes())["benchmarks"]
    assert [len(b["stats"]["data"]) for b in written if "segcore" not in b["extra_info"]] == [5]


@pytest.mark.slow
def test_a_run_is_saved_with_everything_in_it(where: Path, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess("bench/", "--benchmark-save", *QUICK)
    done.assert_outcomes(passed=3 + 3 + 9)
    run = saved(where)
    assert run.path.stem == "0001_box-unversioned"
    assert run.record.complete
    assert [b.info.key for b in run.benchmarks][:6] == [
        f"{kind}[{item}]"
        for kind in ("accuracy", "latency")
        for item in ("red-embedded-torch-cpu-32", "red-embedded-torch-cpu-48", "blue-embedded-torch-cpu-32")
    ]
    assert {o.key for o in run.record.outcomes} == {b.info.key for b in run.benchmarks}
    assert {o.outcome for o in run.record.outcomes} == {"passed"}
    assert [b.info.order for b in run.benchmarks] == list(range(15))
    assert run.record.calibration == (fake_calibration(segcore.inference.devices.open_device("cpu")),)
    assert run.record.machine == segcore.measurement.machine.fingerprint()
    (first,) = (b.info for b in run.benchmarks if b.info.cold_start_s is not None)
    assert first.order == 0  # the model is loaded once
    assert first.cold_start_s
    assert 0 < first.cold_start_s < 60
    for benchmark in run.benchmarks:
        info = benchmark.info
        assert info.weights.name == "constant"
        assert info.input_shape == (info.batch, 3, info.size, info.size * 60 // 40)
        assert info.gmacs == 0.25 * info.batch
        assert info.build_s == info.first_build_s == 0
        assert info.model_bytes is None  # the stand-in has no weights
        assert (info.peak_memory_bytes is not None) == (info.kind != "accuracy" and CAN_RESET_MEMORY)
        if info.kind != "accuracy":
            assert len(benchmark.samples) >= 3
            assert {len(times) for times in info.stages.values()} == {len(benchmark.samples)}
            shares = [sum(parts) for parts in zip(*info.stages.values(), strict=True)]
            assert all(0 < share <= total for share, total in zip(shares, benchmark.samples, strict=True))


@pytest.mark.slow
def test_junit_xml_of_pytest_has_the_figures_of_each_item(where: Path, pytester: pytest.Pytester) -> None:
    pytester.runpytest_inprocess("bench/", "-k", "blue", "--benchmark-save", "--junit-xml=out.xml", *QUICK)
    run = saved(where)
    assert [(case.file, case.line) for case in run.record.cases] == [("cases/all.yaml", 9)]
    cases = ET.parse("out.xml").iter("testcase")
    found = [{p.attrib["name"]: p.attrib["value"] for p in case.iter("property")} for case in cases]
    assert len(found) == len(run.benchmarks) == 5
    for benchmark in run.benchmarks:
        (properties,) = (each for each in found if each["segcore.item"] == benchmark.info.key)
        if benchmark.info.kind == "latency":
            median = np.median(benchmark.samples)
            assert float(properties["segcore.latency_ms"]) == pytest.approx(1e3 * median, rel=1e-4)
        if benchmark.info.kind == "accuracy":
            assert properties["segcore.expectations_met_percent"] == "100.0"


@pytest.mark.slow
def test_pictures_lie_beside_the_run_file(where: Path, pytester: pytest.Pytester) -> None:
    pytester.runpytest_inprocess("bench/test_accuracy.py", "--benchmark-save", *QUICK).assert_outcomes(passed=3)
    run = saved(where)
    for benchmark in run.benchmarks:
        accuracy = benchmark.info.accuracy
        assert accuracy is not None
        assert accuracy.class_map is not None
        assert accuracy.class_map.startswith("0001_box-unversioned/")
        assert (load_indexed_png(run.path.parent / accuracy.class_map) == CAT).all()
        for name in (accuracy.margin_map, accuracy.photo, accuracy.overlay):
            assert name is not None
            assert (run.path.parent / name).is_file()


@pytest.mark.slow
def test_the_summary_fits_in_80_columns(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = pytester.runpytest_inprocess("bench/", *QUICK).stdout.str()
    ours = text[text.index(" segcore =") :]
    assert max(map(len, ours.splitlines())) <= 80
    assert "Accuracy (model embedded, runtime torch" in ours
    assert "Latency, ms (model embedded" in ours
    assert "batch 1  batch 2  batch 4" in ours
    assert "run: reports/runs/unsaved.json" in ours
    assert "class maps and overlays: reports/runs/unsaved/" in ours
    assert "\x1b" not in text
    assert re.search(r"^segcore: 3 accuracy, 3 latency, 9 throughput on cpu: about \d+:\d\d$", text, re.MULTILINE)
    assert re.search(r"^\[15/15\] throughput\[.*\] passed in \d+\.\d s \(about 0:00 left\)$", text, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "stem"),
    [
        (["--benchmark-save", "bench/test_accuracy.py"], "0001_box-unversioned"),
        (["bench/test_accuracy.py", "--benchmark-save", "nightly"], "0001_nightly"),
        (["--benchmark-save=bench", "bench/test_accuracy.py"], "0001_bench"),
    ],
)
def test_names_of_runs(where: Path, pytester: pytest.Pytester, arguments: list[str], stem: str) -> None:
    pytester.runpytest_inprocess(*arguments, *QUICK).assert_outcomes(passed=3)
    assert saved(where).path.stem == stem


def test_names_that_are_no_file_names_are_refused(where: Path, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess("bench/", "--benchmark-save=a/b", *QUICK)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*Must not contain any of these characters*"])


@pytest.mark.slow
def test_a_failed_expectation_says_what_was_found_and_is_recorded(where: Path, pytester: pytest.Pytester) -> None:
    text = (where / "cases" / "all.yaml").read_text()
    (where / "cases" / "all.yaml").write_text(text.replace("dominant: cat}", "dominant: dog, absent: [cat]}"))
    done = pytester.runpytest_inprocess("bench/test_accuracy.py", "--benchmark-save", *QUICK)
    done.assert_outcomes(passed=2, failed=1)
    assert done.ret == pytest.ExitCode.TESTS_FAILED
    done.stdout.fnmatch_lines(
        [
            "2 of 2 expectations do not hold",
            "  dominant class: wanted dog, found cat",
            "  absence of cat: wanted 0 %, found 100.00 %",
            "  seen: cat 100.00 %",
            "  look at: *0001_box-unversioned/blue-embedded-torch-cpu-32.overlay.jpg",
        ],
        consecutive=True,
    )
    run = saved(where)
    accuracy = next(b.info.accuracy for b in run.benchmarks if b.info.case == "blue")
    assert accuracy is not None
    assert not accuracy.passed
    (outcome,) = (o for o in run.record.outcomes if o.outcome == "failed")
    assert outcome.key == "accuracy[blue-embedded-torch-cpu-32]"
    assert "wanted dog, found cat" in outcome.reason


@pytest.mark.slow
def test_random_weights_are_timed_but_not_judged(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def offline(name: str, settings: Any = None) -> Path:
        asked.append(name)
        raise OfflineError("weights.example is out of reach")

    monkeypatch.setattr("segcore.inference.models.fetch_weights", offline)
    done = pytester.runpytest_inprocess("bench/", "--benchmark-save", "-k", "accuracy or latency", *QUICK)
    done.assert_outcomes(passed=3, skipped=3, deselected=9)
    assert asked == ["embedded"]  # the network is tried once
    run = saved(where)
    assert {b.info.weights.kind for b in run.benchmarks} == {"random"}
    reasons = {o.reason for o in run.record.outcomes if o.outcome == "skipped"}
    assert reasons == {
        "embedded has random weights, which say nothing of accuracy: weights.example is out of reach; "
        "to download them: segcore fetch --model embedded"
    }
    done.stdout.fnmatch_lines(["segcore: embedded is timed on random weights: *", "*embedded (random)*"])


@pytest.mark.slow
def test_weights_asked_for_by_name_never_fall_back(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: Any, **__: Any) -> LoadedModel:
        raise OfflineError("weights.example is out of reach")

    monkeypatch.setattr("segcore.inference.models.load", offline)
    done = pytester.runpytest_inprocess("bench/test_latency.py", "--segcore-weights=pretrained", *QUICK)
    done.assert_outcomes(errors=3)
    done.stdout.fnmatch_lines(["*weights.example is out of reach*"])


@pytest.mark.slow
def test_a_photo_that_cannot_be_had_skips_its_case_alone(where: Path, pytester: pytest.Pytester) -> None:
    remote = f"  - name: remote\n    image: {{url: 'https://example.invalid/a.jpg', sha256: {'0' * 64}}}\n"
    with (where / "cases" / "all.yaml").open("a") as file:
        file.write(remote + "    models: [embedded]\n    sizes: [32]\n")
    done = pytester.runpytest_inprocess("bench/", "--offline", "--benchmark-save", "-k", "latency", *QUICK)
    done.assert_outcomes(passed=3, skipped=1, deselected=16)
    (skip,) = (o for o in saved(where).record.outcomes if o.outcome == "skipped")
    assert skip.key == "latency[remote-embedded-torch-cpu-32]"
    assert skip.where == "https://example.invalid/a.jpg"
    assert skip.reason.startswith("the network is off")


@pytest.mark.slow
def test_a_photo_of_a_package_that_is_not_installed_skips_its_case_alone(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("segcore.inputs.images.find_spec", lambda name: None)
    bundled = "  - name: bundled\n    image: {resource: 'skimage:chelsea.png'}\n"
    with (where / "cases" / "all.yaml").open("a") as file:
        file.write(bundled + "    models: [embedded]\n    sizes: [32]\n")
    done = pytester.runpytest_inprocess("bench/", "--benchmark-save", "-k", "latency", *QUICK)
    done.assert_outcomes(passed=3, skipped=1, deselected=16)
    (skip,) = (o for o in saved(where).record.outcomes if o.outcome == "skipped")
    assert skip.key == "latency[bundled-embedded-torch-cpu-32]"
    assert "pip install 'segcore[photos]'" in skip.reason


@pytest.mark.slow
def test_a_case_says_itself_that_it_is_skipped(where: Path, pytester: pytest.Pytester) -> None:
    text = (where / "cases" / "all.yaml").read_text()
    (where / "cases" / "all.yaml").write_text(
        text.replace("  - name: blue", "  - name: blue\n    skip_reason: blurred")
    )
    done = pytester.runpytest_inprocess("bench/test_accuracy.py", *QUICK)
    done.assert_outcomes(passed=2, skipped=1)
    done.stdout.fnmatch_lines(["*skipped*: blurred"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--segcore-case=rde"],
            "--segcore-case rde: there is no such name (did you mean 'red'?); there are: red, blue",
        ),
        (["--segcore-tag=sped"], "--segcore-tag sped: there is no such name (did you mean 'speed'?)"),
        (["--segcore-model=embeded"], "--segcore-model embeded: there is no such name (did you mean 'embedded'?)"),
        (["--segcore-runtime=torhc"], "--segcore-runtime torhc: there is no such name (did you mean 'torch'?)"),
        (["--segcore-device=cuda:7"], "unknown device cuda:7"),
        (["--segcore-device=tpu"], "unknown device tpu"),
        (["--segcore-weights=pretraind"], "--segcore-weights pretraind: neither auto, pretrained, random nor"),
        (["--segcore-size=0"], "'0': wanted a whole number, at least 1"),
        (["--segcore-batch=x"], "'x': wanted a whole number"),
        (["--cases=elsewhere"], "elsewhere does not exist"),
        (["--cases=cases", "--cases=more"], "two cases are named red"),
        (["--cases=bad"], "bad/a.yaml"),
        (["-p", "no:benchmark"], "drop `-p no:benchmark`"),
        (["bench/test_latency.py", "twice/test_latency_twice.py"], "would be measured twice"),
    ],
)
def test_bad_input_is_one_line(where: Path, pytester: pytest.Pytester, arguments: list[str], words: str) -> None:
    (where / "more").mkdir()
    shutil.copy(where / "cases" / "red.png", where / "more")
    (where / "more" / "one.yaml").write_text("name: red\nimage: {path: red.png}\n")
    (where / "bad").mkdir()
    (where / "bad" / "a.yaml").write_text("nam: red\nimage: {path: red.png}\n")
    (where / "twice").mkdir()
    shutil.copy(where / "bench" / "test_latency.py", where / "twice" / "test_latency_twice.py")
    bench = [] if any(a.startswith("bench/") for a in arguments) else ["bench/"]
    done = pytester.runpytest_inprocess(*bench, *arguments, "-p", "no:cacheprovider")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    error = done.stderr.str()
    assert words in error
    assert "Traceback" not in error + done.stdout.str()


def test_a_selection_is_run_in_the_order_that_loads_a_model_once(where: Path, pytester: pytest.Pytester) -> None:
    arguments = ["--segcore-model=lraspp_mobilenet_v3_large", "--segcore-model=embedded", "--segcore-size=32"]
    listing = ["--collect-only", "-q", "-k", "not throughput", "--benchmark-save=x", "-W", "error"]
    done = pytester.runpytest_inprocess("bench/", *arguments, *listing, *QUICK)
    assert done.ret == pytest.ExitCode.OK
    items = [line.partition("[")[2] for line in done.outlines if "::" in line]
    assert items == [
        f"{case}-{model}-torch-cpu-32]"
        for model in ("lraspp_mobilenet_v3_large", "embedded")
        for kind in ("accuracy", "latency")
        for case in ("red", "blue")
        if (kind, model, case) != ("latency", "lraspp_mobilenet_v3_large", "blue")  # only red is tagged `speed`
    ]
    assert not (where / "reports").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_keeps_what_it_measured(where: Path, pytester: pytest.Pytester, kind: str) -> None:
    (where / "bench" / "test_latency.py").write_text(
        textwrap.dedent(f"""
        import signal

        def test_latency(latency_item, benchmark):
            if latency_item.plan.case.name == "blue":
                signal.raise_signal(signal.{kind})
            benchmark(latency_item)
        """)
    )
    done = pytester.runpytest_inprocess("bench/", "--benchmark-save", *QUICK, no_reraise_ctrlc=True)
    assert done.ret == pytest.ExitCode.INTERRUPTED
    run = saved(where)
    assert not run.record.complete
    assert {b.info.kind for b in run.benchmarks} == {"accuracy", "latency"}
    assert "Incomplete:" in done.stdout.str()


@pytest.mark.slow
def test_the_last_round_gives_the_result(where: Path, pytester: pytest.Pytester) -> None:
    """pytest-benchmark calls once to calibrate, then each round, and then once more for the result."""
    (where / "bench" / "test_latency.py").write_text(
        textwrap.dedent("""
        def test_latency(latency_item, benchmark):
            latency_item.warm_up()
            before = latency_item.call.count
            assert benchmark(latency_item) is latency_item.result
            assert latency_item.call.count - before == 1 + len(benchmark.stats.stats.data)
        """)
    )
    pytester.runpytest_inprocess("bench/test_latency.py", *QUICK).assert_outcomes(passed=3)


KILLED = """
import os, signal

def test_latency(latency_item, benchmark):
    if latency_item.plan.size == 48:
        os.kill(os.getpid(), signal.SIGKILL)
    latency_item.warm_up()
    benchmark(latency_item)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "kill") or os.name == "nt", reason="needs SIGKILL")
def test_a_killed_run_keeps_what_it_measured(where: Path, pytester: pytest.Pytester) -> None:
    """A real process, real random weights and a real kill -9 between two items."""
    (where / "bench" / "test_latency.py").write_text(KILLED)
    pytester.plugins.clear()
    done = pytester.runpytest_subprocess(
        "bench/test_latency.py", "--segcore-weights=random", "--benchmark-save=x", *QUICK
    )
    assert done.ret == -9
    run = saved(where)
    assert not run.record.complete
    (benchmark,) = run.benchmarks
    assert benchmark.info.key == "latency[red-embedded-torch-cpu-32]"
    assert len(benchmark.samples) >= 3
    assert benchmark.info.weights.kind == "random"
    assert run.record.calibration[0].peak_gmacs_per_s > 0
    assert not list(where.rglob("*.tmp"))


@pytest.mark.slow
def test_other_suites_notice_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_plain():
            assert not {"torch", "numpy", "pydantic", "segcore.plugin.session"} & set(sys.modules)

        def test_benchmark(benchmark):
            benchmark(sum, [1, 2])
        """
    )
    done = pytester.runpytest_subprocess(*QUICK[2:], "-p", "no:hypothesispytest")
    done.assert_outcomes(passed=2)
    assert "segcore:" not in done.stdout.str()
    left = {path.name for path in pytester.path.iterdir() if not path.name.startswith("runpytest")}
    pytests_own = {"__pycache__", "stdout", "stderr", ".benchmarks"}
    assert left - pytests_own == {"test_other_suites_notice_nothing.py"}


def test_other_benchmarks_are_saved_and_compared_where_they_ever_were(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_benchmark(benchmark): benchmark(sum, [1, 2])")
    for more in ((), ("--benchmark-compare",)):
        done = pytester.runpytest_inprocess("--benchmark-save=x", "--benchmark-max-time=0.001", *more)
        done.assert_outcomes(passed=1)
    assert len(list(pytester.path.glob(".benchmarks/*/000?_x.json"))) == 2
    done.stdout.fnmatch_lines_random(["*(0001_x)*", "*(NOW)*"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Can't compare")  # pytest-benchmark first looks in its own directory
def test_our_runs_are_compared_by_pytest_benchmark(where: Path, pytester: pytest.Pytester) -> None:
    arguments = ("bench/test_latency.py", "--segcore-case=blue", "--benchmark-save=x", *QUICK)
    pytester.runpytest_inprocess(*arguments)
    done = pytester.runpytest_inprocess(*arguments, "--benchmark-compare", "--benchmark-compare-fail=median:100000%")
    done.assert_outcomes(passed=1)
    done.stderr.fnmatch_lines(["Comparing against benchmarks from: *0001_x.json"])
    done.stdout.fnmatch_lines_random(["*(0001_x)*", "*(NOW)*"])
    assert not (where / ".benchmarks").exists()


@pytest.mark.slow
def test_pytest_benchmarks_own_flags_keep_their_meaning(where: Path, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess(
        "bench/test_throughput.py",
        "--segcore-size=32",
        "--segcore-batch=3",
        "--benchmark-min-rounds=7",
        "--benchmark-max-time=0.001",
        "--benchmark-sort=name",
        "--benchmark-group-by=param:case",
        "--benchmark-columns=rounds,ops",
        "--benchmark-json=out/../copy.json",
        "--benchmark-autosave",
        "--benchmark-storage=elsewhere",
        "--benchmark-disable-gc",
        "--benchmark-warmup=on",
        "--benchmark-warmup-iterations=4",
        "-p",
        "no:cacheprovider",
    )
    done.assert_outcomes(passed=2)
    done.stdout.fnmatch_lines(["*benchmark 'case=blue': 1 tests*", "Name *Rounds*OPS*", "*benchmark 'case=red'*"])
    (stored,) = where.glob("elsewhere/*/0001_unversioned_*.json")
    for path in (stored, where / "copy.json"):
        run = load_run(path)
        assert [len(b.samples) for b in run.benchmarks] == [7, 7]
        assert [len(b.info.stages["forward"]) for b in run.benchmarks] == [7, 7]
        assert [b.info.batch for b in run.benchmarks] == [3, 3]
    assert not (where / "reports").exists()


@pytest.mark.slow
def test_the_copy_of_a_run_finds_the_pictures_too(where: Path, pytester: pytest.Pytester) -> None:
    (where / "out").mkdir()
    arguments = ("--benchmark-json=out/copy.json", "--benchmark-save=x")
    pytester.runpytest_inprocess("bench/test_accuracy.py", *arguments, *QUICK).assert_outcomes(passed=3)
    for path in (where / "out" / "copy.json", *where.glob("reports/runs/*/0001_x.json")):
        for benchmark in load_run(path).benchmarks:
            assert benchmark.info.accuracy is not None
            assert picture_path(load_run(path), str(benchmark.info.accuracy.class_map)).is_file()


@pytest.mark.slow
def test_disabled_benchmarks_are_judged_but_not_timed(where: Path, pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_inprocess("bench/", "--benchmark-disable", "--benchmark-save", *QUICK)
    done.assert_outcomes(passed=15)
    run = saved(where)
    assert {b.info.kind for b in run.benchmarks} == {"accuracy"}
    assert run.record.calibration == ()


@pytest.mark.slow
def test_skipped_benchmarks_leave_accuracy(where: Path, pytester: pytest.Pytester) -> None:
    pytester.runpytest_inprocess("bench/", "--benchmark-skip", *QUICK).assert_outcomes(passed=3, skipped=12)


@pytest.mark.slow
@pytest.mark.parametrize(("flag", "lines"), [("-v", ["*test_accuracy[[]*PASSED*%*"]), ("-q", ["...*"])])
def test_pytests_own_ways_of_showing_progress_stay(
    where: Path, pytester: pytest.Pytester, flag: str, lines: list[str]
) -> None:
    done = pytester.runpytest_inprocess("bench/test_accuracy.py", flag, *QUICK)
    done.assert_outcomes(passed=3)
    done.stdout.fnmatch_lines(lines)
    assert "[1/3]" not in done.stdout.str()


@pytest.mark.slow
def test_other_plugins_still_have_their_say(where: Path, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        """
        def pytest_benchmark_update_json(config, benchmarks, output_json):
            output_json["theirs"] = len(benchmarks)

        def pytest_benchmark_update_machine_info(config, machine_info):
            machine_info["rack"] = 7
        """
    )
    pytester.runpytest_inprocess("bench/test_latency.py", "--benchmark-save", *QUICK).assert_outcomes(passed=3)
    document = json.loads(saved(where).path.read_bytes())
    assert document["theirs"] == 3
    assert document["machine_info"]["rack"] == 7


@pytest.mark.slow
def test_a_bench_of_ones_own(where: Path, pytester: pytest.Pytester) -> None:
    """Other modules, names and assertions, mixed with benchmarks that are not ours."""
    shutil.rmtree(where / "bench")
    pytester.makepyfile(
        """
        import pytest

        def test_theirs(benchmark):
            benchmark(sum, [1, 2])

        def test_fast_enough(latency_item, benchmark):
            latency_item.warm_up()
            result = benchmark(latency_item)
            assert result.dominant == "cat"
            if latency_item.plan.size == 48:
                pytest.fail("too slow at 48")
            assert latency_item.plan.case.name == "red", "too blue"
        """
    )
    done = pytester.runpytest_inprocess("--benchmark-save=x", *QUICK)
    done.assert_outcomes(passed=2, failed=2)
    run = saved(where)
    assert len(run.benchmarks) == 3  # those that failed were measured all the same
    assert {o.outcome for o in run.record.outcomes} == {"passed", "failed"}
    assert len(json.loads(run.path.read_bytes())["benchmarks"]) == 4


@pytest.mark.slow
def test_a_run_that_cannot_be_written_is_not_passed_over(where: Path, pytester: pytest.Pytester) -> None:
    (where / "file").write_text("")
    done = pytester.runpytest_inprocess(
        "bench/test_accuracy.py", "--benchmark-save=x", "--benchmark-storage=file", *QUICK
    )
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done = pytester.runpytest_inprocess("bench/test_accuracy.py", "--benchmark-json=file/x.json", *QUICK)
    assert done.ret != 0
    assert "cannot be written" in done.stdout.str() + done.stderr.str()


@pytest.mark.slow
def test_photos_are_decoded_as_they_are(where: Path, pytester: pytest.Pytester) -> None:
    pytester.runpytest_inprocess("bench/test_accuracy.py", "--benchmark-save", *QUICK)
    run = saved(where)
    photo = next(b.info.accuracy.photo for b in run.benchmarks if b.info.case == "red" and b.info.accuracy)
    with Image.open(run.path.parent / str(photo)) as image:
        assert np.abs(np.asarray(image).astype(int) - (200, 30, 30)).max() <= 3


@pytest.mark.slow
def test_int8_is_calibrated_on_the_photos_that_are_named(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[Any] = []

    class Noted(Segmenter):
        def __init__(self, model: str, **options: Any) -> None:
            given.append(options.pop("calibration"))
            super().__init__(model, **options | {"precision": "fp32"})

    monkeypatch.setattr("segcore.plugin.resources.Segmenter", Noted)
    options = ("--segcore-calibration=cases", "--segcore-precision=int8")
    pytester.runpytest_inprocess("bench/test_latency.py", "--segcore-size=32", *options, *QUICK)
    assert given == [("cases/blue.png", "cases/red.png")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--segcore-calibration=cases",), "are for precision int8 alone, found fp32"),
        (("--segcore-calibration=nowhere", "--segcore-precision=int8"), "nowhere: there is no such file"),
    ],
)
def test_calibration_that_cannot_be_is_refused(
    where: Path, pytester: pytest.Pytester, options: tuple[str, ...], message: str
) -> None:
    done = pytester.runpytest_inprocess("bench/test_latency.py", *options, *QUICK)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert message in done.stderr.str()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models: [embeded]", r"all.yaml:2: case a: models: embeded: .*did you mean 'embedded'"),
        ("limits: {when: {model: fcn_resnet11}, max_drift: 0}", r"when: model: fcn_resnet11: .*did you mean 'fcn_resn"),
        ("limits: {when: {runtime: openvno}, max_drift: 0}", r"when: runtime: openvno: .*did you mean 'openvino'"),
    ],
)
def test_misspelt_names_in_a_case_are_noticed(where: Path, pytester: pytest.Pytester, text: str, message: str) -> None:
    (where / "cases" / "all.yaml").write_text(f"cases:\n  - name: a\n    image: {{path: red.png}}\n    {text}\n")
    done = pytester.runpytest_inprocess("bench/test_accuracy.py", *QUICK)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert re.search(message, done.stderr.str())


@pytest.mark.slow
def test_memory_that_is_not_the_item_s_is_left_out(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segcore.inference.devices, "PROCESS", where)
    pytester.runpytest_inprocess("bench/test_latency.py", "--benchmark-save", *QUICK).assert_outcomes(passed=3)
    assert [b.info.peak_memory_bytes for b in saved(where).benchmarks] == [None] * 3


@pytest.mark.slow
def test_energy_is_recorded_where_it_is_counted(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segcore.plugin.session, "open_counter", lambda device: fake_counter())
    done = pytester.runpytest_inprocess("bench/test_throughput.py", "--segcore-batch=4", "--benchmark-save", *QUICK)
    done.assert_outcomes(passed=3)
    for benchmark in saved(where).benchmarks:
        energy = benchmark.info.energy
        assert energy is not None
        assert (energy.joules, energy.counter) == (10.0, "fake")
        assert energy.calls > len(benchmark.samples)  # pytest-benchmark tries a call before, and one after
        assert benchmark.info.joules_per_image == 10.0 / energy.calls / 4


@pytest.mark.slow
def test_no_counter_no_energy(where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(device: str) -> None:
        raise DeviceError("none")

    monkeypatch.setattr(segcore.plugin.session, "open_counter", none)
    pytester.runpytest_inprocess("bench/test_latency.py", "--benchmark-save", *QUICK).assert_outcomes(passed=3)
    assert [b.info.energy for b in saved(where).benchmarks] == [None] * 3


@pytest.mark.slow
def test_latency_items_are_profiled_after_they_were_measured(where: Path, pytester: pytest.Pytester) -> None:
    options = ("--segcore-profile=traces", "--segcore-size=32", "--segcore-batch=1", "--benchmark-save")
    pytester.runpytest_inprocess("bench/", *options, *QUICK).assert_outcomes(passed=6)
    assert {path.name for path in (where / "traces").iterdir()} == {
        f"{case}-embedded-torch-cpu-32.json" for case in ("red", "blue")
    }
    for benchmark in saved(where).benchmarks:
        assert {len(times) for times in benchmark.info.stages.values()} <= {len(benchmark.samples)}


@pytest.mark.slow
def test_threads_are_swept_and_set_back(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, torch_threads: None
) -> None:
    import torch

    torch.set_num_threads(2)
    threads = ("--segcore-threads=1", "--segcore-threads=3", "--segcore-batch=2", "--segcore-size=32")
    options = ("--segcore-case=red", *threads, "--benchmark-save")
    pytester.runpytest_inprocess("bench/test_latency.py", "bench/test_throughput.py", *options, *QUICK)
    found = {b.info.key: b.info for b in saved(where).benchmarks}
    item = "red-embedded-torch-cpu-32"
    keys = (f"latency[{item}]", f"throughput[{item}-b2-t1]", f"throughput[{item}-b2-t3]")
    assert set(found) == set(keys)
    assert [found[key].threads for key in keys] == [None, 1, 3]
    assert [found[key].runtime_options["threads"] for key in keys] == ["2", "1", "3"]
    assert torch.get_num_threads() == 2


def test_a_runtime_that_uses_fewer_threads_has_a_warning(where: Path) -> None:
    from segcore.plugin.items import too_few_threads
    from tests.support.judged_runs import an_item

    def warnings(threads: int | None, used: dict[str, str]) -> tuple[WarningRecord, ...]:
        return too_few_threads(an_item(runtime="openvino", threads=threads, runtime_options=used).info)

    (warning,) = warnings(3, {"threads": "2"})
    assert (warning.code, warning.value) == ("threads", 2)
    assert "openvino uses 2 threads, not the 3" in warning.text
    assert warnings(2, {"threads": "2"}) == warnings(None, {"threads": "2"}) == warnings(3, {}) == ()


@pytest.mark.slow
def test_figures_are_kept_if_pictures_and_traces_cannot_be_written(
    where: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutputError("pictures: cannot be written: No space left on device")

    monkeypatch.setattr("segcore.plugin.items.save_pictures", full)
    monkeypatch.setattr("segcore.plugin.items.write_file", full)
    options = ("-k", "blue and not throughput", "--segcore-profile", "traces", *QUICK)
    done = pytester.runpytest_inprocess("bench/", "--benchmark-save=full", *options)
    done.assert_outcomes(passed=2, deselected=13)
    assert done.ret == 2
    accuracy, latency = saved(where).benchmarks
    assert accuracy.info.accuracy is not None
    assert accuracy.info.accuracy.class_map is None
    for item in (accuracy, latency):
        assert "not-written" in {warning.code for warning in item.info.warnings}
    assert len(latency.samples) >= 3
    done.stdout.fnmatch_lines(["NOT written: pictures: cannot be written: No space left on device"])
