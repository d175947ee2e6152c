"""Run files of strangers: read within bounds or refused in one line, and shown without harm."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segcore.core.errors import RecordError, SegcoreError
from segcore.core.limits import Limits
from segcore.core.records import Run
from segcore.core.text import MAX_TEXT
from segcore.judgement.gate.files import judge_runs
from segcore.report.escape import plain_text
from segcore.results.store import MAX_BYTES, find_runs, journal_path, load_run
from tests.support.factories import make_run
from tests.support.hostile import (
    CI_COMMAND,
    NUMBERS,
    TEXTS,
    UNPRINTABLE,
    VALUES,
    changed,
    full_document,
    places,
    show_everything,
)

INFO = ("benchmarks", 0, "extra_info", "segcore")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("runs"), "base", rounds=8, models=("embedded",))


@pytest.fixture(scope="module")
def document(run: Run) -> dict[str, Any]:
    return full_document(json.loads(run.path.read_bytes()))


def written(run: Run, document: dict[str, Any]) -> Path:
    path = run.path.with_name("changed.json")
    path.write_text(json.dumps(document))
    return path


def outcome(baseline: Run, document: dict[str, Any], *, show: bool) -> str:
    """Return why a document is refused, or else what is shown of it."""
    try:
        run = load_run(written(baseline, document))
        return show_everything(baseline, run) if show else ""
    except SegcoreError as error:
        return f"refused: {plain_text(str(error))}"


def check_changes(run: Run, document: dict[str, Any], show_each: int) -> None:
    """Change one value at every place, each to another value; show one in so many of the results."""
    paths = list(places(document))
    refused = 0
    for n, at in enumerate(paths):
        found = outcome(run, changed(document, at, VALUES[n * 7 % len(VALUES)]), show=n % show_each == 0)
        refused += found.startswith("refused: ")
        assert "\n" not in found or not found.startswith("refused: ")
        assert not UNPRINTABLE.search(found)
        assert not CI_COMMAND.search(found)
    assert len(paths) > 200
    assert 20 < refused < len(paths)


@pytest.mark.slow
def test_every_change_of_one_value_is_refused_in_one_line_or_read(run: Run, document: dict[str, Any]) -> None:
    check_changes(run, document, show_each=20)


@pytest.mark.slow
def test_every_change_of_one_value_is_refused_in_one_line_or_shown(run: Run, document: dict[str, Any]) -> None:
    check_changes(run, document, show_each=2)


@pytest.mark.parametrize(
    ("at", "right"),
    [
        ((*INFO, "gmacs"), (1e-3, 1e6)),
        ((*INFO, "gbytes"), (1e-6, 1e4)),
        ((*INFO, "batch"), (1, 4096)),
        ((*INFO, "size"), (1, 4096)),
        ((*INFO, "threads"), (1, 512)),
        ((*INFO, "build_s"), (0, 3600)),
        ((*INFO, "peak_memory_bytes"), (0, 1 << 40)),
        ((*INFO, "stages", "forward", 0), (0, 1.0)),
        ((*INFO, "input_shape", 2), (1, 10_000)),
        (("benchmarks", 2, "extra_info", "segcore", "accuracy", "miou"), (0, 1)),
        (("benchmarks", 2, "extra_info", "segcore", "accuracy", "fractions", "background"), (0, 1)),
        (("segcore", "calibration", 0, "matmul_gmacs_per_s"), (0.1, 1e6)),
        (("segcore", "calibration", 0, "copy_gbytes_per_s"), (0.1, 1e4)),
        (("segcore", "machine", "intra_op_threads"), (1, 512)),
        (("segcore", "machine", "memory_bytes"), (0, 1 << 50)),
        (("segcore", "duration_s"), (0, 1e6)),
    ],
    ids=lambda at: ".".join(map(str, at[-2:])) if isinstance(at[0], str) else "",
)
def test_numbers_have_bounds(
    run: Run, document: dict[str, Any], at: tuple[str | int, ...], right: tuple[float, float]
) -> None:
    for value in right:
        load_run(written(run, changed(document, at, value)))
    for wrong in NUMBERS:
        if wrong in (0, 1.5, 5e-324, 1e-300):
            continue  # right for some
        with pytest.raises(RecordError):
            load_run(written(run, changed(document, at, wrong)))


@pytest.mark.parametrize("value", [10**400, -(10**400), 10**30])
def test_a_sample_that_no_clock_measures_is_refused(run: Run, document: dict[str, Any], value: int) -> None:
    with pytest.raises(RecordError, match="wanted numbers of seconds"):
        load_run(written(run, changed(document, ("benchmarks", 0, "stats", "data", 0), value)))


@pytest.mark.parametrize("value", [5e-324, 1e-300, 1e300, float("nan"), float("inf"), 0.0, -1.0])
def test_a_sample_that_is_no_time_is_missing(run: Run, document: dict[str, Any], value: float) -> None:
    bad = load_run(written(run, changed(document, ("benchmarks", 0, "stats", "data", 0), value)))
    rows = judge_runs([run], [bad], Limits(), run.path.parent / "none").rows
    assert [row.verdict for row in rows if row.item == bad.benchmarks[0].info.key] == ["missing"]


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_text_is_printable_and_bounded(run: Run, document: dict[str, Any], text: str) -> None:
    found = load_run(written(run, changed(document, (*INFO, "model"), text))).benchmarks[0].info.model
    assert found.isprintable()
    assert len(found) <= MAX_TEXT
    if text.isprintable() and len(text) <= MAX_TEXT:
        assert found == text


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ((*INFO, "device"), "cpu:x"),
        ((*INFO, "device"), "cuda:1\n"),
        ((*INFO, "precision"), "fp64"),
        ((*INFO, "stages"), {"sleep": [1.0]}),
        (("segcore", "outcomes", 0, "kind"), "speed"),
        (("segcore", "selection"), {"__class__": ["x"]}),
        (
            (*INFO, "dataset"),
            {
                "name": "voc",
                "sha256": "ab",
                "images": 1,
                "protocol": "p",
                "scores": {"unheard of": 0.5},
                "intervals": {},
            },
        ),
    ],
)
def test_choices_are_closed(run: Run, document: dict[str, Any], at: tuple[str | int, ...], value: object) -> None:
    with pytest.raises(RecordError):
        load_run(written(run, changed(document, at, value)))


def fifo(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no FIFOs")
@pytest.mark.parametrize(
    "make",
    [
        fifo,
        listening,
        sparse,
        lambda path: path.mkdir(),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.symlink_to(path),
        lambda path: path.symlink_to("nowhere"),
    ],
    ids=["fifo", "socket", "sparse", "directory", "device", "loop", "dangling"],
)
def test_what_is_no_regular_file_of_bounded_size_is_refused(
    tmp_path: Path, make: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    make(Path("0001_x.json"))
    with pytest.raises(RecordError, match="cannot be read"):
        load_run("0001_x.json")
    assert find_runs(tmp_path) == ()


def test_a_name_of_255_bytes_has_no_journal(run: Run) -> None:
    path = run.path.rename(run.path.with_name(f"{'x' * 250}.json"))
    try:
        assert load_run(path).record == run.record
    finally:
        path.rename(run.path)


@pytest.mark.parametrize(
    "line", ["17", "{}", "[]", '{"started": 1}', '{"started": "", "benchmarks": [1], "outcome": {}}']
)
def test_a_journal_that_is_none_is_refused(tmp_path: Path, line: str) -> None:
    run = make_run(tmp_path, rounds=7, models=("embedded",))
    journal_path(run.path).write_text(f"{line}\n")
    with pytest.raises(RecordError, match=r"partial\.jsonl"):
        load_run(run.path)


def test_utf_16_and_a_byte_order_mark_are_read(run: Run) -> None:
    text = run.path.read_text()
    for encoding in ("utf-16", "utf-8-sig"):
        path = run.path.with_name(f"{encoding}.json")
        path.write_text(text, encoding=encoding)
        assert load_run(path).record == run.record
