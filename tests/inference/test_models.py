from __future__ import annotations

import hashlib
import math
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torchvision.models import get_model, list_models, segmentation
from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

from segcore.core.errors import ModelError, OfflineError
from segcore.core.files import sha256_file
from segcore.inference import catalog, models
from segcore.inference.models import checkpoint
from segcore.inputs.download import FetchSettings, cache_name
from tests.support.http_server import MisbehavingServer, Reply

SMALL = "lraspp_mobilenet_v3_large"


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FetchSettings:
    """An empty cache, no network, and no torch hub to fall back on."""
    monkeypatch.setenv("SEGCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEGCORE_OFFLINE", "1")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return FetchSettings.from_env()


def test_all_torchvision_segmentation_models_are_known_by_their_own_names() -> None:
    names = models.model_names()
    assert names[:2] == ("embedded", "fcn_resnet101")
    assert {"fcn_resnet50", "deeplabv3_resnet50", "deeplabv3_resnet101", "deeplabv3_mobilenet_v3_large", SMALL} <= set(
        names
    )
    assert len(names) == len(set(names))


def test_an_unknown_model_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"unknown model 'fcn_resnet110' \(did you mean 'fcn_resnet101'\?\)"):
        models.load("fcn_resnet110")


@pytest.mark.parametrize("name", ["fcn_resnet101", "deeplabv3_mobilenet_v3_large", SMALL])
def test_builders_have_21_classes_and_no_auxiliary_head(name: str) -> None:
    module = models.build(name, "meta")
    assert not any(key.startswith(checkpoint.AUXILIARY_HEAD) for key in module.state_dict())
    assert module.eval()(torch.empty(1, 3, 64, 96, device="meta"))["out"].shape == (1, 21, 64, 96)


def test_gmacs_agree_with_torchvisions_figure() -> None:
    """Torchvision publishes 232.738 GMACs at 520x520 with the auxiliary head, whose share is known by its layers."""
    size = 520 // 8
    auxiliary = (1024 * 256 * 9 + 256 * 21) * size * size / 1e9
    assert models.gmacs("fcn_resnet101", 520, 520) + auxiliary == pytest.approx(232.738, rel=1e-4)
    assert models.gmacs("fcn_resnet101", 520, 520, batch=2) == pytest.approx(
        2 * models.gmacs("fcn_resnet101", 520, 520)
    )
    assert models.parameter_count("fcn_resnet101") == 54_314_346 - (1024 * 256 * 9 + 2 * 256 + 256 * 21 + 21)


@pytest.mark.slow
def test_the_catalog_says_what_torchvision_and_counting_say() -> None:
    counted = models.counted_models()
    builders = set(list_models(module=segmentation)) - {"fcn_resnet101"}
    assert list(catalog.LISTED) == list(counted) == ["embedded", "fcn_resnet101", *sorted(builders)]
    assert {name: listed for name, listed in catalog.LISTED.items() if listed.url} == {
        name: listed for name, listed in counted.items() if listed.url
    }
    own = catalog.LISTED["embedded"]
    assert (own.parameters, own.gmacs) == (counted["embedded"].parameters, counted["embedded"].gmacs)


@pytest.mark.parametrize(
    ("version", "asked"), [("0.20.1+cpu", False), ("0.29.1", False), ("0.30.0", True), ("x", True)]
)
def test_a_newer_torchvision_is_asked(monkeypatch: pytest.MonkeyPatch, version: str, asked: bool) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    monkeypatch.setattr(models, "counted_models", dict)
    assert catalog.listed_models() == ({} if asked else catalog.LISTED)


@pytest.mark.parametrize("variables", [{}, {"XDG_CACHE_HOME": "/x"}, {"TORCH_HOME": "~/t"}])
def test_downloads_of_torch_are_found_without_torch(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("XDG_CACHE_HOME", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with_torch = catalog.torch_hub()
    monkeypatch.delitem(sys.modules, "torch")
    assert catalog.torch_hub() == with_torch


def test_random_weights_are_seeded_and_do_not_advance_the_generator() -> None:
    torch.manual_seed(42)
    expected = torch.rand(1)
    torch.manual_seed(42)
    first, second = models.load(SMALL, "random"), models.load(SMALL, "random")
    assert torch.equal(torch.rand(1), expected)
    assert first.weights == second.weights
    assert first.weights.kind == "random"
    assert not first.module.training
    for one, other in zip(first.module.state_dict().values(), second.module.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fcn_resnet101", "deeplabv3_resnet101"])
def test_random_weights_stay_in_the_range_of_fp16(name: str) -> None:
    module, largest = models.load(name, "random").module, []
    for part in module.modules():
        part.register_forward_hook(
            lambda _, __, out: (
                largest.append(float(torch.as_tensor(out).abs().max())) if isinstance(out, torch.Tensor) else None
            )
        )
    with torch.inference_mode():
        module(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert 1 < max(largest) < torch.finfo(torch.float16).max / 10


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_checkpoint_is_loaded_with_its_hash(tmp_path: Path, suffix: str) -> None:
    module = models.load(SMALL, "random").module
    with torch.no_grad():
        module.classifier.low_classifier.bias.fill_(3.5)  # type: ignore[union-attr, operator]
    path = tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file(module.state_dict(), path)
    else:
        torch.save({"model": {f"module.{k}": v for k, v in module.state_dict().items()}, "epoch": 3}, path)
    loaded = models.load(SMALL, path)
    assert loaded.weights.kind == "checkpoint"
    assert loaded.weights.name == path.name
    assert loaded.weights.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.module.state_dict()["classifier.low_classifier.bias"] == 3.5).all()


def _state() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.zeros(21, 4), "a.bias": torch.zeros(21), "b": torch.zeros(3, 3)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, ""),
        ({"b": None}, "1 of 3 tensors are missing (b)"),
        ({"c": torch.zeros(1)}, "1 are not the model's (c)"),
        ({"b": torch.zeros(3, 4)}, "b has shape (3, 4), wanted (3, 3)"),
        ({"a.bias": torch.zeros(19)}, "a.bias has 19 classes, wanted 21"),
        ({"a.weight": torch.zeros(2, 4)}, "a.weight has 2 classes, wanted 21"),
        ({"a.weight": torch.zeros(21, 5)}, "a.weight has shape (21, 5), wanted (21, 4)"),
    ],
)
def test_differences_are_described(change: dict[str, torch.Tensor | None], message: str) -> None:
    found = {k: v for k, v in {**_state(), **change}.items() if v is not None}
    assert "; ".join(checkpoint.differences(_state(), found)) == message


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code ran",))


def test_a_checkpoint_never_runs_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"a": Exploit()}, path)
    with pytest.raises(ModelError, match=r"cannot read the checkpoint .*evil\.pth"):
        models.load(SMALL, path)
    assert "code ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.pth", b"", "cannot read the checkpoint"),
        ("text.pth", b"these are no weights", "cannot read the checkpoint"),
        ("cut.safetensors", b"\x40\0\0\0\0\0\0\0{", "cannot read the checkpoint"),
        ("list.pth", [1, 2], "holds no state dict: found list"),
        ("dict.pth", {"epoch": 1}, r"holds no state dict: found a dict with the keys epoch"),
        ("none.pth", {}, "found an empty dict"),
    ],
)
def test_an_invalid_checkpoint_is_refused(tmp_path: Path, name: str, content: object, message: str) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ModelError, match=message) as caught:
        checkpoint.read_state(path, 1 << 20)
    assert "\n" not in str(caught.value)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected 'pretrained', 'random' or the path"):
        models.load(SMALL, tmp_path / "pretraind")


def test_missing_pretrained_weights_are_never_replaced(settings: FetchSettings) -> None:
    with pytest.raises(OfflineError, match=r"fcn_resnet101_coco-7ecb50ca\.pth"):
        models.load("fcn_resnet101", "pretrained", settings)
    known = models.listed("fcn_resnet101")
    assert catalog.weights_path(known, settings) is None
    assert 200e6 < known.size_mib * (1 << 20) < 230e6
    assert known.published == {"miou": 63.7, "pixel_acc": 91.9}


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of the form that torchvision publishes: its keys, an auxiliary head, its name ending in its hash."""
    state = get_model(SMALL, weights=None, weights_backbone=None, num_classes=21).state_dict()
    state["aux_classifier.0.weight"] = torch.zeros(1)
    made = tmp_path / "made.pth"
    torch.save(state, made)
    path = tmp_path / "www" / f"lraspp-{hashlib.sha256(made.read_bytes()).hexdigest()[:8]}.pth"
    path.parent.mkdir()
    made.rename(path)
    default = _Default(f"https://weights.example/models/{path.name}", LRASPP_MobileNet_V3_Large_Weights.DEFAULT)
    monkeypatch.setattr(models, "_default_weights", lambda name: default)
    return path


@pytest.mark.parametrize("home", ["segcore", "torch hub"])
def test_pretrained_weights_are_found_in_both_caches(
    home: str, published: Path, settings: FetchSettings, tmp_path: Path
) -> None:
    name = cache_name(f"https://weights.example/models/{published.name}")
    folder = settings.cache_dir if home == "segcore" else tmp_path / "torch" / "hub" / "checkpoints"
    target = folder / (name if home == "segcore" else published.name)
    target.parent.mkdir(parents=True)
    published.rename(target)
    assert catalog.weights_path(models.listed(SMALL), settings) == target
    loaded = models.load(SMALL, "pretrained", settings)
    assert loaded.weights.kind == "pretrained"
    assert loaded.weights.sha256 == sha256_file(target)
    target.write_bytes(b"damaged")
    assert catalog.weights_path(models.listed(SMALL), settings) is None


def test_pretrained_weights_are_fetched_once_checked_and_loaded(
    published: Path, settings: FetchSettings, server: MisbehavingServer
) -> None:
    server.reply(f"/{published.name}", Reply(status=500), Reply(published.read_bytes()))
    online = replace(
        settings, offline=False, mirrors=(("https://weights.example/models/", server.url("/")),), backoff=0.0
    )
    first = models.load(SMALL, "pretrained", online)
    second = models.load(SMALL, "pretrained", online)
    assert first.weights == second.weights
    assert first.weights.sha256 == sha256_file(published)
    assert len(server.headers_of(f"/{published.name}")) == 2  # the 500, then the file; never again
    assert first.module(torch.zeros(1, 3, 32, 32))["out"].shape == (1, 21, 32, 32)


class _Default:
    def __init__(self, url: str, real: LRASPP_MobileNet_V3_Large_Weights) -> None:
        self.url = url
        self.meta = real.meta


def test_gbytes_are_what_the_convolutions_read_and_write() -> None:
    module = models.build("embedded")
    moved = []
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            part.register_forward_hook(
                lambda conv, inputs, output: moved.append(
                    inputs[0].nbytes + output.nbytes + sum(p.nbytes for p in conv.parameters())
                )
            )
    with torch.inference_mode():
        module.eval()(torch.zeros(2, 3, 64, 96))
    assert models.gbytes("embedded", 64, 96, batch=2) == pytest.approx(sum(moved) / 1e9)


WEIGHT, COUNT = "backbone.0.0.weight", "backbone.0.1.num_batches_tracked"
Save = Callable[[dict[str, torch.Tensor], Path], None]
FORMATS: dict[str, Save] = {
    "zip.pth": torch.save,
    "old.pth": partial(torch.save, _use_new_zipfile_serialization=False),
    "mine.safetensors": lambda state, path: save_file({k: t.contiguous() for k, t in state.items()}, path),
}


def spoilt(weight: torch.Tensor, value: float) -> torch.Tensor:
    changed = weight.double()
    changed[0, 0, 0, 0] = value
    return changed


@cache
def network() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A network to load into, and the state that it had first."""
    module = models.load(SMALL, "random").module
    return module, {name: tensor.clone() for name, tensor in module.state_dict().items()}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("name", "change"),
    [
        (WEIGHT, lambda t: spoilt(t, math.nan)),
        (WEIGHT, lambda t: spoilt(t, math.inf).float()),
        (WEIGHT, lambda t: spoilt(t, -math.inf)),
        (WEIGHT, lambda t: spoilt(t, 1e300)),  # infinite in float32
        (WEIGHT, lambda t: t * math.nan),
        (WEIGHT, lambda t: t.to(torch.complex64)),
        (WEIGHT, lambda t: t.to(torch.int8)),
        (WEIGHT, lambda t: t.to(torch.int64)),
        (WEIGHT, lambda t: t > 0),
        (COUNT, lambda t: t.bool()),
        (COUNT, lambda t: t.to(torch.complex64)),
        (WEIGHT, lambda t: t.to("meta")),
        (WEIGHT, lambda t: t.to_sparse()),
        (WEIGHT, lambda t: t.flatten().expand(10**6, t.numel())),
        (f"module.{WEIGHT}", lambda t: torch.zeros(2)),
        (f"module.{WEIGHT}", lambda t: t + 1),
    ],
)
def test_weights_that_are_no_weights_are_refused_by_name(
    form: str, name: str, change: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    module, state = network()
    changed = change(state[name.removeprefix("module.")])
    if form.endswith(".safetensors") and not (changed.layout == torch.strided and changed.device.type == "cpu"):
        pytest.skip("safetensors has no such tensors")
    if changed.numel() > 10**7 and form.endswith(".safetensors"):
        pytest.skip("safetensors would write them out")
    FORMATS[form](state | {name: changed}, tmp_path / form)
    with pytest.raises(ModelError, match=name.removeprefix("module.")) as caught:
        checkpoint.load_into(module, tmp_path / form, SMALL)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "convert",
    [
        lambda t: t,
        lambda t: t.half(),  # the counters too, as people do
        lambda t: t.double(),
        lambda t: t.bfloat16() if t.is_floating_point() else t.int(),
        lambda t: torch.full_like(t, 3e38) if t.is_floating_point() else t,
    ],
)
def test_other_precisions_of_weights_are_converted(
    form: str, convert: Callable[[torch.Tensor], torch.Tensor], tmp_path: Path
) -> None:
    module, first = network()
    state = {name: convert(tensor) for name, tensor in first.items()}
    FORMATS[form](state, tmp_path / form)
    checkpoint.load_into(module, tmp_path / form, SMALL)
    loaded = module.state_dict()
    for name, tensor in state.items():
        assert torch.equal(loaded[name], tensor.to(loaded[name].dtype))


def packed(path: Path, members: dict[str, bytes]) -> None:
    """Write what `torch.save` does with some members replaced, compressed."""
    torch.save({"a": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as archive:
        found = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    root = next(iter(found)).partition("/")[0]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (found | {f"{root}/{name}": data for name, data in members.items()}).items():
            archive.writestr(name, data)


LIMIT = 1 << 20


@pytest.mark.parametrize("member", ["data/0", "data/1", "data.pkl", "version", "byteorder", "anything"])
def test_what_a_checkpoint_declares_is_checked_before_it_is_unpacked(member: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    packed(path, {member: bytes(LIMIT)})
    assert path.stat().st_size < LIMIT / 50
    with pytest.raises(ModelError, match=r"at most 1 MB can belong to this model"):
        checkpoint.read_state(path, LIMIT)


@pytest.mark.parametrize("name", ["mine.pth", "mine.safetensors"])
def test_a_file_far_larger_than_the_network_is_not_read(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ModelError, match=r"has 1,099,512 MB, at most \d+ MB can belong to this model"):
        models.load(SMALL, path)


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_what_is_not_tensors_is_bounded(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine.{'safetensors' if kind == 'safetensors' else 'pth'}"
    junk = b"N0" * (2 << 20)
    if kind == "zip":
        packed(path, {"data.pkl": b"\x80\x02" + junk})
    elif kind == "old":
        path.write_bytes(b"\x80\x02X\xff\xff\xff\x7f" + junk)
    else:
        path.write_bytes(len(junk).to_bytes(8, "little") + b"{" + junk)
    with pytest.raises(ModelError, match="2 MiB"):
        checkpoint.read_state(path, 1 << 30)


@pytest.mark.parametrize("kind", ["directory", "fifo", "loop", "long", "null", "below a file"])
def test_what_is_no_file_is_no_checkpoint(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    match kind:
        case "directory":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "loop":
            path.symlink_to(path)
        case "long":
            path = tmp_path / f"{'x' * 300}.pth"
        case "null":
            path = tmp_path / "a\0b.pth"
        case _:
            path.write_bytes(b"")
            path = path / "mine.pth"
    with pytest.raises(ModelError, match="expected 'pretrained', 'random' or the path") as caught:
        models.load(SMALL, path)
    assert "\n" not in str(caught.value)
