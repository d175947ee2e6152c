"""Every command writes to terminals, pipes, full disks and closed streams as it should."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest

from segcore.cli import COMMANDS
from segcore.inputs.images import resource_path
from tests.support.factories import make_run
from tests.support.forked import Case, Outcome, outcomes
from tests.support.pairs import make_voc

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full and fork")

EMBEDDED = ("--model", "embedded", "--size", "32", "--device", "cpu")
CALLS: dict[str, tuple[tuple[str, ...], int]] = {
    "init": (("init", "--dry-run"), 0),
    "segment": (("segment", "cat.png", *EMBEDDED), 0),
    "evaluate": (("evaluate", "--dataset", "voc", "--root", "VOC", *EMBEDDED), 0),
    "report": (("report", "head", "--baseline", "base", "--storage", "runs"), 0),
    "gate": (("gate", "base", "head", "--storage", "runs"), 1),
    "compare": (("compare", "base", "head", "--storage", "runs"), 0),
    "history": (("history", "--storage", "runs"), 0),
    "sync": (("sync", "place", "--storage", "runs"), 0),
    "devices": (("devices",), 0),
    "models": (("models",), 0),
    "fetch": (("fetch", "--model", "embedded"), 0),
    "runtimes": (("runtimes", "--device", "cpu"), 0),
    "best": (("best", "cat.png", *EMBEDDED, "--runtime", "torch", "--precision", "fp32", "--rounds", "1"), 0),
    "cases": (("cases", "cases"), 0),
    "quantize": (("quantize", "--help"), 0),  # itself, it takes minutes
}
"""A call of each command that prints something, with its exit code."""
PLAIN = ("init", "fetch", "sync", "quantize")
"""They print lines without colours."""

SITUATIONS: dict[str, Case] = {
    "pipe": Case(()),
    "narrow pipe": Case((), environment={"COLUMNS": "60"}),
    "coloured pipe": Case((), environment={"FORCE_COLOR": "1"}),
    "pipe, both": Case((), environment={"FORCE_COLOR": "1", "NO_COLOR": "1"}),
    "terminal": Case((), "terminal", {"TERM": "xterm-256color", "COLUMNS": "70"}),
    "terminal without colours": Case((), "terminal", {"TERM": "xterm-256color", "NO_COLOR": "1"}),
    "dumb terminal": Case((), "terminal", {"TERM": "dumb"}),
    "full": Case((), "full"),
    "closed": Case((), "closed"),
    "gone": Case((), "gone"),
    "ascii": Case((), encoding="ascii"),
}
WITH_COLOURS = ("coloured pipe", "terminal")
UNWRITABLE = ("full", "gone")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Outcome]:
    """The outcome of each command in each situation."""
    directory = tmp_path_factory.mktemp("streams")
    make_run(directory / "runs", "base", rounds=8, models=("embedded",))
    make_run(directory / "runs", "head", rounds=8, models=("embedded",), slower=1.5, seed=1)
    for n, day in enumerate(("2026-11-01", "2026-11-02")):
        make_run(directory / "runs", f"naïve-猫-{n}", rounds=8, models=("embedded",), started=day)
    make_voc(directory / "VOC", 2)
    (directory / "place").mkdir()
    (directory / "cat.png").write_bytes(resource_path("skimage:chelsea.png").read_bytes())
    (directory / "cases").mkdir()
    (directory / "cases" / "kätzchen-猫.png").write_bytes((directory / "cat.png").read_bytes())
    (directory / "cases" / "cat.yaml").write_text(
        "name: cat\nimage: {path: 'kätzchen-猫.png'}\nexpect: {dominant: cat}\n", encoding="utf-8"
    )
    keys = list(itertools.product(CALLS, SITUATIONS))
    cases = [
        Case(CALLS[command][0], wanted.stdout, wanted.environment, wanted.encoding)
        for command, situation in keys
        for wanted in [SITUATIONS[situation]]
    ]
    return dict(zip(keys, outcomes(cases, directory), strict=True))


def test_the_table_has_every_command() -> None:
    assert set(CALLS) == set(COMMANDS)


@pytest.mark.slow
def test_output(found: dict[tuple[str, str], Outcome]) -> None:
    wrong = {}
    for (command, situation), outcome in found.items():
        try:
            check(command, situation, outcome)
        except AssertionError as error:
            wrong[command, situation] = str(error)
    assert wrong == {}


def check(command: str, situation: str, outcome: Outcome) -> None:
    wanted = CALLS[command][1]
    assert "Traceback" not in outcome.stderr, outcome.stderr
    assert "Exception ignored" not in outcome.stderr
    if situation in UNWRITABLE:
        assert outcome.stderr.count("standard output cannot be written") == 1, outcome.stderr
        assert outcome.code == (wanted if command == "gate" else 2)
        return
    assert outcome.code == wanted, outcome.stderr
    if situation == "closed":
        return
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", outcome.stdout)
    assert ("\x1b" in outcome.stdout) == (situation in WITH_COLOURS and command not in PLAIN)
    assert "\x1b" not in plain
    assert len(plain) > 10
    if columns := SITUATIONS[situation].environment.get("COLUMNS"):
        to_copy = ("to decide: ", "embedded: ", "would write ", "kept ")  # commands and paths stay on one line
        assert all(len(line) <= int(columns) for line in plain.splitlines() if not line.startswith(to_copy))


@pytest.mark.slow
def test_where_nothing_limits_the_width_each_row_is_a_line(found: dict[tuple[str, str], Outcome]) -> None:
    for situation in ("pipe", "coloured pipe", "ascii"):
        assert "deeplabv3_mobilenet_v3_large " in found["models", situation].stdout
        assert max(map(len, found["compare", situation].stdout.splitlines())) > 100


@pytest.mark.parametrize("command", ["models", "history", "compare", "gate"])
def test_what_needs_no_torch_loads_none(command: str, tmp_path: Path) -> None:
    """Loading it takes seconds; looks at what was imported, not at the clock."""
    import sys

    make_run(tmp_path / "runs", "base", rounds=8, models=("embedded",))
    make_run(tmp_path / "runs", "head", rounds=8, models=("embedded",), seed=1)
    script = (
        "import sys; from segcore.cli import cli; cli(sys.argv[1:], standalone_mode=False);"
        "print('LOADED', sorted({'torch', 'torchvision'} & set(sys.modules)))"
    )
    words = CALLS[command][0]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert "LOADED []" in done.stdout, done.stderr
