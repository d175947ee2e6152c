from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_benchmark.cli import main as compare_with_pytest_benchmark
from pytest_benchmark.storage.file import FileStorage

from segcore.core.errors import OutputError, RecordError
from segcore.core.records import SCHEMA_VERSION, Run, WarningRecord
from segcore.results.naming import next_run_path, run_number, saved_name
from segcore.results.store import find_runs, load_run, resolve_run, save_run
from tests.support.factories import make_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path, "0001_base", rounds=8, models=("embedded",))


def test_a_run_comes_back_as_it_was_saved(run: Run) -> None:
    assert load_run(run.path) == run
    save_run(run)
    assert load_run(run.path) == run


def test_a_run_file_of_schema_version_1_is_read(run: Run) -> None:
    document = json.loads(run.path.read_bytes())
    document["segcore"] |= {"schema_version": 1, "warnings": ["running on battery"]}
    document["benchmarks"][0]["extra_info"]["segcore"]["warnings"] = ["drifted by +12 % from first to last round"]
    run.path.write_text(json.dumps(document))
    old = load_run(run.path)
    assert old.record.warnings == (WarningRecord(code="other", text="running on battery"),)
    (warning,) = old.benchmarks[0].info.warnings
    assert (warning.code, warning.value) == ("other", None)
    assert warning.text == "drifted by +12 % from first to last round"
    save_run(old)
    assert json.loads(run.path.read_bytes())["segcore"]["schema_version"] == SCHEMA_VERSION
    assert load_run(run.path) == old


def test_every_sample_comes_back_bit_for_bit(run: Run) -> None:
    @given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
    def check(samples: list[float]) -> None:
        benchmarks = (run.benchmarks[0].model_copy(update={"samples": tuple(samples)}),)
        save_run(run.model_copy(update={"benchmarks": benchmarks}))
        assert load_run(run.path).benchmarks[0].samples == tuple(samples)

    check()


def test_nan_is_kept(run: Run) -> None:
    benchmarks = (run.benchmarks[0].model_copy(update={"samples": (math.nan, 1.0)}),)
    save_run(run.model_copy(update={"benchmarks": benchmarks}))
    assert math.isnan(load_run(run.path).benchmarks[0].samples[0])


def test_pytest_benchmark_reads_our_files(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((_, data),) = FileStorage(tmp_path, logger=None).load()
    assert [b["name"] for b in data["benchmarks"]] == [b.name for b in run.benchmarks]
    assert data["benchmarks"][0]["stats"]["median"] == sorted(run.benchmarks[0].samples)[3:5][0] / 2 + (
        sorted(run.benchmarks[0].samples)[4] / 2
    )
    monkeypatch.setattr("sys.argv", ["pytest-benchmark", "--storage", str(tmp_path), "compare", "0001"])
    compare_with_pytest_benchmark()
    assert run.benchmarks[0].name in capsys.readouterr().out


def test_benchmarks_of_other_suites_are_left_alone(run: Run) -> None:
    document = json.loads(run.path.read_bytes())
    document["benchmarks"].insert(0, {"name": "test_theirs", "extra_info": {}, "stats": {"data": [1.0]}})
    run.path.write_text(json.dumps(document))
    assert load_run(run.path) == run


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    *parents, key, value = path

    def change(document: dict[str, Any]) -> None:
        target: Any = document
        for parent in parents:
            target = target[parent]
        target[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            _set("segcore", "schema_version", 99),
            "schema version 99 is unknown: this segcore reads 1, 2, 3",
        ),
        (_set("segcore", "schema_version", None), "schema version None is unknown"),
        (_set("segcore", None), "not a run file of segcore"),
        (_set("segcore", "complet", True), "complet: extra inputs are not permitted (did you mean 'complete'?)"),
        (_set("segcore", "machine", "cpu", 3), "segcore: machine.cpu: input should be a valid string"),
        (_set("benchmarks", {}), "benchmarks: wanted a list, found dict"),
        (_set("benchmarks", 0, 17), "benchmarks[0]: wanted an object, found int"),
        (_set("benchmarks", 0, "stats", "data", []), "stats.data: the raw samples are missing"),
        (_set("benchmarks", 0, "stats", {}), "stats.data: the raw samples are missing"),
        (_set("benchmarks", 0, "stats", "data", [1.0, None]), "wanted numbers of seconds"),
        (_set("benchmarks", 0, "stats", "data", [True]), "wanted numbers of seconds"),
        (_set("benchmarks", 0, "extra_info", "segcore", "kind", "speed"), "extra_info.segcore: kind: input should be"),
        (_set("benchmarks", 0, "extra_info", "segcore", None), "extra_info.segcore: "),
    ],
)
def test_an_invalid_run_file_is_refused(run: Run, change: Callable[[dict[str, Any]], None], words: str) -> None:
    document = json.loads(run.path.read_bytes())
    change(document)
    run.path.write_text(json.dumps(document))
    with pytest.raises(RecordError) as caught:
        load_run(run.path)
    message = str(caught.value)
    assert words in message
    assert message.startswith(str(run.path))
    assert "\n" not in message


def test_a_duplicate_item_is_refused(run: Run) -> None:
    document = json.loads(run.path.read_bytes())
    document["benchmarks"].append(document["benchmarks"][0])
    run.path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match="is in the run 2 times"):
        load_run(run.path)


@pytest.mark.parametrize("text", ["", "{", "\x00\xff", '{"segcore": {"schema_version": 1', "[1]", '"text"', "17"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(RecordError, match=r"bad\.json: not "):
        load_run(path)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(RecordError, match="cannot be read"):
            load_run(path)


def test_an_unwritable_path_is_an_output_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        save_run(run.model_copy(update={"path": tmp_path / "file" / "run.json"}))


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    directory = tmp_path / "runs" / "Linux-CPython"
    for age, name in enumerate(("0001_laptop-aaa", "0002_server-bbb", "0003_laptop-aaa", "unsaved")):
        path = make_run(directory, name, rounds=7, models=("embedded",), started=f"2026-01-0{age + 1}").path
        os.utime(path, (1000 - age, 1000 - age))  # as after a copy: the times of files say nothing
    (directory / "other-tool.json").write_text('{"results": []}')
    (directory / "0000_other.json").write_text('{"benchmarks": []}')
    return tmp_path / "runs"


@pytest.mark.parametrize("content", [b"", b"{", b"\0" * 8, b"\xff\xfe{", b'{"segcore": {}}', b'{"segcore": 1}', b"[]"])
@pytest.mark.parametrize("reference", ["latest", "laptop-aaa", "0010", "0010_laptop-aaa"])
def test_an_older_run_never_takes_the_place_of_a_newest_one_that_cannot_be_read(
    storage: Path, content: bytes, reference: str
) -> None:
    path = storage / "Linux-CPython" / "0010_laptop-aaa.json"
    path.write_bytes(content)
    if content != b"[]" or reference != "latest":  # another tool's file has no claim to be the latest run
        assert resolve_run(reference, storage) == path
        with pytest.raises(RecordError, match="0010_laptop-aaa"):
            load_run(path)
    assert resolve_run("server-bbb", storage).stem == "0002_server-bbb"
    make_run(storage / "Linux-CPython", "0011_laptop-aaa", rounds=7, models=("embedded",), started="2026-02-01")
    assert resolve_run("laptop-aaa", storage).stem == "0011_laptop-aaa"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_a_run_in_any_encoding_of_json_is_found(storage: Path, encoding: str) -> None:
    path = storage / "Linux-CPython" / "0003_laptop-aaa.json"
    path.write_bytes(path.read_text().encode(encoding))
    assert resolve_run("laptop-aaa", storage) == path
    assert load_run(path).record.started == "2026-01-03"


def test_runs_are_found_oldest_first(storage: Path) -> None:
    assert [path.stem for path in find_runs(storage)] == ["0001_laptop-aaa", "0002_server-bbb", "0003_laptop-aaa"]


@pytest.mark.parametrize(
    ("reference", "found"),
    [
        ("latest", "0003_laptop-aaa"),
        ("laptop-aaa", "0003_laptop-aaa"),
        ("0001_laptop-aaa", "0001_laptop-aaa"),
        ("0001_laptop-aaa.json", "0001_laptop-aaa"),
        ("0002", "0002_server-bbb"),
        ("server-bbb", "0002_server-bbb"),
    ],
)
def test_a_run_is_resolved_by_name_number_and_latest(storage: Path, reference: str, found: str) -> None:
    assert resolve_run(reference, storage).stem == found


def test_a_path_is_resolved_to_itself(storage: Path) -> None:
    path = next(iter(storage.rglob("unsaved.json")))
    assert resolve_run(str(path), storage) == path


def test_an_unknown_name_suggests_the_nearest(storage: Path) -> None:
    with pytest.raises(RecordError, match=r"did you mean 'server-bbb'.*newest first: laptop-aaa, server-bbb"):
        resolve_run("server-bb", storage)


def test_an_empty_storage_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="record one: pytest bench/ --benchmark-save"):
        resolve_run("latest", tmp_path)


def test_runs_are_numbered_consecutively(storage: Path) -> None:
    directory = storage / "Linux-CPython"
    assert next_run_path(directory, "x").name == "0004_x.json"
    (directory / "0009_claimed-by-another").mkdir()
    assert next_run_path(directory, "x").name == "0010_x.json"
    assert next_run_path(directory / "new", "x").name == "0001_x.json"
    assert saved_name(Path("0010_x.y-z.json")) == "x.y-z"


def test_numbers_of_any_length_are_compared_as_numbers(tmp_path: Path) -> None:
    for name in ("10000_main", "9999_main", "10001_main"):  # all started in the same second
        make_run(tmp_path, name, rounds=7, models=("embedded",))
    assert [run_number(path) for path in find_runs(tmp_path)] == [9999, 10000, 10001]
    assert next_run_path(tmp_path, "x").name == "10002_x.json"
    assert resolve_run("10000", tmp_path).stem == "10000_main"
    assert resolve_run("main", tmp_path).stem == "10001_main"
