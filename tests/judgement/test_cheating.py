"""Ways to make the gate pass that must not: each is one change of the files of a run, or of the store around it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from segcore.cli import cli
from tests.support.factories import make_run

Document = dict[str, Any]
OLD, NEW = "0001_main.json", "0002_change.json"
MAP = "accuracy[chelsea-embedded-torch-cpu-320]"
LATENCY = "latency[chelsea-embedded-torch-cpu-320]"
LIMITS = {"max_slowdown": 0.1, "max_latency_ms": {"p50": 25}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the main branch and one of a change, which are equally fast and good."""
    directory = tmp_path_factory.mktemp("runs")
    for day, name in enumerate((OLD, NEW), 1):
        started = f"2026-01-0{day}T00:00:00+00:00"
        make_run(directory, name.removesuffix(".json"), seed=day, models=("embedded",), started=started)
        edit(directory / name, limits(LATENCY, LIMITS))
    return directory


@pytest.fixture
def store(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with copies of both."""
    monkeypatch.chdir(tmp_path)
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)
    return shutil.copytree(runs, tmp_path / "reports" / "runs")


def edit(path: Path, change: Callable[[Document], object]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def records(document: Document, key: str = "") -> list[Document]:
    """The records of all items, or those of one item."""
    found = [entry["extra_info"]["segcore"] for entry in document["benchmarks"] if key in entry["name"]]
    assert found
    return found


def limits(key: str, values: Document) -> Callable[[Document], object]:
    return lambda document: [record.update(limits=values) for record in records(document, key)]


def fields(key: str, **values: Any) -> Callable[[Document], object]:
    return lambda document: [record.update(values) for record in records(document, key)]


def accuracy(**values: Any) -> Callable[[Document], object]:
    return lambda document: [record["accuracy"].update(values) for record in records(document, MAP)]


def samples(change: Callable[[list[float]], list[float]]) -> Callable[[Document], object]:
    def apply(document: Document) -> None:
        for entry in document["benchmarks"]:
            if entry["name"].startswith(("latency", "throughput")):
                entry["stats"]["data"] = change(entry["stats"]["data"])

    return apply


def unmeasured_peak(document: Document) -> None:
    samples(lambda data: [s / 1000 for s in data])(document)
    document["segcore"]["calibration"] = []


def check(index: int, **values: Any) -> Callable[[Document], object]:
    return lambda document: records(document, MAP)[0]["accuracy"]["checks"][index].update(values)


def drop(*parts: str) -> Callable[[Document], object]:
    def apply(document: Document) -> None:
        kept = [e for e in document["benchmarks"] if not any(part in e["name"] for part in parts)]
        assert len(kept) < len(document["benchmarks"])
        document["benchmarks"] = kept
        outcomes = document["segcore"]["outcomes"]
        document["segcore"]["outcomes"] = [o for o in outcomes if not any(part in o["key"] for part in parts)]

    return apply


def lookalike(**values: Any) -> Callable[[Document], object]:
    """Replace an item by one that resembles it."""
    return lambda document: [record.update(values) for record in records(document, LATENCY)]


def run_record(**values: Any) -> Callable[[Document], object]:
    return lambda document: document["segcore"].update(values)


def machine(**values: Any) -> Callable[[Document], object]:
    return lambda document: document["segcore"]["machine"].update(values)


def gate(*words: str) -> int:
    result = CliRunner().invoke(cli, ["gate", *words, "--process-noise", "0.003"])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code


IN_THE_RUN = {
    "limit raised": (limits(LATENCY, {**LIMITS, "max_slowdown": 0.5}), 1),
    "limit doubled": (limits(LATENCY, {**LIMITS, "max_slowdown": 0.2}), 1),
    "limit of another percentile": (limits(LATENCY, {**LIMITS, "max_slowdown": {"p99.9": 0.1}}), 1),
    "absolute limit raised": (limits(LATENCY, {**LIMITS, "max_latency_ms": 2500}), 1),
    "absolute limit of another percentile": (limits(LATENCY, {**LIMITS, "max_latency_ms": {"p1": 25}}), 1),
    "absolute limit removed": (limits(LATENCY, {"max_slowdown": 0.1}), 1),
    "limit without a baseline's raised": (limits(MAP, {"max_drift": 1.0}), 1),
    "limit of a score raised": (limits(MAP, {"max_iou_drop": 0.9}), 1),
    "limit of nan": (limits(LATENCY, {"max_slowdown": float("nan")}), 2),
    "limit of infinity": (limits(LATENCY, {"max_slowdown": float("inf")}), 2),
    "negative limit": (limits(LATENCY, {"max_slowdown": -1}), 2),
    "checks removed": (accuracy(checks=[]), 1),
    "check loosened": (check(1, wanted="at least 0 %"), 1),
    "check of another class": (check(0, wanted="dog", found="dog"), 1),
    "check renamed": (check(0, name="dominance"), 1),
    "check failed": (check(0, passed=False), 1),
    "class map missing": (accuracy(class_map=None), 1),
    "class map lost": (accuracy(class_map="nowhere.png"), 1),
    "class map of the baseline": (accuracy(class_map="0001_main-maps/embedded-chelsea.png"), 1),
    "class map of the baseline, in other words": (
        accuracy(class_map="./0002_change-maps/../0001_main-maps/embedded-chelsea.png"),
        1,
    ),
    "class map elsewhere": (accuracy(class_map="../../../x.png"), 1),
    "class map absolute": (accuracy(class_map="/etc/passwd"), 1),
    "class map of another case": (accuracy(class_map="0002_change-maps/embedded-astronaut.png"), 1),
    "accuracy removed": (fields(MAP, accuracy=None), 1),
    "metric of another name": (accuracy(metric="mean of the best classes"), 3),
    "a thousand times faster": (samples(lambda data: [s / 1000 for s in data]), 1),
    "a thousand times faster, on a machine without a peak": (unmeasured_peak, 1),
    "no time at all": (samples(lambda data: [0.0] * len(data)), 1),
    "negative times": (samples(lambda data: [-s for s in data]), 1),
    "nan among the times": (samples(lambda data: [*data, float("nan")]), 1),
    "one round": (samples(lambda data: data[:1]), 3),
    "three rounds": (samples(lambda data: data[:3]), 3),
    "no rounds": (samples(lambda data: []), 2),
    "item dropped": (drop(LATENCY), 1),
    "kind dropped": (drop("accuracy"), 1),
    "case dropped": (drop("astronaut"), 1),
    "everything dropped": (drop("embedded"), 1),
    "item on another runtime": (lookalike(runtime="openvino"), 1),
    "item on another device": (lookalike(device="cuda"), 1),
    "item in another precision": (lookalike(precision="int8"), 1),
    "item with other threads": (lookalike(kind="throughput", batch=1, threads=8), 1),
    "item at another size": (lookalike(size=32), 1),
    "case renamed": (lookalike(case="chelsea2"), 1),
    "another batch": (fields("throughput[chelsea-embedded-torch-cpu-320-b4]", batch=64), 1),
    "interrupted": (run_record(complete=False), 1),
    "nothing said of an error": (
        run_record(outcomes=[{"item": "bench/t.py::x", "kind": "latency", "outcome": "error", "reason": "boom"}]),
        1,
    ),
    "another machine": (machine(cpu="A faster one"), 3),
    "more threads": (machine(intra_op_threads=16), 3),
    "random weights": (fields(MAP, weights={"kind": "random", "name": "0", "sha256": "ab" * 32}), 3),
    "another input": (fields(LATENCY, input_shape=[1, 3, 32, 32]), 3),
    "another preprocessing": (fields(LATENCY, preprocess="none"), 3),
    "options of the runtime": (fields(LATENCY, runtime_options={"skip": "yes"}), 3),
    "claims a batch": (fields(LATENCY, batch=8), 3),
    "of an unknown version": (run_record(schema_version=99), 2),
    "of no version": (run_record(schema_version=None), 2),
    "with an unknown field": (run_record(verdict="pass"), 2),
}


@pytest.mark.parametrize("way", IN_THE_RUN)
def test_a_change_of_the_run_is_no_pass(store: Path, way: str) -> None:
    change, code = IN_THE_RUN[way]
    edit(store / NEW, change)
    assert gate("main", "change") == code


def test_without_a_trick_the_change_passes_and_a_slow_one_does_not(store: Path) -> None:
    assert gate("main", "change") == 0
    edit(store / NEW, samples(lambda data: [1.2 * s for s in data]))
    assert gate("main", "change") == 1


def copied(store: Path) -> None:
    shutil.copyfile(store / OLD, store / NEW)


def linked(store: Path) -> None:
    (store / NEW).unlink()
    os.link(store / OLD, store / NEW)


def symlinked(store: Path) -> None:
    (store / NEW).unlink()
    (store / NEW).symlink_to(store / OLD)


def renamed_copy(store: Path) -> None:
    copied(store)
    edit(store / NEW, run_record(name="change", git=None, duration_s=1.0))


def slow_baseline(store: Path) -> None:
    """A slower run of the same name, with a newer file."""
    edit(store / NEW, samples(lambda data: [1.2 * s for s in data]))
    make_run(store, "0000_main", slower=1.3, models=("embedded",), started="2025-01-01T00:00:00+00:00")
    for age, name in enumerate((OLD, NEW, "0000_main.json")):
        os.utime(store / name, (1000 + age, 1000 + age))


def long_numbers(store: Path) -> None:
    edit(store / NEW, samples(lambda data: [1.2 * s for s in data]))
    make_run(store, "9999_main", slower=1.3, models=("embedded",), started="2026-01-05T00:00:00+00:00")
    make_run(store, "10000_main", slower=1.0, models=("embedded",), started="2026-01-05T00:00:00+00:00")


def newest(content: bytes) -> Callable[[Path], None]:
    def apply(store: Path) -> None:
        (store / "0003_main.json").write_bytes(content)

    return apply


AROUND_THE_RUN: dict[str, tuple[Callable[[Path], None], int]] = {
    "a byte copy of the baseline": (copied, 2),
    "a hard link to the baseline": (linked, 2),
    "a symbolic link to the baseline": (symlinked, 2),
    "a copy under another name": (renamed_copy, 2),
    "an older and slower baseline, its file newer": (slow_baseline, 1),
    "number 10000": (long_numbers, 1),
    "the newest baseline empty": (newest(b""), 2),
    "the newest baseline cut off": (newest(b'{"benchmarks": ['), 2),
    "the newest baseline of nothing": (newest(b"{}"), 2),
    "the newest baseline with an empty record": (newest(b'{"segcore": {}}'), 2),
    "the newest baseline in bad UTF-16": (newest("\ufeff{".encode("utf-16")), 2),
    "the newest baseline of zeros": (newest(b"\0" * 4096), 2),
}


@pytest.mark.parametrize("way", AROUND_THE_RUN)
def test_a_change_of_the_store_is_no_pass(store: Path, way: str) -> None:
    change, code = AROUND_THE_RUN[way]
    change(store)
    assert gate("main", "change") == code


def test_a_newest_baseline_in_utf_16_is_read(store: Path) -> None:
    run = make_run(store, "0003_main", slower=0.5, models=("embedded",), started="2026-01-09T00:00:00+00:00")
    run.path.write_bytes(run.path.read_text().encode("utf-16"))
    assert gate("main", "change") == 1


@pytest.mark.parametrize("copies", [2, 8, 40])
def test_copies_of_a_run_show_no_noise(store: Path, copies: int) -> None:
    for n in range(copies):
        for name, arm in ((OLD, "old"), (NEW, "new")):
            (store.parent / arm).mkdir(exist_ok=True)
            shutil.copytree(store / f"{name[:-5]}-maps", store.parent / arm / f"{name[:-5]}-maps", dirs_exist_ok=True)
            shutil.copyfile(store / name, store.parent / arm / f"{n + 1:04}_x.json")
        shutil.copyfile(store / OLD, store / f"{n + 10:04}_main.json")
    result = CliRunner().invoke(cli, ["gate", "main", "change"])
    assert result.exit_code == 3
    result = CliRunner().invoke(cli, ["gate", str(store.parent / "old"), str(store.parent / "new")])
    assert result.exit_code == 3
