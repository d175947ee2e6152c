"""ONNX, OpenVINO and TFLite files in their runtimes: masks that can be told by hand, and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from PIL import Image

from segcore import Segmenter
from segcore.core.errors import DeviceError, ModelError
from segcore.core.model_spec import ModelSpec, OutputSpec
from segcore.evaluation.backends import available_backends, benchmark_backends
from segcore.evaluation.parity import is_reference, logits_parity, photo_logits, reference_of
from segcore.inference.devices import Device
from segcore.inference.runtimes import RUNTIMES, why_not
from segcore.inputs.model_files import read_model_file, spec_of_path
from tests.support.colour_models import litert_file, onnx_file, openvino_file

COLOURS = np.random.default_rng(0).permutation(256)[:72].reshape(4, 6, 3).astype(np.uint8)
"""A photo in which no two channels of a pixel are equal."""
BRIGHTEST = COLOURS.argmax(axis=2)
PLAIN = "input: {scale: 1/255, mean: 0, std: 1, resize: none}\n"
"""Values of 0 to 1, at the photo's own size."""


def described(path: Path, text: str = PLAIN) -> ModelSpec:
    """Write a model file for the file of a model, and read it."""
    kind = {".onnx": "onnx", ".xml": "openvino", ".tflite": "litert"}[path.suffix]
    file = path.with_suffix(".yaml")
    file.write_text(f"source: {{{kind}: {path.name}}}\n{text}")
    return read_model_file(file)


def segment(model: str | ModelSpec, photo: Any = COLOURS, **options: Any) -> Any:
    return Segmenter(model, device="cpu", **options).run([photo], margins=True)[0]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("operator", "options"),
    [
        ("Identity", {}),
        ("Softmax", {}),
        ("ArgMax", {}),
        ("ArgMax", {"result": TensorProto.INT64}),
        ("ArgMax", {"result": TensorProto.INT32, "shape": (1, 4, 6, 3)}),
        ("Identity", {"shape": (1, 4, 6, 3)}),
        ("Identity", {"shape": (1, 3, 4, 6), "dtype": "float16"}),
        ("Softmax", {"second_output": True}),
    ],
)
def test_masks_of_onnx_files(tmp_path: Path, runtime: str, operator: str, options: dict[str, Any]) -> None:
    spec = described(onnx_file(tmp_path / "a.onnx", operator, **options), PLAIN.replace(", resize: none", ""))
    if "shape" not in options:
        spec = described(tmp_path / "a.onnx")
    found = segment(spec, runtime=runtime)
    assert np.array_equal(found.model_class_map, BRIGHTEST)
    assert np.array_equal(found.class_map, BRIGHTEST)
    assert (found.margins is None) == (operator == "ArgMax")


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_bytes_go_in_as_they_are_and_bgr_is_turned(tmp_path: Path, runtime: str) -> None:
    path = onnx_file(tmp_path / "a.onnx", dtype="uint8", metadata={"Image.BitmapPixelFormat": "Bgr8"})
    found = segment(described(path, "input: {resize: none}\n"), runtime=runtime)
    assert np.array_equal(found.class_map, 2 - BRIGHTEST)


def test_one_channel_tells_two_classes_apart(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx", channel=1)
    spec = described(path, PLAIN + "output: {kind: sigmoid, threshold: 0.25}\nlabels: [background, green]\n")
    found = segment(spec)
    assert np.array_equal(found.class_map, COLOURS[..., 1] > 0.25 * 255)
    assert found.margins is not None
    assert found.margins.max() <= 0.75


def test_batches_of_a_file_that_takes_one_photo(tmp_path: Path) -> None:
    photos = [COLOURS, COLOURS[::-1].copy(), COLOURS[:, ::-1].copy()]
    path = onnx_file(tmp_path / "a.onnx", "ArgMax", shape=(1, 4, 6, 3))
    for runtime in ("onnxruntime", "openvino"):
        results = Segmenter(described(path, PLAIN.replace(", resize: none", "")), device="cpu", runtime=runtime)(photos)
        for photo, result in zip(photos, results, strict=True):
            assert np.array_equal(result.class_map, photo.argmax(axis=2))


@pytest.mark.slow
def test_openvino_files(tmp_path: Path) -> None:
    source = onnx_file(tmp_path / "a.onnx", "ArgMax")
    spec = described(openvino_file(tmp_path / "a.xml", source))
    segmenter = Segmenter(spec, device="cpu")
    assert segmenter.runtime == "openvino"
    assert np.array_equal(segmenter(COLOURS).class_map, BRIGHTEST)
    before = segmenter.weights.sha256
    (tmp_path / "a.bin").write_bytes((tmp_path / "a.bin").read_bytes() + b"\0")
    assert Segmenter(spec, device="cpu").weights.sha256 != before  # weights are part of the model


@pytest.mark.parametrize(
    ("operator", "options"),
    [
        ("RESHAPE", {}),
        ("SOFTMAX", {}),
        ("ARG_MAX", {}),
        ("RESHAPE", {"dtype": "UINT8", "quantisation": (1 / 255, 0)}),
        ("RESHAPE", {"dtype": "INT8", "quantisation": (1 / 255, -128)}),
        ("RESHAPE", {"dtype": "UINT8", "quantisation": (1 / 127.5, 128)}),
    ],
)
def test_masks_of_tflite_files(tmp_path: Path, operator: str, options: dict[str, Any]) -> None:
    path = litert_file(tmp_path / "a.tflite", operator, **options)
    found = segment(str(path))
    assert np.array_equal(found.class_map, BRIGHTEST)
    assert found.labels.names == ("class 0", "class 1", "class 2")
    if options:  # pixels go in as they are, and the output means what its quantisation says
        scale, mean = (1 / 127.5, 1) if options["quantisation"][1] == 128 else (1 / 255, 0)
        assert found.logits.permute(1, 2, 0).numpy() == pytest.approx(COLOURS * scale - mean, abs=0.51 * scale)


def test_sigmoids_of_several_classes_leave_room_for_the_background(tmp_path: Path) -> None:
    labels = "labels: [r, g, b, background]\noutput: {kind: sigmoid, threshold: 0.7}\n"
    spec = described(litert_file(tmp_path / "a.tflite", "LOGISTIC"), labels)
    strong = 1 / (1 + np.exp(COLOURS.max(axis=2) / -255)) > 0.7
    assert np.array_equal(segment(spec).class_map, np.where(strong, BRIGHTEST, 3))


def test_large_photos_get_class_maps_to_the_nearest_pixel(tmp_path: Path) -> None:
    photo = Image.fromarray(COLOURS).resize((60, 20), Image.Resampling.NEAREST)
    spec = described(onnx_file(tmp_path / "a.onnx", "ArgMax", shape=(1, 3, 4, 6)), PLAIN.replace(", resize: none", ""))
    spec = replace(spec, input=replace(spec.input, interpolation="nearest"), said=spec.said | {"input.interpolation"})
    expected = np.asarray(Image.fromarray(BRIGHTEST.astype(np.uint8)).resize((60, 20), Image.Resampling.NEAREST))
    assert np.array_equal(segment(spec, photo).class_map, expected)


@pytest.mark.parametrize(
    ("runtime", "make"),
    [
        ("onnxruntime", lambda directory: onnx_file(directory / "a.onnx", "no.such.Frobnicate")),
        ("openvino", lambda directory: onnx_file(directory / "a.onnx", "no.such.Frobnicate")),
        ("litert", lambda directory: litert_file(directory / "a.tflite", "Frobnicate", custom=True)),
        ("openvino", lambda directory: litert_file(directory / "a.tflite", "Frobnicate", custom=True)),
    ],
)
def test_a_runtime_names_the_operator_that_it_cannot_run(tmp_path: Path, runtime: str, make: Any) -> None:
    with pytest.raises(ModelError, match=rf"runtime {runtime} cannot run .*Frobnicate$") as caught:
        Segmenter(str(make(tmp_path)), device="cpu", runtime=runtime)
    assert "\n" not in str(caught.value)


def test_a_photo_that_a_file_cannot_run_on_is_an_error_of_one_line(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx")
    model = onnx.load(path)
    constant = onnx.numpy_helper.from_array(np.zeros((1, 3, 4, 6), np.float32), "constant")
    model.graph.initializer.append(constant)
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Add", ["before", "constant"], ["out"]))
    onnx.save(model, path)  # it does not say that it takes photos of 4x6 alone
    segmenter = Segmenter(described(path), device="cpu")
    assert np.array_equal(segmenter(COLOURS).class_map, BRIGHTEST)
    with pytest.raises(ModelError, match="multiple_of") as caught:
        segmenter(COLOURS[:3])
    assert "\n" not in str(caught.value)


def test_runtimes_refuse_what_is_none_of_theirs(tmp_path: Path) -> None:
    path = str(onnx_file(tmp_path / "a.onnx"))
    with pytest.raises(DeviceError, match="onnxruntime, openvino"):
        Segmenter(path, device="cpu", runtime="torch")
    with pytest.raises(DeviceError, match="no precision 'fp16' for files"):
        Segmenter(path, device="cpu", runtime="onnxruntime", precision="fp16")
    with pytest.raises(DeviceError, match="not networks of torch"):
        Segmenter("embedded", device="cpu", runtime="litert")
    with pytest.raises(ModelError, match="holds its weights"):
        Segmenter(path, device="cpu", weights="random")
    assert why_not("litert", Device("cpu"), "fp32", "onnx") is not None
    assert why_not("litert", Device("cpu")) is None


@pytest.mark.parametrize(
    ("shape", "dtype", "text"),
    [
        ((1, 3, 4, 6), "float32", "input: {resize: {fixed: [6, 4]}}"),
        ((1, 3, 4, 6), "float32", "input: {resize: shorter}"),
        ((1, 3, 4, 6), "float32", "input: {layout: nhwc}"),
        ((1, 3, 4, 6), "float32", "input: {colour: grey, mean: 0, std: 1}"),
        ((1, 3, 4, 6), "uint8", "input: {dtype: float32}"),
        ((2, 3, 4, 6), "float32", ""),
        ((1, 3, 4, 6), "float32", "output: {name: auxiliary}"),
    ],
)
def test_model_files_that_contradict_the_file(tmp_path: Path, shape: tuple[int, ...], dtype: str, text: str) -> None:
    spec = described(onnx_file(tmp_path / "a.onnx", shape=shape, dtype=dtype), text)
    with pytest.raises(ModelError) as caught:
        Segmenter(spec, device="cpu")
    assert "\n" not in str(caught.value)


def test_letterboxes_and_padding_of_files(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx", "ArgMax", shape=(1, 3, 10, 6))
    spec = described(path, "input: {scale: 1/255, mean: 0, std: 1, resize: {letterbox: [10, 6]}}")
    assert np.array_equal(segment(spec).class_map, BRIGHTEST)  # 3 rows above and below are cut off
    path = onnx_file(tmp_path / "b.onnx", "ArgMax")
    assert np.array_equal(segment(described(path, PLAIN.replace("none", "none, multiple_of: 8"))).class_map, BRIGHTEST)


def test_parity_and_best_of_files(tmp_path: Path) -> None:
    spec = described(onnx_file(tmp_path / "a.onnx", "ArgMax"))
    other = Segmenter(spec, device="cpu", runtime="openvino")
    reference = reference_of(other)
    assert (reference.runtime, is_reference(reference), is_reference(other)) == ("onnxruntime", True, False)
    parity = logits_parity(photo_logits(reference, COLOURS), photo_logits(other, COLOURS), len(other.labels))
    assert (parity.equal_share, parity.unlike, parity.largest_error) == (1.0, 0, None)
    backends = available_backends(Device("cpu"), precisions=("fp32",), kind="onnx")
    assert backends == (("onnxruntime", "fp32"), ("openvino", "fp32"))
    found = benchmark_backends(
        lambda runtime, precision: Segmenter(spec, device="cpu", runtime=runtime, precision=precision),
        backends,
        [COLOURS],
        rounds=1,
    )
    assert [candidate.keeps_masks(0) for candidate in found] == [True, True]


def test_best_leaves_out_a_runtime_that_cannot_run_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RUNTIMES["openvino"].module, "open_session", _refuse)
    path = str(onnx_file(tmp_path / "a.onnx", "ArgMax"))
    found = benchmark_backends(
        lambda runtime, precision: Segmenter(path, device="cpu", size=4, runtime=runtime, precision=precision),
        (("onnxruntime", "fp32"), ("openvino", "fp32")),
        [COLOURS],
        rounds=1,
    )
    assert [candidate.runtime for candidate in found] == ["onnxruntime"]
    assert "left out: no operator" in capsys.readouterr().err


def _refuse(request: object) -> None:
    raise ModelError("no operator")


def test_files_with_weights_beside_them_are_hashed_with_those(tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx", dtype="uint8")
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="a.data", size_threshold=0)
    segmenter = Segmenter(str(path), device="cpu", size=4)
    assert segmenter.weights.name == "a.onnx"
    with (tmp_path / "a.data").open("ab") as file:
        file.write(b"\0")
    assert Segmenter(str(path), device="cpu", size=4).weights.sha256 != segmenter.weights.sha256


def test_profiles_of_files(tmp_path: Path) -> None:
    spec = described(onnx_file(tmp_path / "a.onnx", "ArgMax"))
    for runtime in ("onnxruntime", "openvino"):
        segmenter, session = Segmenter(spec, device="cpu", runtime=runtime).profiled()
        assert np.array_equal(segmenter.run([COLOURS])[0].class_map, BRIGHTEST)
        assert any("ArgMax" in operator.kind or "TopK" in operator.kind for operator in session.finish().passes[0])
    assert not Segmenter(str(litert_file(tmp_path / "a.tflite")), device="cpu").is_profilable


def test_spec_of_output_can_be_given_without_a_model_file(tmp_path: Path) -> None:
    spec = spec_of_path(onnx_file(tmp_path / "a.onnx", "Softmax", shape=(1, 3, 4, 6)))
    wrong = replace(spec, output=OutputSpec(kind="classes"), said=frozenset({"output.kind"}))
    with pytest.raises(ModelError, match="class map"):
        segment(wrong)
    assert torch.is_tensor(segment(spec).logits)
