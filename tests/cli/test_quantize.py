"""`segcore quantize`: what it prints and writes, what int8 then uses, bad input, and an interruption."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from segcore.cli import cli
from segcore.core.record_int8 import Int8Record
from segcore.report.html import render_html
from segcore.report.model import build_report
from segcore.report.terminal import render_run
from segcore.results.store import load_run

pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in ("nncf", "onnx", "onnxruntime", "openvino")), reason="needs nncf"
)
MODEL = ("--model", "chain.onnx", "--size", "48", "--device", "cpu")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a network whose second layer is fragile, photos, and masks of its own classes."""
    from tests.support.chains import CLASSES, write_chain

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGCORE_CACHE", str(tmp_path / "cache"))
    write_chain(tmp_path / "chain.onnx", fragile=0)
    for directory in ("photos", "data/images", "data/masks"):
        (tmp_path / directory).mkdir(parents=True)
    random = np.random.default_rng(0)
    for index in range(4):
        photo = np.kron(random.integers(0, 256, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        for directory in ("photos", "data/images"):
            Image.fromarray(photo).save(tmp_path / directory / f"{index}.png")
        mask = random.integers(0, CLASSES, (48, 64)).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "data" / "masks" / f"{index}.png")
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.mark.slow
def test_what_is_found_is_printed_stored_used_and_shown(place: Path) -> None:
    first = run("quantize", *MODEL, "--calibration", "photos", "--max-miou-drop", "0.05", "--json")
    assert first.exit_code == 0, first.stderr
    found = json.loads(first.stdout)
    record = Int8Record.model_validate({key: found[key] for key in Int8Record.model_fields})
    assert "conv1" in record.kept
    assert record.drop <= 0.025 < record.plain_drop
    again = run("quantize", *MODEL, "--calibration", "photos", "--max-miou-drop", "0.05")
    assert again.exit_code == 0
    assert f"{len(record.kept)} of 5 layers stay in fp32" in again.stdout
    data = ("--dataset", "folder", "--root", "data", "--out", "run.json")
    int8 = ("--precision", "int8", "--calibration", "photos", "--runtime", "openvino")
    assert run("evaluate", *MODEL, *data, *int8).exit_code == 0
    written = load_run(place / "run.json")
    assert written.record.int8 == (record,)
    assert "layer1" in render_run(written)
    assert "Layers in int8" in render_html(build_report([written]))


@pytest.mark.slow
def test_masks_of_a_dataset_are_the_truth(place: Path) -> None:
    data = ("--dataset", "folder", "--root", "data")
    result = run("quantize", *MODEL, "--calibration", "photos", *data, "--runtime", "onnxruntime", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert "folder-data" in found["truth"]
    assert found["runtime"] == "onnxruntime"
    assert abs(found["plain_drop"]) < 0.05  # the masks are noise


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("--dataset", "folder"), "--dataset and --root go together"),
        (("--root", "data"), "--dataset and --root go together"),
        (("--dataset", "folder", "--root", "none"), "no such directory"),
        (("--calibration", "none"), "no such file"),
        (("--runtime", "torch"), "cannot be quantised: runtime torch"),
        (("--runtime", "tourch"), "'torch'"),
        (("--runtime", "litert"), "litert"),
        (("--max-miou-drop", "nan"), "finite"),
        (("--max-miou-drop", "2"), "range"),
    ],
)
def test_bad_input_is_one_line(place: Path, words: tuple[str, ...], problem: str) -> None:
    result = run("quantize", *MODEL, *(() if "--calibration" in words else ("--calibration", "photos")), *words)
    assert result.exit_code == 2
    errors = [
        line for line in result.stderr.splitlines() if "assumed" not in line and not line.startswith(("Usage", "Try"))
    ]
    assert problem in "\n".join(errors)
    assert len([line for line in errors if line]) == 1
    assert not list((place / "cache").rglob("*.int8.*"))


@pytest.mark.slow
def test_an_interruption_leaves_nothing(place: Path) -> None:
    """Interrupted as soon as there is a mixture to run, which is in the middle of the sweep."""
    from tests.support.chains import write_chain

    write_chain(place / "long.onnx", layers=60)
    (place / "tmp").mkdir()
    words = ["quantize", "--model", "long.onnx", "--size", "48", "--device", "cpu", "--calibration", "photos"]
    process = subprocess.Popen(
        [sys.executable, "-m", "segcore", *words],
        cwd=place,
        env={**os.environ, "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list((place / "tmp").glob("segcore-*/mixture*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "segcore: interrupted"
    assert not list((place / "tmp").glob("segcore-*"))
    assert not list((place / "cache").rglob("*.int8.*"))
