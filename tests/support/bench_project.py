"""A project with two cases and our own bench/, whose model is a stand-in."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import scipy.stats  # noqa: F401  # see below
import torchvision.models.segmentation  # noqa: F401
from PIL import Image

# All that a run imports is imported here: pytester forgets modules that an inner run was the first to import, and
# torch cannot be imported twice.
import segcore.plugin.collect
import segcore.plugin.hooks
import segcore.plugin.processes
import segcore.plugin.session
import segcore.report.html
import segcore.report.markdown
from segcore.core.records import CalibrationRecord, Precision, WeightsRecord
from segcore.inference.models import LoadedModel, built_in
from tests.support.networks import ConstantNet

BENCH = Path(__file__).parents[2] / "bench"

QUICK = (
    "--benchmark-max-time=0.01",
    "--benchmark-min-rounds=3",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:randomly",
    "--segcore-wait=0",  # other tests run at the same time
)

CASES = """
cases:
  - name: red
    image: {path: red.png}
    models: [embedded]
    sizes: [32, 48]
    tags: [speed]
    expect: {dominant: cat, classes: {cat: {min_fraction: 0.9}}, absent: [dog]}
  - name: blue
    image: {path: blue.png}
    models: [embedded]
    sizes: [32]
    expect: {dominant: cat}
"""


def fake_calibration(device: Any, precision: Precision = "fp32") -> CalibrationRecord:
    rates = {"matmul_gmacs_per_s": 100.0, "conv_gmacs_per_s": 100.0, "copy_gbytes_per_s": 1.0}
    return CalibrationRecord(device=device.name, precision=precision, **rates)


def load_constant(name: str, weights: Any = "pretrained", settings: Any = None, labels: Any = None) -> LoadedModel:
    kind = "random" if weights == "random" else "pretrained"
    weights_record = WeightsRecord(kind=kind, name="constant", sha256="ab" * 32)
    return LoadedModel(name, ConstantNet(CAT), weights_record, spec=built_in(name))


CAT = 8


@pytest.fixture
def where(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two cases and our own bench/, a cat-seeing stand-in for the model, and no real calibration."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("SEGCORE_CACHE", str(pytester.path / "cache"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(pytester.path.parent))
    monkeypatch.setattr("segcore.plugin.options.PROCESSES", 1)  # others would run the real model
    monkeypatch.setattr("segcore.plugin.options.WAIT_S", 0.0)
    monkeypatch.setattr("platform.node", lambda: "box")
    monkeypatch.setattr("pytest_benchmark.plugin.get_cpu_info", dict)  # starts a process
    monkeypatch.setattr("segcore.report.html.write_html", lambda *_: None)  # tests/test_report_html.py has it
    monkeypatch.setattr("segcore.inference.models.gmacs", lambda *_, **__: 0.25)
    monkeypatch.setattr("segcore.inference.models.gbytes", lambda *_, **__: 0.5)
    monkeypatch.setattr(segcore.plugin.session, "calibrate", fake_calibration)
    monkeypatch.setattr(segcore.plugin.session, "matmul_rate", lambda device: 100.0)
    monkeypatch.setattr("segcore.inference.models.fetch_weights", lambda name, settings=None: Path("here"))
    monkeypatch.setattr("segcore.inference.models.load", load_constant)
    (pytester.path / "cases").mkdir()
    (pytester.path / "cases" / "all.yaml").write_text(CASES)
    for name, colour in (("red", (200, 30, 30)), ("blue", (30, 30, 200))):
        Image.new("RGB", (60, 40), colour).save(pytester.path / "cases" / f"{name}.png")
    shutil.copytree(BENCH, pytester.path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    return pytester.path
