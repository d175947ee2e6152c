"""Files of others with real weights, and `embedded` exported to files: the same masks as when driven by hand."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from segcore import Segmenter
from segcore.core.quiet import quiet
from segcore.evaluation.datasets import evaluate
from segcore.evaluation.expectations import check_expectations
from segcore.evaluation.parity import logits_parity, photo_logits
from segcore.inference import models
from segcore.inputs.cases import load_cases
from segcore.inputs.datasets import open_dataset
from segcore.inputs.images import as_rgb_image, resource_path
from segcore.inputs.model_files import read_model_file
from tests.support.crosscheck import crosscheck

SHARED = Path(__file__).parents[3] / "shared"
SELFIE = SHARED / "models" / "selfie_segmentation.tflite"
DEEPLAB = SHARED / "models" / "deeplabv3_257_mv_gpu.tflite"
SHARES = {"astronaut": 0.545, "camera": 0.328, "chelsea": 0.931}
"""Of the pixels that `SELFIE` takes for a person: it has never seen a cat."""
Floats = npt.NDArray[np.float32]


def by_hand(path: Path) -> Callable[[Floats], Floats]:
    """Return a function that runs LiteRT's interpreter on values (H, W, 3) and returns (H, W, C)."""
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    if not path.is_file():
        pytest.skip(f"{path} is not here: foreign models are not part of this repository")
    found = interpreter.Interpreter(model_path=str(path))
    found.allocate_tensors()

    def run(values: Floats) -> Floats:
        found.set_tensor(found.get_input_details()[0]["index"], values[None])
        found.invoke()
        return np.asarray(found.get_tensor(found.get_output_details()[0]["index"])[0])

    return run


def resized(name: str, side: int) -> Floats:
    photo = as_rgb_image(f"skimage:{name}.png")
    image = photo if isinstance(photo, Image.Image) else Image.fromarray(photo)
    return np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float32)


def test_selfie_segmentation_is_that_of_the_interpreter() -> None:
    run = by_hand(SELFIE)
    segmenter = Segmenter(str(SELFIE), device="cpu")
    for name, share in SHARES.items():
        expected = run(resized(name, 256) / np.float32(255))[..., 0] > 0.5
        found = segmenter.run([f"skimage:{name}.png"])[0]
        assert np.array_equal(found.model_class_map, expected)
        assert round(float(found.model_class_map.mean()), 3) == share


def test_a_case_that_says_no_person_fails_where_one_is_seen(tmp_path: Path) -> None:
    by_hand(SELFIE)
    (tmp_path / "selfie.yaml").write_text(f"source: {{litert: {SELFIE}}}\nlabels: [background, person]\n")
    (tmp_path / "cases.yaml").write_text(
        "cases:\n- name: cat\n  image: {resource: 'skimage:chelsea.png'}\n  expect: {absent: [person]}\n"
    )
    case = load_cases(tmp_path / "cases.yaml")[0]
    segmenter = Segmenter(read_model_file(tmp_path / "selfie.yaml"), device="cpu")
    record = check_expectations(case, segmenter.run([resource_path("skimage:chelsea.png")])[0])
    assert [check.passed for check in record.checks] == [False]
    assert record.fractions["person"] == pytest.approx(0.931, abs=1e-3)


def deeplab(tmp_path: Path) -> Segmenter:
    text = f"source: {{litert: {DEEPLAB}}}\nlabels: voc\ninput: {{scale: 2/255, mean: 1, std: 1}}\n"
    (tmp_path / "deeplab.yaml").write_text(text)
    return Segmenter(read_model_file(tmp_path / "deeplab.yaml"), device="cpu")


def test_deeplab_is_that_of_the_interpreter(tmp_path: Path) -> None:
    run = by_hand(DEEPLAB)
    segmenter = deeplab(tmp_path)
    for name in ("astronaut", "coffee"):
        expected = run(resized(name, 257) / np.float32(127.5) - 1)
        found = segmenter.run([f"skimage:{name}.png"])[0]
        assert found.logits is not None
        assert np.abs(found.logits.permute(1, 2, 0).numpy() - expected).max() < 1e-3
        assert (found.model_class_map != expected.argmax(axis=2)).mean() < 1e-4


@pytest.mark.slow
def test_deeplab_scores_equal_the_independent_script(tmp_path: Path) -> None:
    run = by_hand(DEEPLAB)
    if not (SHARED / "voc2012").is_dir():
        pytest.skip(f"{SHARED / 'voc2012'} is not here: photos of PASCAL VOC are not part of this repository")
    few = open_dataset("voc", SHARED / "voc2012").first(6)

    def logits_of(photo: Image.Image) -> torch.Tensor:
        values = np.asarray(photo.resize((257, 257), Image.Resampling.BILINEAR), dtype=np.float32)
        return torch.from_numpy(run(values / 127.5 - 1)).permute(2, 0, 1)[None]

    found = evaluate(deeplab(tmp_path), few)["voc-original"].scores
    expected = crosscheck(SHARED / "voc2012", list(few.names), logits_of)
    assert [found["miou"], found["pixel_accuracy"]] == pytest.approx(expected, abs=1e-4)


class Classes(torch.nn.Module):
    """A network that ends in an argmax, as bytes."""

    def __init__(self, network: torch.nn.Module, dtype: torch.dtype = torch.uint8) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)["out"]
        return logits.argmax(dim=1).to(self.dtype)


class Logits(Classes):
    """A network that returns its logits alone."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.network(x)["out"]
        return logits


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`embedded` as ONNX and OpenVINO files, with logits and with class maps."""
    import onnx
    import openvino

    directory, free = tmp_path_factory.mktemp("exported"), torch.export.Dim.DYNAMIC
    with quiet():
        program = torch.onnx.export(
            Logits(models.load("embedded").module).eval(),
            (torch.zeros(2, 3, 192, 160),),
            dynamo=True,
            dynamic_shapes=({0: free, 2: free, 3: free},),
            opset_version=20,
            input_names=["photo"],
            output_names=["logits"],
            verbose=False,
        )
    assert program is not None
    program.save(directory / "logits.onnx", external_data=False)
    model = onnx.load(directory / "logits.onnx")
    model.graph.node.append(onnx.helper.make_node("ArgMax", ["logits"], ["index"], axis=1, keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Cast", ["index"], ["classes"], to=onnx.TensorProto.UINT8))
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info("classes", onnx.TensorProto.UINT8, ["n", "h", "w"]))
    onnx.save(model, directory / "classes.onnx")
    for name in ("logits", "classes"):
        openvino.save_model(openvino.convert_model(directory / f"{name}.onnx"), directory / f"{name}.xml", False)
        for kind, suffix in (("onnx", "onnx"), ("openvino", "xml")):
            text = f"name: {name}\nsource: {{{kind}: {name}.{suffix}}}\nlabels: voc\n"
            (directory / f"{name}.{suffix}.yaml").write_text(text)
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["onnx", "xml"])
@pytest.mark.parametrize("kind", ["logits", "classes"])
def test_embedded_as_a_file_has_the_masks_of_embedded(exported: Path, kind: str, suffix: str) -> None:
    spec = read_model_file(exported / f"{kind}.{suffix}.yaml")
    reference = Segmenter("embedded", device="cpu", size=192)
    segmenter = Segmenter(spec, device="cpu", size=192)
    for name in ("chelsea", "coffee"):
        photo = f"skimage:{name}.png"
        parity = logits_parity(photo_logits(reference, photo), photo_logits(segmenter, photo), 21)
        assert parity.unlike == 0
        assert parity.equal_share > 0.9999
        assert (parity.largest_error is None) == (kind == "classes")


@pytest.mark.slow
def test_embedded_as_a_tflite_file_has_the_masks_of_embedded(tmp_path: Path) -> None:
    pytest.importorskip("litert_torch", reason="the converter to TFLite is not installed: pip install litert-torch")
    program = torch.export.export(
        Classes(models.load("embedded").module, torch.int32).eval(), (torch.zeros(1, 3, 192, 192),)
    )
    torch.export.save(program, tmp_path / "embedded.pt2")
    convert = (
        "import sys, torch, litert_torch; module = torch.export.load(sys.argv[1]).module();"
        "litert_torch.convert(module, (torch.zeros(1, 3, 192, 192),)).export(sys.argv[2])"
    )
    paths = (str(tmp_path / "embedded.pt2"), str(tmp_path / "embedded.tflite"))
    subprocess.run([sys.executable, "-c", convert, *paths], check=True, capture_output=True)
    text = "source: {litert: embedded.tflite}\nlabels: voc\n"
    values = "{mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225]}"
    (tmp_path / "a.yaml").write_text(f"{text}input: {values}\n")
    square = resized("chelsea", 192).astype(np.uint8)
    reference = photo_logits(Segmenter("embedded", device="cpu", size=192), square)
    found = photo_logits(Segmenter(read_model_file(tmp_path / "a.yaml"), device="cpu"), square)
    parity = logits_parity(reference, found, 21)
    assert parity.unlike == 0
    assert parity.equal_share > 0.9999
