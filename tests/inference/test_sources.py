"""Sources of networks: each is held against the network that it was made from, driven by hand."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from segcore import Segmenter
from segcore.core.errors import DeviceError, ModelError, NotInstalledError
from segcore.core.labels import VOC
from segcore.inference import models
from segcore.inference.preprocess import preprocess
from segcore.inputs.model_files import read_model_file
from tests.support.networks import TinyNet

PHOTOS = [np.random.default_rng(seed).integers(0, 256, (90, 61, 3), dtype=np.uint8) for seed in range(2)]


class Small(nn.Module):
    """Three layers; 1 to 3 channels in, a quarter of the size out if it is strided."""

    def __init__(self, classes: int = 4, channels: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Conv2d(channels, 8, 3, stride=stride, padding=1)
        self.head = nn.Conv2d(8, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.body(x).relu())
        return result


def seeded(**keys: Any) -> Small:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Small(**keys).eval()


FACTORY = """
from tests.inference.test_sources import seeded
def make(**keys): return seeded(**keys)
def nothing(): return 7
def broken(): raise KeyError("weights of mine")
class Named(__import__("torch").nn.Module):
    def __init__(self): super().__init__(); self.net = seeded()
    def forward(self, x): return {"aux": x, "main": self.net(x)}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with a package `roads` of its own and a directory for model files."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "roads").mkdir()
    (tmp_path / "roads" / "net.py").write_text(FACTORY)
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    import sys

    before = list(sys.path)
    yield tmp_path
    sys.path[:] = before
    for name in ("roads", "roads.net"):
        sys.modules.pop(name, None)


def write(project: Path, text: str) -> Path:
    file = project / "models" / "net.yaml"
    file.write_text(text)
    return file


def by_hand(network: nn.Module, photo: np.ndarray, size: int) -> np.ndarray:
    """Return the class map at the photo's resolution of a network with torchvision's input."""
    with torch.inference_mode():
        logits = network(preprocess(photo, size)[None])
        full = F.interpolate(logits, photo.shape[:2], mode="bilinear", align_corners=False)
    return np.asarray(full.argmax(1)[0].numpy())


@pytest.mark.parametrize(
    ("arguments", "stride"), [("", 1), (", arguments: {classes: 7}", 1), (", arguments: {stride: 4}", 4)]
)
def test_a_factory_of_the_users_own(project: Path, arguments: str, stride: int) -> None:
    file = write(project, f"source: {{python: 'roads.net:make'{arguments}}}\n")
    segmenter = Segmenter(str(file), size=64, device="cpu")
    classes = 7 if "classes" in arguments else 4
    assert segmenter.labels.names == tuple(f"class {index}" for index in range(classes))
    assert any("labels" in text for text in segmenter.spec.assumptions)
    assert segmenter.model_name == "net"
    for photo in PHOTOS:
        assert np.array_equal(segmenter(photo).class_map, by_hand(seeded(classes=classes, stride=stride), photo, 64))


def test_the_factory_of_an_arm_is_that_of_its_own_worktree(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both arms of a paired gate run the model files of the head; PYTHONPATH says whose code they import."""
    worktree = project / "base"
    (worktree / "roads").mkdir(parents=True)
    (worktree / "roads" / "net.py").write_text(FACTORY)
    monkeypatch.setenv("PYTHONPATH", str(worktree))
    monkeypatch.syspath_prepend(worktree)
    models.load(read_model_file(write(project, "source: {python: 'roads.net:make'}\n")))
    import sys

    assert sys.modules["roads.net"].__file__ == str(worktree / "roads" / "net.py")
    assert sys.path.index(str(worktree)) < sys.path.index(str(project))


def test_a_state_dict_and_labels_for_a_factory(project: Path) -> None:
    state = {name: tensor * 2 for name, tensor in seeded().state_dict().items()}
    torch.save(state, project / "models" / "net.pth")
    text = "source: {python: 'roads.net:make'}\nweights: net.pth\nlabels: [road, sidewalk, grass, sky]\n"
    loaded = models.load(read_model_file(write(project, text)))
    assert loaded.labels.names == ("road", "sidewalk", "grass", "sky")
    assert (loaded.weights.kind, loaded.weights.name) == ("checkpoint", "net.pth")
    assert all(torch.equal(t, state[name.removeprefix("network.")]) for name, t in loaded.module.state_dict().items())


def test_an_output_by_name(project: Path) -> None:
    file = write(project, "source: {python: 'roads.net:Named'}\noutput: {name: main}\nlabels: [a, b, c, d]\n")
    found = Segmenter(str(file), size=64, device="cpu")(PHOTOS[0])
    assert set(np.unique(found.class_map)) <= {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("source: {python: 'roads.nett:make'}", "No module named 'roads.nett'"),
        ("source: {python: 'roads.net:mak'}", "did you mean 'make'"),
        ("source: {python: 'roads.net:nothing'}", "returned int"),
        ("source: {python: 'roads.net:broken'}", "KeyError: 'weights of mine'"),
        ("source: {python: 'roads.net:make', arguments: {klasses: 3}}", "klasses"),
        ("source: {python: 'roads.net:Named'}", "found aux, main; choose one by"),
        ("source: {python: 'roads.net:Named'}\noutput: {name: man}", "no tensor 'man'"),
        ("source: {python: 'roads.net:make'}\nweights: gone.pth", "there is no file"),
        ("source: {python: 'roads.net:make'}\noutput: {kind: classes}", "name its labels"),
        ("source: {torchvision: fcn_resnet5}", "did you mean 'fcn_resnet50'"),
        ("source: {torchvision: fcn_resnet50}\nlabels: [a, b]", "add `weights:`"),
        ("source: {exported: gone.pt2}", "there is no"),
        ("source: {exported: /dev/zero}", "is not a regular file"),
        ("source: {torchscript: /dev/zero}", "is not a regular file"),
        ("source: {torchscript: net.yaml}", "wanted a file written by torch.jit.save"),
        ("source: {exported: net.yaml}", "wanted a file written by torch.export.save"),
        ("source: {transformers: .}", "there is no"),
    ],
)
def test_what_cannot_be_opened_is_said_in_a_line(project: Path, text: str, words: str) -> None:
    file = write(project, f"{text}\n")
    with pytest.raises(ModelError) as caught:
        models.load(read_model_file(file))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_package_is_named_with_its_extra(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(NotInstalledError, match=r"pip install 'segcore\[transformers\]'"):
        models.load(read_model_file(write(project, "source: {transformers: .}\n")))


def test_a_changed_weights_file_is_refused(project: Path) -> None:
    torch.save(seeded().state_dict(), project / "models" / "net.pth")
    text = f"source: {{python: 'roads.net:make'}}\nweights: {{path: net.pth, sha256: {'0' * 64}}}\n"
    with pytest.raises(ModelError, match="it was changed"):
        models.load(read_model_file(write(project, text)))


@pytest.mark.parametrize("labels", ["", "labels: [sky, road, car, tree]\n"])
def test_torchvision_with_classes_of_ones_own(project: Path, labels: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = models.build("lraspp_mobilenet_v3_large", classes=4).eval()
    torch.save(network.state_dict(), project / "models" / "four.pth")
    text = f"source: {{torchvision: lraspp_mobilenet_v3_large}}\nweights: four.pth\n{labels}"
    segmenter = Segmenter(str(write(project, text)), size=64, device="cpu")
    assert segmenter.labels.names[0] == ("sky" if labels else "class 0")
    batch = preprocess(PHOTOS[0], 64)[None]
    with torch.inference_mode():
        assert torch.equal(segmenter.forward(batch), network(batch)["out"])


FREE = torch.export.Dim.DYNAMIC


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small networks exported with free and with fixed shapes, and as TorchScript."""
    root = tmp_path_factory.mktemp("files")
    network = TinyNet().eval()
    program = torch.export.export(network, (torch.zeros(2, 3, 96, 80),), dynamic_shapes=({0: FREE, 2: FREE, 3: FREE},))
    torch.export.save(program, root / "free.pt2")
    example = torch.zeros(1, 3, 64, 96)
    fixed = torch.export.export(network, (example,))
    torch.export.save(fixed, root / "fixed.pt2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated
        traced: Any = torch.jit.trace(seeded(stride=4), torch.zeros(1, 3, 64, 96))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, root / "small.ts")
        traced = torch.jit.trace(fixed.module(), example, strict=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, root / "fixed.ts")
    return root


@pytest.mark.slow
def test_an_exported_program_gives_the_masks_of_its_network(files: Path, project: Path) -> None:
    wanted = Segmenter(TinyNet(), size=64, device="cpu")
    found = Segmenter(write(project, f"source: {{exported: {files}/free.pt2}}\nlabels: voc\n").as_posix(), size=64)
    for photo in PHOTOS:
        assert np.array_equal(found(photo).class_map, wanted(photo).class_map)
    assert [r.input_shape for r in found.run(PHOTOS)] == [(2, 3, 94, 64)] * 2
    assert found.weights.name == "free.pt2"


@pytest.mark.slow
@pytest.mark.parametrize("source", ["exported: {files}/fixed.pt2", "torchscript: {files}/fixed.ts"])
def test_a_program_of_one_size_gets_it_photo_by_photo(files: Path, project: Path, source: str) -> None:
    size = "input: {resize: {fixed: [64, 96]}}\n" if "script" in source else ""  # a .pt2 file says it itself
    file = write(project, f"source: {{{source.format(files=files)}}}\nlabels: voc\n{size}")
    found = Segmenter(str(file), size=320, device="cpu")
    assert (found.size, found.spec.input.own_size) == (64, (64, 96))
    network = TinyNet().eval()
    together = "exported" in source  # a trace of one photo says nothing of its batch
    results = found.run(PHOTOS) if together else [found.run([photo])[0] for photo in PHOTOS]
    for photo, result in zip(PHOTOS, results, strict=True):
        resized = np.asarray(Image.fromarray(photo).resize((96, 64), Image.Resampling.BILINEAR))
        with torch.inference_mode():
            logits = network(preprocess(resized, 64)[None])["out"]
        assert np.array_equal(result.model_class_map, logits.argmax(1)[0].numpy())


@pytest.mark.slow
def test_torchscript_runs_in_torch_and_others_say_why_not(files: Path) -> None:
    found = Segmenter(str(files / "small.ts"), size=64, device="cpu")
    assert np.array_equal(found(PHOTOS[0]).class_map, by_hand(seeded(stride=4), PHOTOS[0], 64))
    with pytest.raises(DeviceError, match="batches of 1"):
        Segmenter(str(files / "fixed.pt2"), device="cpu", labels=VOC, runtime="onnxruntime")
    for runtime in ("torch-compile", "onnxruntime", "openvino"):
        with pytest.raises(DeviceError, match="is TorchScript"):
            Segmenter(str(files / "small.ts"), device="cpu", runtime=runtime)
