"""Model files on the command line: listed, checked, fetched, and run by every command."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from segcore.cli import cli
from segcore.core.image_files import load_indexed_png, save_indexed_png
from segcore.inference.preprocess import preprocess
from segcore.results.store import load_run

FACTORY = """
import torch
def make():
    torch.manual_seed(1)
    return torch.nn.Conv2d(3, 4, 1)
"""
PADDED = """
source: {python: 'commandnet:make'}
labels: [background, a, b, c]
input: {multiple_of: 64, fill: [255, 255, 255]}
"""


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words), catch_exceptions=False)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a padded model and two photos with masks."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SEGCORE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "commandnet.py").write_text(FACTORY)
    for directory in ("models", "data/images", "data/masks"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "models" / "net.yaml").write_text(PADDED)
    generator = np.random.default_rng(2)
    for name, shape in (("one", (50, 70)), ("two", (81, 40))):
        photo = generator.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(photo).save(tmp_path / "data" / "images" / f"{name}.png")
        save_indexed_png(by_hand(photo), tmp_path / "data" / "masks" / f"{name}.png")
    return tmp_path


def by_hand(photo: np.ndarray) -> np.ndarray:
    """Return the classes of the network without any padding, at 40 pixels and enlarged."""
    torch.manual_seed(1)
    network = torch.nn.Conv2d(3, 4, 1)
    with torch.inference_mode():
        logits = network(preprocess(photo, 40)[None])
        full = torch.nn.functional.interpolate(logits, photo.shape[:2], mode="bilinear", align_corners=False)
    return np.asarray(full.argmax(1)[0].numpy().astype(np.uint8))


@pytest.mark.parametrize("model", ["net", "models/net.yaml"])
def test_segment_by_name_and_by_path(project: Path, model: str) -> None:
    found = run("segment", "data/images/one.png", "--model", model, "--size", "40", "--device", "cpu", "--json")
    assert found.exit_code == 0
    assert json.loads(found.stdout)["model"] == "net"
    photo = np.asarray(Image.open(project / "data" / "images" / "one.png"))
    assert np.array_equal(load_indexed_png(project / "segmented" / "one.mask.png"), by_hand(photo))


def test_evaluate_scores_without_the_padding(project: Path) -> None:
    words = ("--dataset", "folder", "--root", "data", "--model", "net", "--size", "40", "--device", "cpu")
    found = run("evaluate", *words, "--out", "run.json", "--batch", "2")
    assert found.exit_code == 0, found.output
    (benchmark,) = load_run(project / "run.json").benchmarks
    assert benchmark.info.dataset is not None
    assert benchmark.info.dataset.scores["pixel_accuracy"] > 0.9999
    assert benchmark.info.model_file is not None
    assert benchmark.info.model_file.file == "net.yaml"


def test_models_are_listed_and_checked(project: Path) -> None:
    listed = json.loads(run("models", "--json").stdout)
    source = {"python": "commandnet:make"}
    assert listed["model_files"] == [{"model": "net", "file": str(project / "models" / "net.yaml"), "source": source}]
    assert run("models", "--check").exit_code == 0
    (project / "models" / "bad.yaml").write_text("source: {onx: a}\n")
    found: Any = run("models", "--check", "--json")
    assert found.exit_code == 2
    (problem,) = json.loads(found.stdout)["problems"]
    assert (problem["file"], problem["line"], problem["column"]) == ("models/bad.yaml", 1, 10)
    assert run("models", "none", "--check").exit_code == 0
    assert json.loads(run("models", "--schema").stdout)["title"] == "segcore model file"


def test_fetch_downloads_the_weights_of_a_model_file(project: Path) -> None:
    torch.manual_seed(3)
    state = torch.nn.Conv2d(3, 4, 1).state_dict()
    torch.save(state, project / "far.pth")
    digest = hashlib.sha256((project / "far.pth").read_bytes()).hexdigest()
    url = "https://example.org/far.pth"
    text = f"source: {{python: 'commandnet:make'}}\nweights: {{url: '{url}', sha256: {digest}}}\nlabels: [a, b, c, d]\n"
    (project / "models" / "far.yaml").write_text(text)
    environment = {"SEGCORE_MIRRORS": f"{url}=file://{project}/far.pth"}
    found = CliRunner().invoke(cli, ["fetch", "--model", "far"], env=environment, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    (project / "far.pth").unlink()
    words = [
        "segment",
        "data/images/one.png",
        "--model",
        "far",
        "--size",
        "40",
        "--device",
        "cpu",
        "--offline",
        "--json",
    ]
    weights = json.loads(run(*words).stdout)["weights"]
    assert (weights["kind"], weights["sha256"]) == ("checkpoint", digest)


@pytest.mark.parametrize(
    ("model", "words"),
    [("nett", "did you mean 'net'"), ("models/gone.yaml", "there is no such file"), ("./data", "describes itself")],
)
def test_other_names_are_an_error_in_a_line(project: Path, model: str, words: str) -> None:
    found = CliRunner().invoke(cli, ["segment", "data/images/one.png", "--model", model])
    assert isinstance(found.exception, BaseException)
    assert words in str(found.exception) + found.output
