from __future__ import annotations

import gc
import math
import os
import platform
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import segmentation

from segcore import Segmenter
from segcore.core.errors import DeviceError, ModelError
from segcore.core.labels import NUM_CLASSES
from segcore.inference import models
from segcore.inference.decode import enlarge
from segcore.inference.devices import Device
from segcore.inference.models.checkpoint import check_weights
from segcore.inference.recording import model_bytes, record_of
from segcore.inference.runtimes import RUNTIMES, open_session, why_not
from segcore.inference.runtimes.artifacts import artifact, built_earlier_s
from segcore.inference.runtimes.session import BuildRequest
from segcore.inference.runtimes.upsampling import PassThrough, inference_copy, without_upsampling
from segcore.inputs.download import FetchSettings
from segcore.measurement.machine import usable_cores
from tests.support.networks import TinyNet

CPU = Device("cpu")
SHAPES = [(1, 3, 64, 80), (3, 3, 50, 33)]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> FetchSettings:
    return FetchSettings(tmp_path_factory.mktemp("cache"))


def calibration() -> list[torch.Tensor]:
    return [torch.randn(1, 3, 48, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]


def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


def reference(network: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = network.eval()(batch)["out"]
    return logits


# Largest error allowed, as a share of the largest logit: rounding for fp32, else a few steps of the number format.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "precision", "tolerance"),
    [
        ("torch", "fp32", 0.0),
        ("torch", "bf16", 0.05),
        ("torch-compile", "fp32", 1e-5),
        ("onnxruntime", "fp32", 1e-5),
        ("onnxruntime", "int8", 0.1),
        ("openvino", "fp32", 1e-5),
        ("openvino", "int8", 0.1),
    ],
)
def test_every_runtime_gives_the_logits_of_eager(
    runtime: str,
    precision: str,
    tolerance: float,
    settings: FetchSettings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if reason := why_not(runtime, CPU, precision):
        pytest.skip(reason)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(settings.cache_dir / "inductor"))
    session = open_session(runtime, TinyNet(), CPU, precision, settings=settings, calibration=calibration)
    shapes = SHAPES[:1] if runtime == "torch-compile" else SHAPES  # every shape is compiled for many seconds
    batches = [torch.randn(shape, generator=torch.Generator().manual_seed(7)) for shape in shapes]
    answers = [session.forward(batch) for batch in batches]  # all are kept: none may be overwritten by the next
    for batch, found in zip(batches, answers, strict=True):
        expected = reference(TinyNet(), batch)
        assert found.dtype == torch.float32
        assert found.shape == expected.shape
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert session.options["threads"] == str(torch.get_num_threads())
    assert capsys.readouterr().out == ""


def processor_ns() -> dict[str, int]:
    """Nanoseconds of processor time that each thread of this process has had."""
    return {file.parent.name: int(file.read_text().split()[0]) for file in Path("/proc/self/task").glob("*/schedstat")}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="only Linux tells what each thread did")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_every_runtime_uses_as_many_threads_as_torch(
    runtime: str, threads: int, settings: FetchSettings, torch_threads: None
) -> None:
    if reason := why_not(runtime, CPU):
        pytest.skip(reason)
    if threads > usable_cores():
        pytest.skip("OpenVINO takes no more threads than there are cores")
    torch.set_num_threads(threads)
    session = open_session(runtime, TinyNet(), CPU, settings=settings)
    assert session.options["threads"] == str(threads)
    batch = torch.zeros(1, 3, 512, 512)
    session.forward(batch)
    before = processor_ns()
    for _ in range(10):
        session.forward(batch)
    spent = [spent - before.get(thread, 0) for thread, spent in processor_ns().items()]
    workers = [share for share in spent if share > 0.1 * sum(spent)]
    assert 1 <= len(workers) <= threads  # a busy machine may leave one of them nothing to do


FAULTS = """
import resource
import numpy as np
import torch
from segcore import Segmenter
from segcore.inference import allocator
segmenter, photo = Segmenter("embedded", size=320, device="cpu"), np.zeros((320, 480, 3), np.uint8)
def faults_per_call(function, *arguments):
    for calls in (4, 4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(calls):
            function(*arguments)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // calls
segmenter(photo)
print(faults_per_call(torch.ones, 12 << 20))
allocator.keep_freed_memory()
print(faults_per_call(segmenter, photo))
with allocator.default_settings():
    print(faults_per_call(torch.ones, 12 << 20))
print(faults_per_call(torch.ones, 12 << 20))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")
def test_freed_memory_is_kept_on_request_unless_the_environment_configures_the_allocator() -> None:
    def faults(**environment: str) -> list[int]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
        command = [sys.executable, "-c", FAULTS]
        run = subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True)
        return [int(line) for line in run.stdout.split()]

    with_a_segmenter_alone, segmenting, by_default, kept_again = faults()
    assert with_a_segmenter_alone > 5000
    assert segmenting < 1500
    assert by_default > 5000
    assert kept_again < 100
    assert min(faults(MALLOC_TRIM_THRESHOLD_="131072")) > 5000


@pytest.mark.slow
def test_signals_arrive_after_openvino(settings: FetchSettings) -> None:
    """It moves the stack that signals are handled on, and must not leave it on memory that is gone."""
    if reason := why_not("openvino", CPU):
        pytest.skip(reason)
    for _ in range(2):
        open_session("openvino", TinyNet(), CPU, settings=settings).forward(torch.zeros(2, 3, 64, 64))
        gc.collect()
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("name", ["embedded", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large"])
def test_enlarged_logits_equal_the_network_s_own_to_the_bit(name: str) -> None:
    network = models.load(name, "random").module
    batch = torch.randn(1, 3, 64, 97, generator=torch.Generator().manual_seed(1))
    expected = reference(network, batch)
    with torch.inference_mode():
        logits = without_upsampling(network)(batch)
    assert logits.shape[-1] < 97 / 3
    assert torch.equal(enlarge(logits, 64, 97), expected)


def test_the_upsampling_is_removed_from_torchvision_s_networks_alone() -> None:
    for name in models.model_names():
        logits = without_upsampling(models.build(name, "meta"))(torch.empty(1, 3, 64, 96, device="meta"))
        assert logits.shape[-2:] < (64, 96), name
    assert isinstance(without_upsampling(TinyNet()), PassThrough)

    class Subclass(segmentation.FCN):  # type: ignore[misc]  # torchvision has no types
        """May end in whatever it likes."""

    assert isinstance(without_upsampling(Subclass(nn.Identity(), nn.Identity())), PassThrough)


def test_half_precision_does_not_convert_the_user_s_network() -> None:
    network = TinyNet()
    if why_not("torch", CPU, "bf16"):
        pytest.skip("no bf16 on this CPU")
    open_session("torch", network, CPU, "bf16").forward(torch.zeros(1, 3, 8, 8))
    assert network.features.weight.dtype == torch.float32


@pytest.mark.slow
def test_a_segmenter_takes_runtime_and_precision(settings: FetchSettings) -> None:
    if reason := why_not("openvino", CPU, "int8"):
        pytest.skip(reason)
    plain = Segmenter(TinyNet(), device="cpu", size=48)
    fast = Segmenter(
        TinyNet(), device="cpu", size=48, runtime="openvino", precision="int8", calibration=[photo()], settings=settings
    )
    assert fast.runtime_options["inference_precision_hint"] == "f32"
    assert fast.runtime_options["calibration"].startswith("1 photos, sha256 ")
    assert fast.build_seconds > 0
    assert fast.artifact
    built = fast.artifact.stat().st_mtime_ns
    assert np.mean(fast(photo()).class_map == plain(photo()).class_map) > 0.8
    again = Segmenter(
        TinyNet(), device="cpu", size=48, runtime="openvino", precision="int8", calibration=[photo()], settings=settings
    )
    assert again.artifact == fast.artifact
    assert again.artifact.stat().st_mtime_ns == built, "it is not built again"
    record = record_of(again, kind="latency", case="x", input_shape=(1, 3, 48, 48))
    assert record.first_build_s == pytest.approx(again.build_seconds, abs=1e-3)
    files = (
        again.artifact,
        again.artifact.with_suffix(".bin"),
        again.artifact.with_name(f"{again.artifact.name}.data"),
    )
    assert record.model_bytes == sum(file.stat().st_size for file in files if file.exists())
    assert model_bytes(plain) == sum(4 * each.numel() for each in TinyNet().state_dict().values())


def request(network: nn.Module, cache_dir: Path = Path("/nowhere")) -> BuildRequest:
    return BuildRequest(without_upsampling(network), CPU, "fp32", cache_dir, tuple)


class OtherCode(TinyNet):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": -super().forward(x)["out"]}


def test_artifacts_are_identified_by_structure_code_and_weights() -> None:
    networks = [TinyNet(), TinyNet(seed=1), TinyNet(stride=2), OtherCode(), *map(Scaled, VALUES)]
    keys = [tuple(request(network).network_key().values()) for network in networks]
    assert len(set(keys)) == len(networks)
    assert keys[0] == tuple(request(TinyNet()).network_key().values())


class Scaled(TinyNet):
    """A network that uses a value which is neither a parameter nor in its state."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


VALUES: list[object] = [
    2.0,
    3.0,
    "2.0",
    [2.0],
    {"a": 2.0},
    {"a": 3.0},
    {"a": 3.0, "b": [1, 2], "c": [3, 4]},
    {"a": 3.0, "b": [1, 2], "c": [3, 5]},
    torch.ones(2),
    torch.zeros(2),
    np.zeros(3),
    partial(torch.add, 2),
    partial(torch.add, 3),
    lambda x: x + 2,
    lambda x: x + 3,
    lambda x: x - 2,
    TinyNet,
    {"a", "b"},
    Path("a"),
    Path("b"),
]


@pytest.mark.slow
def test_the_key_of_an_artifact_is_that_of_any_other_process() -> None:
    code = "from tests.inference.test_runtimes import *; print([request(Scaled(v)).network_key() for v in VALUES])"
    environment = os.environ | {"PYTHONHASHSEED": "1"}  # this process has drawn its own, or has another
    if environment == dict(os.environ):
        environment["PYTHONHASHSEED"] = "2"
    other = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    ).stdout
    assert other == f"{[request(Scaled(value)).network_key() for value in VALUES]}\n"


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e6])
def test_a_network_s_weights_are_finite_in_the_type_that_they_run_in(value: float) -> None:
    network = TinyNet()
    with torch.no_grad():
        network.features.weight[0, 0, 0, 0] = value
    for dtype in (torch.float32, torch.float16):
        if value == 1e6 and dtype == torch.float32:
            check_weights(network, dtype)
            continue
        with pytest.raises(
            ModelError, match=r"TinyNet cannot run: 1 tensors hold NaN or infinity \(features\.weight\)"
        ):
            check_weights(network, dtype)


@pytest.mark.parametrize(("dtype", "device"), [(torch.complex64, "cpu"), (torch.float32, "meta")])
def test_weights_without_real_values_are_refused(dtype: torch.dtype, device: str) -> None:
    network = TinyNet()
    network.features.bias = nn.Parameter(torch.zeros(NUM_CLASSES, dtype=dtype, device=device))
    with pytest.raises(ModelError, match=r"features\.bias is complex or on the device meta"):
        Segmenter(network, device="cpu")


def test_a_mask_may_be_infinite_and_no_buffer_nan() -> None:
    network = TinyNet()
    network.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    check_weights(network, torch.float32)
    network.register_buffer("mean", torch.tensor([math.nan]))
    with pytest.raises(ModelError, match="mean"):
        check_weights(network, torch.float32)


def test_an_artifact_is_built_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {"network": "a", "dtype": "float32"}
    built = artifact(tmp_path, content, ".bin", lambda path: void(path.write_bytes(b"abc")))
    assert built.path.read_bytes() == b"abc"
    assert built.build_s > 0
    again = artifact(tmp_path, content, ".bin", lambda path: pytest.fail("built twice"))
    assert (again.path, again.build_s) == (built.path, 0.0)
    assert built_earlier_s(built.path) == 0  # but here
    monkeypatch.setattr("segcore.inference.runtimes.artifacts._built_here", {})
    assert built_earlier_s(built.path) == pytest.approx(built.build_s, abs=1e-3)
    assert built_earlier_s(tmp_path / "another file") == 0
    built.path.with_name(f"{built.path.name}.seconds").unlink()  # of an earlier version
    assert built_earlier_s(built.path) is None
    other = artifact(tmp_path, content | {"dtype": "int8"}, ".bin", lambda path: void(path.write_bytes(b"d")))
    assert other.path != built.path


def void(_: object) -> None:
    """A builder returns nothing."""


def test_an_interrupted_build_leaves_no_file(tmp_path: Path) -> None:
    def broken(path: Path) -> None:
        path.write_bytes(b"half of")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        artifact(tmp_path, {"network": "a"}, ".bin", broken)
    assert list((tmp_path / "artifacts").iterdir()) == []


def test_two_builders_at_once_build_one_artifact(tmp_path: Path) -> None:
    built: list[Path] = []
    both_started = threading.Barrier(2, timeout=60)

    def build(path: Path) -> None:
        built.append(path)
        path.write_bytes(bytes(5_000_000))

    def worker(_: int) -> int:
        both_started.wait()
        return artifact(tmp_path, {"network": "a"}, ".bin", build).path.stat().st_size

    # The kernel's file locks keep apart whoever opened the file by itself: threads here stand for processes.
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(worker, range(2))) == [5_000_000, 5_000_000]
    assert len(built) == 1


def test_an_unwritable_cache_is_reported(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("a file where the folder should be")
    with pytest.raises(DeviceError, match=r"cannot write .*SEGCORE_CACHE"):
        artifact(tmp_path, {"network": "a"}, ".bin", lambda path: void(path.write_bytes(b"")))


class Unexportable(TinyNet):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return super().forward(x) if float(x.sum()) > 0 else super().forward(-x)


@pytest.mark.slow
def test_a_network_that_cannot_be_exported_is_refused(settings: FetchSettings) -> None:
    if reason := why_not("onnxruntime", CPU):
        pytest.skip(reason)
    with pytest.raises(DeviceError, match=r"cannot be exported to ONNX: .*--runtime torch runs it"):
        open_session("onnxruntime", Unexportable(), CPU, settings=settings)


def test_int8_without_photos_is_refused(settings: FetchSettings) -> None:
    if reason := why_not("onnxruntime", CPU, "int8"):
        pytest.skip(reason)
    with pytest.raises(DeviceError, match="calibration is empty"):
        open_session("onnxruntime", TinyNet(), CPU, "int8", settings=settings)


@pytest.mark.parametrize(
    ("runtime", "precision", "message"),
    [
        ("torch", "int8", r"runtime torch in int8 on cpu: it has no precision 'int8', only fp32, bf16, fp16"),
        ("onnxruntime", "bf16", "has no precision 'bf16'"),
        ("onnxruntime", "fp16", "CPUExecutionProvider has fp32, int8"),
        ("tensorrt", "fp32", "needs an NVIDIA GPU"),
        ("opnvino", "fp32", "did you mean 'openvino'"),
    ],
)
def test_an_unsupported_combination_is_refused_with_the_reason(runtime: str, precision: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        open_session(runtime, TinyNet(), CPU, precision)


def test_missing_packages_are_named_with_the_command_that_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert why_not("openvino", CPU) == "not installed: onnx, onnxscript, openvino; pip install 'segcore[openvino]'"
    assert why_not("torch", CPU) is None


def test_extras_are_named_after_runtimes() -> None:
    declared = set(metadata("segcore").get_all("Provides-Extra") or [])
    assert {runtime.extra for runtime in RUNTIMES.values() if runtime.extra} <= declared


class Mixed(nn.Module):
    """A network of mixed training modes, memory layouts and gradients, with state that a forward pass may change."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(8)
        self.dropout = nn.Dropout(0.5).eval()
        self.last = nn.Conv2d(8, NUM_CLASSES, 1).requires_grad_(False)
        self.tied = self.last
        self.block = self.first.forward  # a bound method: of the original, or of the copy?
        self.register_buffer("calls", torch.zeros(()))
        self.scale = (self.first.weight * 2).mean()  # part of a graph, as of the older weight_norm
        self.norm.train()

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        assert isinstance(self.calls, torch.Tensor)
        self.calls += 1
        if x.shape[-1] == 13:
            raise RuntimeError("no 13")
        return {"out": self.last(self.dropout(self.norm(self.block(x)))) * self.scale}


def state(network: nn.Module) -> list[object]:
    tensors = [*network.named_parameters(), *network.named_buffers()]
    return [
        [(name, module.training, id(module)) for name, module in network.named_modules()],
        [
            (name, id(t), t.data_ptr(), t.device, t.dtype, t.stride(), t.requires_grad, t.tolist())
            for name, t in tensors
        ],
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "precision"), [("torch", "fp32"), ("torch", "bf16"), ("onnxruntime", "fp32"), ("openvino", "fp32")]
)
def test_the_caller_s_network_stays_as_it_is(runtime: str, precision: str, settings: FetchSettings) -> None:
    if reason := why_not(runtime, CPU, precision):
        pytest.skip(reason)
    network = Mixed().train()
    network.dropout.eval()
    before = state(network)
    segmenter = Segmenter(network, device="cpu", size=16, runtime=runtime, precision=precision, settings=settings)
    segmenter(np.zeros((16, 24, 3), np.uint8))
    assert state(network) == before
    if runtime == "torch":
        with pytest.raises(RuntimeError, match="no 13"):
            segmenter.forward(torch.zeros(1, 3, 16, 13))
    assert state(network) == before


@pytest.mark.slow
def test_a_failed_build_leaves_the_caller_s_network_as_it_is(settings: FetchSettings) -> None:
    if reason := why_not("onnxruntime", CPU):
        pytest.skip(reason)
    network = Unexportable().train()
    before = state(network)
    with pytest.raises(DeviceError, match="cannot be exported"):
        open_session("onnxruntime", network, CPU, settings=settings)
    assert state(network) == before


def test_moving_a_copy_leaves_the_caller_s_network_as_it_is() -> None:
    network = Mixed()
    before = state(network)
    inference_copy(network).to(device="meta", dtype=torch.float64)
    assert state(network) == before


def test_a_copy_shares_the_parameters() -> None:
    network = Mixed()
    copied = inference_copy(network)
    pairs = list(zip(network.parameters(), copied.parameters(), strict=True))
    assert pairs
    assert all(ours.data_ptr() == theirs.data_ptr() and ours is not theirs for ours, theirs in pairs)
    assert copied.tied is copied.last
    assert not any(module.training for module in copied.modules())


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    network = TinyNet()
    network.lock = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ModelError, match="TinyNet cannot be copied"):
        Segmenter(network, device="cpu")


def damaged(path: Path, how: str) -> None:
    data = path.read_bytes()
    path.unlink()
    match how:
        case "flipped":
            path.write_bytes(bytes(byte ^ 1 for byte in data))
        case "cut":
            path.write_bytes(data[:-1])
        case "longer":
            path.write_bytes(data + b"\0")
        case "empty":
            path.write_bytes(b"")
        case "fifo":
            os.mkfifo(path)
        case "dangling link":
            path.symlink_to("nowhere")


@pytest.mark.parametrize("damage", ["flipped", "cut", "longer", "empty", "missing", "fifo", "dangling link"])
@pytest.mark.parametrize("which", ["file", "hash"])
def test_a_damaged_artifact_is_built_again(
    which: str, damage: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(path: Path) -> None:
        path.write_bytes(b"right")

    path = artifact(tmp_path, {"network": "a"}, ".bin", build).path
    damaged(path if which == "file" else path.with_name(f"{path.name}.sha256"), damage)
    again = artifact(tmp_path, {"network": "a"}, ".bin", build)
    assert again.build_s > 0
    assert path.read_bytes() == b"right"
    assert artifact(tmp_path, {"network": "a"}, ".bin", build).build_s == 0.0
    said = capsys.readouterr().err
    assert said.count("\n") == (not (which == "file" and damage in ("missing", "dangling link")))


@pytest.mark.slow
def test_logits_come_from_a_whole_file_or_none(settings: FetchSettings) -> None:
    if reason := why_not("onnxruntime", CPU):
        pytest.skip(reason)

    def segmenter() -> Segmenter:
        return Segmenter(TinyNet(3), device="cpu", size=48, runtime="onnxruntime", settings=settings)

    first = segmenter()
    expected, path = first(photo()).class_map, first.artifact
    assert path is not None
    data = bytearray(path.read_bytes())
    for position in np.random.default_rng(0).integers(0, len(data), 200):
        data[position] ^= 0x40
    path.write_bytes(data)
    again = segmenter()
    assert again.build_seconds > 0
    np.testing.assert_array_equal(again(photo()).class_map, expected)


@pytest.mark.slow
def test_onnxruntime_reads_and_writes_tensors_where_they_are(settings: FetchSettings) -> None:
    """As it does on a GPU: the first batch of a shape tells that of the logits."""
    if reason := why_not("onnxruntime", CPU):
        pytest.skip(reason)
    session: Any = open_session("onnxruntime", TinyNet(), CPU, settings=settings)
    for seed, shape in enumerate([*SHAPES, *SHAPES]):
        batch = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(session.bound(batch), session.forward(batch))


@pytest.mark.slow
def test_a_provider_that_does_not_start_is_no_other_one(
    settings: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Onnxruntime goes on with the CPU, and only prints that it does."""
    if reason := why_not("onnxruntime", CPU):
        pytest.skip(reason)
    monkeypatch.setattr("onnxruntime.InferenceSession.get_providers", lambda _: ["AzureExecutionProvider"])
    with pytest.raises(DeviceError, match=r"could not start its CPUExecutionProvider .* AzureExecutionProvider"):
        open_session("onnxruntime", TinyNet(), CPU, settings=settings)


@pytest.mark.parametrize(
    ("runtime", "device", "known"),
    [
        ("torch", "cpu", True),
        ("torch", "cuda:1", True),
        ("torch-graphs", "cuda", False),
        ("onnxruntime", "cpu", True),
        ("onnxruntime", "cuda", False),
        ("program", "cpu", False),
    ],
)
def test_whose_memory_is_known(runtime: str, device: str, known: bool) -> None:
    assert RUNTIMES[runtime].memory_is_known(device) == known
