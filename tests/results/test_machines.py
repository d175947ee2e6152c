"""What machines are called where several runs are shown together."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcore.core.records import GpuRecord, Run
from segcore.results.machines import full_names, machine_labels
from tests.support.factories import make_machine
from tests.support.judged_runs import a_run

XEON = make_machine(cpu="Xeon 6 (family 6, model 143)")
ARM = make_machine(cpu="ARM N1")
SMALL = XEON.model_copy(update={"memory_bytes": 1 << 30})
GPU = XEON.model_copy(update={"gpus": (GpuRecord(name="H100", driver="1"),)})


def run(directory: str, name: str, machine: object) -> Run:
    return a_run(name=name, machine=machine).model_copy(update={"path": Path(directory) / f"{name}.json"})


@pytest.mark.parametrize(
    ("runs", "labels", "names"),
    [
        ([], (), ()),
        ([run("runs/x", "a", XEON), run("runs/x", "b", XEON)], ("Xeon 6", "Xeon 6"), ("a", "b")),
        ([run("", "a", XEON), run("", "b", ARM), run("", "c", GPU)], ("Xeon 6", "ARM N1", "H100"), ("a", "b", "c")),
        ([run("", "a", XEON), run("", "b", SMALL)], ("Xeon 6", "Xeon 6 #2"), ("a", "b")),
        (
            [run("runs/machines/laptop", "a", XEON), run("runs/x", "a", XEON), run("runs/machines/desk", "b", ARM)],
            ("laptop", "here", "desk"),
            ("laptop/a", "here/a", "desk/b"),
        ),
        (
            [run("runs/machines/laptop", "a", XEON), run("runs/x", "b", XEON), run("runs/x", "c", ARM)],
            ("laptop", "Xeon 6", "ARM N1"),
            ("laptop/a", "here/b", "here/c"),
        ),
        (
            [run("machines/laptop", "a", XEON), run("machines/laptop", "b", ARM)],
            ("laptop",) * 2,
            ("laptop/a", "laptop/b"),
        ),
    ],
)
def test_labels_and_names(
    monkeypatch: pytest.MonkeyPatch, runs: list[Run], labels: tuple[str, ...], names: tuple[str, ...]
) -> None:
    monkeypatch.setenv("SEGCORE_MACHINE", "here")
    assert machine_labels(runs) == labels
    assert full_names(runs) == names


def test_what_is_installed_or_set_makes_no_other_machine() -> None:
    update = {"torch": "3.0", "thread_settings": {"OMP_NUM_THREADS": "1"}, "intra_op_threads": 1}
    changed = XEON.model_copy(update=update)
    assert len(set(machine_labels([run("", "a", XEON), run("", "b", changed)]))) == 1
