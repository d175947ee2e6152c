"""A model that returns class maps, without logits, in whole runs and in every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from segcore.cli import cli
from segcore.core.image_files import load_indexed_png, save_indexed_png
from segcore.inference import models
from segcore.inference.runtimes import onnx_runtime, openvino
from segcore.results.store import load_run
from tests.support.bench_project import QUICK
from tests.support.colour_models import onnx_file

pytest_plugins = ["pytester"]

ONCE = (onnx_runtime, openvino)
"""pytester forgets modules that an inner run was the first to import, and these cannot be imported twice."""
LOAD = models.load
"""The real one; the fixture puts another in its place."""
MODEL = """
source: {onnx: colours.onnx}
labels: [red, green, blue]
input: {scale: 1/255, mean: 0, std: 1}
"""
CASES = """
cases:
  - name: red
    image: {path: red.png}
    models: [colours]
    sizes: [32]
    expect: {dominant: red, classes: {red: {min_fraction: 1}}, absent: [blue]}
  - name: blue
    image: {path: blue.png}
    models: [colours]
    sizes: [32]
    expect: {absent: [blue]}
"""


@pytest.fixture
def project(where: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project of `where` with one model: an ONNX file that ends in an argmax."""
    monkeypatch.setattr("segcore.inference.models.load", LOAD)
    monkeypatch.chdir(where)
    (where / "models").mkdir()
    onnx_file(where / "models" / "colours.onnx", "ArgMax")
    (where / "models" / "colours.yaml").write_text(MODEL)
    (where / "cases" / "all.yaml").write_text(CASES)
    return where


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_a_whole_run_and_its_verdicts(project: Path, pytester: pytest.Pytester) -> None:
    options = (*QUICK, "--segcore-device=cpu", "--segcore-scenario=single-stream", "--segcore-queries=2")
    first = pytester.runpytest_inprocess("bench/", "--benchmark-save=one", *options)
    first.assert_outcomes(passed=9, failed=1)  # there is blue in the blue photo
    (path,) = project.glob("reports/runs/*/0001_*.json")
    items = {item.info.key: item.info for item in load_run(path).benchmarks}
    accuracy = items["accuracy[red-colours-onnxruntime-cpu-32]"].accuracy
    assert accuracy is not None
    assert (accuracy.dominant, accuracy.fractions, accuracy.passed) == ("red", {"red": 1.0}, True)
    assert accuracy.margin_map is None
    latency = items["latency[red-colours-onnxruntime-cpu-32]"]
    assert (latency.gmacs, latency.gbytes) == (None, None)
    assert latency.weights.name == "colours.onnx"
    assert latency.weights.sha256 == models.load(str(project / "models" / "colours.onnx")).weights.sha256
    pytester.runpytest_inprocess(
        "bench/test_accuracy.py", "--benchmark-save=two", "--segcore-runtime=openvino", *options[:-2], "-k", "red"
    ).assert_outcomes(passed=1, deselected=1)
    (other,) = project.glob("reports/runs/*/0002_*.json")
    checks = load_run(other).benchmarks[0].info.accuracy
    assert checks is not None
    assert [check.name for check in checks.checks if "onnxruntime" in check.name] == ["pixels unlike onnxruntime fp32"]
    assert "no logits" in checks.checks[-1].found
    for name in ("three", "four"):
        pytester.runpytest_inprocess(
            "bench/test_accuracy.py", f"--benchmark-save={name}", *options[:-2], "-k", "red"
        ).assert_outcomes(passed=1, deselected=1)
    base, head = (next(project.glob(f"reports/runs/*/{number}_*.json")) for number in ("0003", "0004"))
    assert run("gate", base, head).exit_code == 0
    assert run("compare", path, other).exit_code == 0
    assert run("report", head, "--baseline", base, "--markdown", project / "a.md").exit_code in (0, 1, 3)
    assert "colours" in (project / "a.md").read_text()


@pytest.mark.slow
def test_every_command_takes_class_maps(project: Path) -> None:
    photo = project / "cases" / "red.png"
    options = ("--model", "colours", "--device", "cpu", "--size", 32)
    found = run("segment", photo, *options, "--out", project / "out", "--profile", "--json")
    assert found.exit_code == 0, found.output
    about = json.loads(found.stdout)
    assert (about["runtime"], about["photos"][0]["fractions"]) == ("onnxruntime", {"red": 1.0})
    assert any("ArgMax" in operator["kind"] for operator in about["profile"]["operators"])
    assert not load_indexed_png(project / "out" / "red.mask.png").any()

    best = run("best", photo, *options, "--rounds", 1, "--precision", "fp32", "--json")
    assert best.exit_code == 0, best.output
    candidates = json.loads(best.stdout)["candidates"]
    assert [each["runtime"] for each in candidates] == ["onnxruntime", "openvino"]
    assert [each["largest_error"] for each in candidates] == [None, None]

    for part in ("images", "masks"):
        (project / "set" / part).mkdir(parents=True)
    colours = np.random.default_rng(1).integers(0, 256, (40, 60, 3)).astype(np.uint8)
    Image.fromarray(colours).save(project / "set" / "images" / "a.png")
    save_indexed_png(colours.argmax(axis=2).astype(np.uint8), project / "set" / "masks" / "a.png")
    labels = project / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    scored = run(
        *("evaluate", "--dataset", "folder", "--root", project / "set", *options[:-1], 40, "--labels", labels),
        *("--out", project / "a.json", "--json"),
    )
    assert scored.exit_code == 0, scored.output
    assert json.loads(scored.stdout)["results"][0]["scores"]["miou"] == 1.0


def test_a_file_without_a_model_file_states_what_is_assumed_once(project: Path) -> None:
    photo, path = project / "cases" / "red.png", project / "models" / "colours.onnx"
    found = run("segment", photo, photo, "--model", path, "--device", "cpu", "--size", 32, "--out", project / "out")
    assert found.exit_code == 0, found.output
    assert found.stderr.count(": assumed: ") == 1
    assert "RGB, not BGR" in found.stderr
    assert run("segment", photo, "--model", path, "--runtime", "litert", "--device", "cpu").exit_code == 2
