"""What files say about themselves, and what is assumed where they say nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from segcore.core.errors import ModelError
from segcore.core.model_spec import IMAGENET_MEAN, ModelSpec, Resize
from segcore.inputs.model_files import read_model_file, spec_of_path
from segcore.inputs.self_description import describe, read_header, unused
from segcore.inputs.self_description.metadata import read_metadata, read_names
from tests.support.colour_models import litert_file, onnx_file, openvino_file

SHARED = Path(__file__).parents[3] / "shared" / "models"
RGB = (1 / 255, (0.0,) * 3, (1.0,) * 3)


def completed(path: Path) -> ModelSpec:
    spec = spec_of_path(path)
    return spec.completed(describe(read_header(spec), spec))


def assumed(path: Path) -> set[str]:
    spec = spec_of_path(path)
    return set(describe(read_header(spec), spec).assumptions)


def test_onnx_of_free_size(tmp_path: Path) -> None:
    spec = completed(onnx_file(tmp_path / "a.onnx"))
    assert spec.input == ModelSpec("", spec.source).input  # the defaults, of which these are assumed:
    assert assumed(tmp_path / "a.onnx") == {
        "input.colour",
        "input.multiple_of",
        "input.mean",
        "output.kind",
        "labels",
    }
    assert (spec.output.kind, spec.output.layout) == ("logits", "nchw")
    assert spec.labels is not None
    assert spec.labels.names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize(
    ("operator", "options", "kind", "labels", "background"),
    [
        ("Sigmoid", {}, "sigmoid", ("background", "class 1", "class 2", "class 3"), 0),
        ("Sigmoid", {"channel": 1}, "sigmoid", ("background", "class 1"), 0),
        ("Identity", {"channel": 1}, "logits", ("background", "class 1"), 0),
        ("Softmax", {}, "probabilities", ("class 0", "class 1", "class 2"), None),
        ("ArgMax", {}, "classes", ("class 0", "class 1", "class 2"), None),
        ("ArgMax", {"metadata": {"names": "['r', 'g', 'b']"}}, "classes", ("r", "g", "b"), None),
        ("ArgMax", {"metadata": {"labels": "g b"}}, "classes", ("background", "g", "b"), 0),
        ("Softmax", {"metadata": {"labels": "a b c d e"}}, "probabilities", ("class 0", "class 1", "class 2"), None),
        ("Sigmoid", {"channel": 1, "metadata": {"names": '{"0": "cat"}'}}, "sigmoid", ("background", "cat"), 0),
    ],
)
def test_kind_and_labels(
    tmp_path: Path, operator: str, options: dict[str, Any], kind: str, labels: tuple[str, ...], background: int | None
) -> None:
    spec = completed(onnx_file(tmp_path / "a.onnx", operator, **options))
    assert spec.output.kind == kind
    assert spec.labels is not None
    assert (spec.labels.names, spec.labels.background) == (labels, background)


def test_onnx_of_fixed_size_with_metadata(tmp_path: Path) -> None:
    metadata = {"Image.BitmapPixelFormat": "Bgr8", "Image.NominalPixelRange": "Normalized_1_1", "author": "nobody"}
    path = onnx_file(tmp_path / "a.onnx", shape=(1, 4, 6, 3), metadata=metadata, second_output=True)
    spec = completed(path)
    assert spec.input.resize == Resize("fixed", (4, 6))
    assert (spec.input.colour, spec.input.layout) == ("bgr", "nhwc")
    assert (spec.input.scale, spec.input.mean, spec.input.std) == (1 / 127.5, (1.0,) * 3, (1.0,) * 3)
    assert (spec.output.name, spec.output.layout) == ("out", "nhwc")
    assert assumed(path) == {"input.resize", "output.kind", "output.name", "labels"}
    assert unused(metadata) == {"author": "nobody"}


def test_bytes_go_in_as_they_are(tmp_path: Path) -> None:
    spec = completed(onnx_file(tmp_path / "a.onnx", dtype="uint8"))
    assert (spec.input.dtype, spec.input.scale, spec.input.mean) == ("uint8", 1.0, (0.0,) * 3)
    assert completed(onnx_file(tmp_path / "b.onnx", dtype="float16")).input.dtype == "float16"


@pytest.mark.slow
def test_openvino_says_the_same_as_its_onnx_file_and_what_model_info_adds(tmp_path: Path) -> None:
    source = onnx_file(tmp_path / "a.onnx", "ArgMax", shape=(1, 3, 4, 6))
    info = {
        "labels": "red green blue",
        "reverse_input_channels": "True",
        "mean_values": "123.675 116.28 103.53",
        "scale_values": "[58.395, 57.12, 57.375]",
        "resize_type": "fit_to_window_letterbox",
        "pad_value": "114",
    }
    spec = completed(openvino_file(tmp_path / "a.xml", source, info))
    assert spec.labels is not None
    assert spec.labels.names == ("red", "green", "blue")
    assert (spec.input.scale, spec.input.mean) == (1.0, (123.675, 116.28, 103.53))
    assert (spec.input.resize, spec.input.fill) == (Resize("letterbox", (4, 6)), (114,) * 3)
    assert set(assumed(tmp_path / "a.xml")) == {"input.colour"}  # photos read as BGR
    plain = openvino_file(tmp_path / "b.xml", source)
    assert completed(plain).output == completed(source).output
    assert read_header(spec_of_path(plain)).others == (tmp_path / "b.bin",)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dtype": "UINT8", "quantisation": (1 / 255, 0)}, RGB),
        ({"dtype": "INT8", "quantisation": (1 / 255, -128)}, RGB),
        ({"dtype": "UINT8", "quantisation": (1 / 127.5, 128)}, (1 / 127.5, (1.0,) * 3, (1.0,) * 3)),
        ({"dtype": "UINT8", "quantisation": (1.0, 0)}, (1.0, (0.0,) * 3, (1.0,) * 3)),
    ],
)
def test_range_of_quantised_inputs_is_found(
    tmp_path: Path, options: dict[str, Any], expected: tuple[float, tuple[float, ...], tuple[float, ...]]
) -> None:
    path = litert_file(tmp_path / "a.tflite", **options)
    spec = completed(path)
    assert (spec.input.scale, spec.input.mean, spec.input.std) == expected
    assert "input.mean" not in assumed(path)


def test_what_a_model_file_says_is_neither_overwritten_nor_assumed(tmp_path: Path) -> None:
    onnx_file(tmp_path / "a.onnx", shape=(1, 3, 4, 6))
    (tmp_path / "a.yaml").write_text(
        "source: {onnx: a.onnx}\nlabels: [r, g, b]\n"
        "input: {colour: bgr, scale: 1, mean: 0, std: 1, resize: {letterbox: [4, 6]}}\noutput: {kind: probabilities}\n"
    )
    spec = read_model_file(tmp_path / "a.yaml")
    found = spec.completed(describe(read_header(spec), spec))
    assert (found.input, found.labels, found.output.kind) == (spec.input, spec.labels, "probabilities")
    assert found.assumptions == ()
    (tmp_path / "a.yaml").write_text("source: {onnx: a.onnx}\ninput: {std: [1, 1, 1]}\n")
    spec = read_model_file(tmp_path / "a.yaml")
    assert spec.completed(describe(read_header(spec), spec)).input.mean == IMAGENET_MEAN  # as docs say, not as assumed


def test_labels_that_are_attached_to_a_tflite_file(tmp_path: Path) -> None:
    import zipfile

    path = litert_file(tmp_path / "a.tflite", "ARG_MAX")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "red\ngreen\nblue\n")
    labels = completed(path).labels
    assert labels is not None
    assert labels.names == ("red", "green", "blue")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["a", "b c"]', ("a", "b c")),
        ("{0: 'a', 1: 'b'}", ("a", "b")),
        ('{"1": "b", "0": "a"}', ("a", "b")),
        ("{0: 'a', 2: 'b'}", ()),
        ("a, b c", ("a", "b c")),
        ("a\nb c\n", ("a", "b c")),
        ("a b_c", ("a", "b_c")),
        ("a A", ()),
        ("[", ()),
        ("", ()),
    ],
)
def test_names_of_classes(text: str, names: tuple[str, ...]) -> None:
    assert read_names(text) == names


def test_metadata_that_makes_no_sense_is_not_understood() -> None:
    metadata = {"mean_values": "a b", "pad_value": "300", "resize_type": "none", "soft_threshold": "7", "labels": "a a"}
    assert read_metadata(metadata).understood == {}
    assert read_metadata(metadata) == read_metadata({})


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.tflite"])
@pytest.mark.parametrize("content", [b"", b"\x00\x01\x02", b"<net/>", b"\x08\x00\x00\x00TFL3\x00\x00\x00\x00\x00"])
def test_damaged_files(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot be read as"):
        completed(tmp_path / name)


def test_files_that_take_no_photo(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    def save(shape: list[int], *names: str) -> Path:
        values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
        node = helper.make_node("Identity", [names[0]], ["out"])
        graph = helper.make_graph([node], "g", values, [helper.make_tensor_value_info("out", TensorProto.FLOAT, shape)])
        onnx.save(helper.make_model(graph), tmp_path / "a.onnx")
        return tmp_path / "a.onnx"

    with pytest.raises(ModelError, match="2 inputs"):
        completed(save([1, 3, 4, 6], "a", "b"))
    with pytest.raises(ModelError, match="4 dimensions"):
        completed(save([1, 3], "a"))
    with pytest.raises(ModelError, match="4 channels"):
        completed(save([1, 4, 8, 8], "a"))


def test_real_tflite_files() -> None:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here: foreign models are not part of this repository")
    selfie = completed(SHARED / "selfie_segmentation.tflite")
    assert (selfie.input.resize, selfie.output.kind) == (Resize("fixed", (256, 256)), "sigmoid")
    deeplab = completed(SHARED / "deeplabv3_257_mv_gpu.tflite")
    assert (deeplab.input.resize, deeplab.output.layout) == (Resize("fixed", (257, 257)), "nhwc")
    assert deeplab.labels is not None
    assert len(deeplab.labels) == 21
