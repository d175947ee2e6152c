"""Model files in whole runs: by name and by path, at their own size, and what run files and the gate say of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from segcore.core.records import Run
from segcore.inference import models
from segcore.inputs.model_files import read_model_file
from segcore.results.store import load_run
from tests.support.bench_project import QUICK

pytest_plugins = ["pytester"]

FACTORY = """
import torch
def make(kind=0):
    torch.manual_seed(kind)
    return torch.nn.Conv2d(3, 4, 1)
"""
MODEL = """
source: {python: 'ours.net:make'}
labels: [background, a, b, c]
input: {resize: {letterbox: [48, 64]}, multiple_of: 32}
"""
CASES = """
name: red
image: {path: red.png}
models: [net, ../other/free.yaml]
sizes: [32, 40]
"""
_load = models.load


@pytest.fixture
def project(where: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a model of one size by its name, and one of any size by its path."""
    monkeypatch.setattr("segcore.inference.models.load", _load)
    monkeypatch.syspath_prepend(where)
    for directory in ("ours", "models", "other"):
        (where / directory).mkdir()
    (where / "ours" / "net.py").write_text(FACTORY)
    (where / "models" / "net.yaml").write_text(MODEL)
    (where / "other" / "free.yaml").write_text("source: {python: 'ours.net:make'}\nlabels: [background, a, b, c]\n")
    (where / "cases" / "all.yaml").write_text(CASES)
    return where


def run_of(where: Path, number: int = 1) -> Run:
    (path,) = where.glob(f"reports/runs/*/{number:04}_*.json")
    return load_run(path)


@pytest.mark.slow
def test_a_run_of_models_by_name_and_by_path(pytester: pytest.Pytester, project: Path) -> None:
    arguments = ("bench/test_latency.py", "bench/test_accuracy.py", *QUICK, "--segcore-device=cpu")
    assert pytester.runpytest_inprocess(*arguments, "--benchmark-save=one").ret == 0
    found = {bench.info.key: bench.info for bench in run_of(project).benchmarks}
    sizes = {"net": [48], "free": [32, 40]}
    wanted = [
        f"{kind}[red-{name}-torch-cpu-{size}]"
        for kind in ("accuracy", "latency")
        for name in sizes
        for size in sizes[name]
    ]
    assert sorted(found) == sorted(wanted)
    net = found["latency[red-net-torch-cpu-48]"]
    assert (net.input_shape, net.size, net.weights.kind) == ((1, 3, 64, 64), 48, "checkpoint")
    assert net.model_file is not None
    assert (net.model_file.file, net.model_file.source) == ("net.yaml", "python")
    assert net.model_file.sha256 == read_model_file(project / "models" / "net.yaml").digest
    free = found["latency[red-free-torch-cpu-40]"]
    assert free.model_file is not None
    assert free.model_file.file == "free.yaml"
    assert (free.labels.name if free.labels else "", net.preprocess != free.preprocess) == ("free", True)


@pytest.mark.slow
def test_the_gate_names_another_model_file(pytester: pytest.Pytester, project: Path) -> None:
    arguments = ("bench/test_accuracy.py", *QUICK, "--segcore-device=cpu", "--segcore-model=models/net.yaml")
    assert pytester.runpytest_inprocess(*arguments, "--benchmark-save=one").ret == 0
    assert run_of(project).record.selection["model"] == ("net",)
    (project / "models" / "net.yaml").write_text(MODEL.replace("64]", "96]"))
    result = pytester.runpytest_inprocess(*arguments, "--benchmark-save=two", "--segcore-baseline=one")
    text = "\n".join(result.outlines)
    assert "model file of net was net.yaml (sha256" in text.replace("\n", " ")
    assert result.ret == 0


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("models/net.yaml", "source: {pyton: a}", "net.yaml:1:10"),
        ("cases/all.yaml", CASES.replace("net,", "nett,"), "did you mean 'net'"),
        ("cases/all.yaml", CASES.replace("free", "fre"), "there is no such file"),
    ],
)
def test_what_is_wrong_with_a_model_is_said_before_anything_runs(
    pytester: pytest.Pytester, project: Path, file: str, text: str, words: str
) -> None:
    (project / file).write_text(text)
    result = pytester.runpytest_inprocess("bench/test_latency.py", *QUICK)
    assert result.ret == 4
    assert words in "\n".join(result.errlines)
