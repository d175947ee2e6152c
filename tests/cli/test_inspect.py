"""`segcore models --inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from segcore.cli import cli
from segcore.inputs.model_files import read_model_file, spec_of_path
from segcore.inputs.self_description import describe, read_header
from tests.support.colour_models import litert_file, onnx_file

FILES = {
    "free.onnx": lambda path: onnx_file(path),
    "bgr.onnx": lambda path: onnx_file(
        path,
        "ArgMax",
        shape=(1, 4, 6, 3),
        metadata={"Image.BitmapPixelFormat": "Bgr8", "labels": '["no", "background", "a: b"]', "author": "me"},
    ),
    "bytes.onnx": lambda path: onnx_file(path, "Sigmoid", dtype="uint8", second_output=True),
    "many.onnx": lambda path: onnx_file(
        path, "Softmax", shape=(1, 3, 4, 6), metadata={"mean_values": "1.5 2 3", "scale_values": "7"}
    ),
    "quantised.tflite": lambda path: litert_file(path, "LOGISTIC", dtype="UINT8", quantisation=(1 / 256, 0)),
}


@pytest.mark.parametrize("name", FILES)
def test_the_model_file_that_is_printed_says_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = FILES[name](tmp_path / name)
    result = CliRunner().invoke(cli, ["models", "--inspect", name, "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    text = CliRunner().invoke(cli, ["models", "--inspect", name])
    assert text.exit_code == 0
    assert found["sha256"][:12] in text.stderr
    assert text.stdout == found["model_file"]  # it can be redirected to a file
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "written.yaml").write_text(text.stdout)
    written = read_model_file(tmp_path / "models" / "written.yaml")
    assert Path(written.source.location).resolve() == path
    spec = spec_of_path(path)
    complete = spec.completed(describe(read_header(spec), spec))
    assert (written.input, written.output) == (complete.input, complete.output)
    assert written.labels is not None
    assert complete.labels is not None
    assert written.labels.digest == complete.labels.digest
    assert written.completed(describe(read_header(written), written)).assumptions == ()  # all of it is said now
    assert all(f"# assumed: {text}" in found["model_file"] for text in found["assumed"].values())


def test_what_is_not_understood_is_shown(tmp_path: Path) -> None:
    path = FILES["bgr.onnx"](tmp_path / "bgr.onnx")
    found = json.loads(CliRunner().invoke(cli, ["models", "--inspect", str(path), "--json"]).output)
    assert found["not_used"] == {"author": "me"}
    assert found["outputs"][0]["classes"] == 3
    assert "input.colour" not in found["assumed"]


@pytest.mark.parametrize("name", ["none.onnx", "empty.onnx", "a.pt2"])
def test_what_cannot_be_inspected(tmp_path: Path, name: str) -> None:
    if name != "none.onnx":
        (tmp_path / name).touch()
    result = CliRunner().invoke(cli, ["models", "--inspect", str(tmp_path / name)])
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
