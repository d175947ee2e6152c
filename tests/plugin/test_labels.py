"""Models with classes of their own in whole runs: from a checkpoint of torchvision's network to the page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torchvision.models.segmentation import deeplabv3_resnet50

from segcore.cli import cli
from segcore.core.image_files import load_indexed_png, save_indexed_png
from segcore.core.labels import VOC, LabelSet
from segcore.core.model_spec import ModelSpec
from segcore.core.records import LabelsRef, Run
from segcore.inference import models
from segcore.inference.pipeline import Segmenter
from segcore.inputs.model_files import read_model_file
from segcore.report.html import render_html
from segcore.report.model import build_report
from segcore.results.store import load_run
from tests.support.bench_project import CAT, QUICK, load_constant

pytest_plugins = ["pytester"]

NAMES = ("road", "lane marking", "curb", "verge")
COLOURS = {"road": "[10, 20, 30]", "lane marking": "[250, 240, 20]", "curb": "[120, 0, 90]", "verge": "[1, 150, 2]"}
MODEL = f"""
name: roadnet
source: {{torchvision: deeplabv3_resnet50}}
weights: {{path: roadnet.pth}}
labels:
  names: [{", ".join(NAMES)}]
  colours: {{{", ".join(f"{name}: {colour}" for name, colour in COLOURS.items())}}}
  aliases: {{kerb: curb}}
"""
CASES = """
cases:
  - name: street
    image: {path: red.png}
    models: [roadnet]
    sizes: [32]
    expect: {classes: {kerb: {max_fraction: 1}}, ground_truth: {path: mask.png}, min_miou: 0}
  - name: cats
    image: {path: red.png}
    models: [roadnet, embedded]
    sizes: [32]
    expect: {dominant: cat, absent: [dog]}
  - name: voc-mask
    image: {path: red.png}
    models: [embedded, roadnet]
    sizes: [32]
    expect: {ground_truth: {path: voc.png}, min_miou: 0}
"""

_load = models.load


def load(model: Any, *arguments: Any, **options: Any) -> models.LoadedModel:
    """Load the model of a file, and torchvision's network with its checkpoint; a stand-in for a built-in model."""
    built_in = model if isinstance(model, str) else model.name if model.file is None else None
    with_checkpoint = any(isinstance(argument, Path) for argument in arguments)
    return load_constant(built_in) if built_in and not with_checkpoint else _load(model, *arguments, **options)


@pytest.fixture
def roadnet(where: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A project with a model of four classes, from seeded weights in a file."""
    monkeypatch.setattr("segcore.inference.models.load", load)
    (where / "models").mkdir()
    (where / "models" / "roadnet.yaml").write_text(MODEL)
    torch.manual_seed(4)
    network = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=4, aux_loss=True)
    torch.save(network.state_dict(), where / "models" / "roadnet.pth")
    (where / "cases" / "all.yaml").write_text(CASES)
    mask = np.repeat(np.array([[0, 1, 2, 3, 255]], np.uint8), 40, axis=0).repeat(12, axis=1)
    save_indexed_png(mask, where / "cases" / "mask.png")
    save_indexed_png(np.full((40, 60), CAT, np.uint8), where / "cases" / "voc.png")
    return read_model_file(where / "models" / "roadnet.yaml")


def run_of(where: Path) -> Run:
    (path,) = where.glob("reports/runs/*/0001_*.json")
    return load_run(path)


@pytest.mark.slow
def test_from_checkpoint_to_page(where: Path, pytester: pytest.Pytester, roadnet: ModelSpec) -> None:
    pytester.runpytest_inprocess("bench/", "-k", "street", "--benchmark-save", *QUICK).assert_outcomes(passed=4)
    run = run_of(where)
    labels = roadnet.labels
    assert labels is not None
    assert [record.labels.digest for record in run.record.labels] == [labels.digest]
    assert {benchmark.info.labels for benchmark in run.benchmarks} == {LabelsRef.of(labels)}
    (info,) = (benchmark.info for benchmark in run.benchmarks if benchmark.info.kind == "accuracy")
    assert info.weights.kind == "checkpoint"
    assert info.accuracy is not None
    assert info.accuracy.checks[0].name == "fraction of curb"
    assert set(info.accuracy.iou or {}) <= set(NAMES)
    segmenter = Segmenter(roadnet, device="cpu", size=32)
    result = segmenter(where / "cases" / "red.png")
    assert info.accuracy.fractions == result.fractions
    assert info.accuracy.dominant == result.dominant
    path = run.path.parent / str(info.accuracy.class_map)
    np.testing.assert_array_equal(load_indexed_png(path), result.class_map)
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.array(image.convert("RGB")), labels.palette[result.class_map])
    page = render_html(build_report([run]))
    shown = {name: "#{:02x}{:02x}{:02x}".format(*labels.colors[labels.index(name)]) for name in result.fractions}
    assert all(re.search(rf"{colour}.{{0,200}}{name}", page, re.DOTALL) for name, colour in shown.items())


@pytest.mark.slow
def test_a_case_is_skipped_for_a_model_without_its_classes(
    where: Path, pytester: pytest.Pytester, roadnet: ModelSpec
) -> None:
    done = pytester.runpytest_inprocess("bench/test_accuracy.py", "--benchmark-save", *QUICK)
    done.assert_outcomes(passed=3, skipped=2)
    reasons = {outcome.key: outcome.reason for outcome in run_of(where).record.outcomes if outcome.outcome == "skipped"}
    why = "roadnet cannot be held against this case:"
    assert reasons == {
        "accuracy[cats-roadnet-torch-cpu-32]": (
            f"{why} the labels roadnet have no class 'cat' (expect.dominant), 'dog' (expect.absent)"
        ),
        "accuracy[voc-mask-roadnet-torch-cpu-32]": (
            f"{why} the mask, drawn in the classes of voc, has the class 'cat': roadnet does not"
        ),
    }
    assert {record.name for record in run_of(where).record.labels} == {"voc", "roadnet"}
    done.stdout.fnmatch_lines([f"*{why}*"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-k", "typo"], "unknown class 'raod' (did you mean 'road'?)"),
        (["--segcore-model", "embedded"], "unknown class 'raod' (did you mean 'road'?); none of roadnet, voc has it"),
    ],
)
def test_a_class_of_no_model_is_an_error(
    where: Path, pytester: pytest.Pytester, options: list[str], words: str
) -> None:
    (where / "models").mkdir()
    (where / "models" / "roadnet.yaml").write_text(MODEL)
    image = "image: {path: red.png}"
    (where / "cases" / "all.yaml").write_text(f"name: typo\n{image}\nmodels: [roadnet]\nexpect: {{dominant: raod}}")
    done = pytester.runpytest_inprocess("bench/", *options)
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    assert words in done.stderr.str()
    checked = CliRunner().invoke(cli, ["cases", "--check", str(where / "cases"), "--models", str(where / "models")])
    assert checked.exit_code == 2
    assert "did you mean 'road'?" in checked.output


def test_cases_are_listed_with_the_classes_of_their_models(where: Path) -> None:
    (where / "models").mkdir()
    (where / "models" / "roadnet.yaml").write_text(MODEL)
    image = "image: {path: red.png}"
    (where / "cases" / "all.yaml").write_text(f"name: a\n{image}\nmodels: [roadnet]\nexpect: {{dominant: kerb}}")
    arguments = ["cases", str(where / "cases"), "--json", "--models", str(where / "models")]
    found = json.loads(CliRunner().invoke(cli, arguments).stdout)
    assert found["problems"] == []
    assert found["cases"][0]["expect"] == {"dominant": "curb"}
    assert "mask_labels" not in found["cases"][0]


def test_the_labels_of_a_model_file_are_its_own(where: Path) -> None:
    (where / "models").mkdir()
    (where / "models" / "roadnet.yaml").write_text(MODEL)
    labels = read_model_file(where / "models" / "roadnet.yaml").labels
    assert labels == LabelSet(
        "roadnet", NAMES, ((10, 20, 30), (250, 240, 20), (120, 0, 90), (1, 150, 2)), {"kerb": "curb"}
    )
    assert labels.digest != VOC.digest
