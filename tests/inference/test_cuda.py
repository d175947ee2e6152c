"""The pipeline on a GPU: the masks are those of the CPU, and what goes wrong says so."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from segcore import Segmenter, detect_device
from segcore.core.errors import DeviceError, ImageError, ModelError
from segcore.core.system import explain
from segcore.evaluation.parity import Parity, logits_parity, photo_logits
from segcore.inference.decode import upsample_class_map
from segcore.inference.devices import find_devices, open_device
from segcore.inference.pipeline import StageTimer
from segcore.inference.runtimes import open_session, why_not
from segcore.inference.runtimes.graphs import MAX_SHAPES
from segcore.inputs.images import as_rgb_array
from segcore.measurement.profiling import profile
from tests.support.accelerator import NAME, real, rehearsable
from tests.support.networks import TinyNet

Event: Any = torch.cuda.Event  # torch has no types for its arguments
SIZE = 256
PHOTOS = ("astronaut.png", "chelsea.png", "coffee.png")


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    pytest.importorskip("skimage")
    return [as_rgb_array(f"skimage:{name}") for name in PHOTOS]


@pytest.fixture(scope="module")
def on_cpu() -> Segmenter:
    return Segmenter("embedded", device="cpu", size=SIZE)


@pytest.fixture(scope="module")
def on_gpu() -> Segmenter:
    return Segmenter("embedded", device=NAME, size=SIZE)


def parity(reference: Segmenter, found: Segmenter, photo: np.ndarray) -> Parity:
    return logits_parity(photo_logits(reference, photo).cpu(), photo_logits(found, photo).cpu())


class TestPipeline:
    pytestmark = rehearsable

    def test_masks_are_those_of_the_cpu(self, on_cpu: Segmenter, on_gpu: Segmenter, photos: list[np.ndarray]) -> None:
        """Within float32's rounding: a pixel may change only where two classes were equal to the last digits."""
        for photo in photos:
            found = parity(on_cpu, on_gpu, photo)
            assert found.unlike == 0
            assert found.relative_error is not None
            assert found.relative_error < 1e-4
            assert found.equal_share > 0.9999
            wanted, seen = on_cpu(photo), on_gpu(photo)
            assert seen.class_map.shape == photo.shape[:2]
            assert (seen.class_map == wanted.class_map).mean() > 0.9999
            assert (seen.model_color_mask == wanted.model_color_mask).mean() > 0.9999

    def test_a_list_of_photos_is_each_photo(self, on_gpu: Segmenter, photos: list[np.ndarray]) -> None:
        for photo, found in zip(photos, on_gpu(photos), strict=True):
            assert (found.class_map == on_gpu(photo).class_map).mean() > 0.9999

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_half_precision_keeps_the_masks(self, on_cpu: Segmenter, photos: list[np.ndarray], precision: str) -> None:
        device = open_device(NAME)
        if reason := why_not("torch", device, precision):
            pytest.skip(reason)
        half = Segmenter("embedded", device=device, size=SIZE, precision=precision)
        assert half.runtime_options["layout"] == "channels_last"
        for photo in photos:
            found = parity(on_cpu, half, photo)
            assert found.finite
            assert found.unlike_share < 0.01

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("runtime", "precision"),
        [
            ("torch-compile", "fp32"),
            ("torch-graphs", "fp32"),
            ("torch-graphs", "bf16"),
            ("onnxruntime", "fp32"),
            ("onnxruntime", "fp16"),
            ("tensorrt", "fp32"),
        ],
    )
    def test_runtimes_keep_the_masks(
        self, on_cpu: Segmenter, photos: list[np.ndarray], runtime: str, precision: str
    ) -> None:
        device = open_device(NAME)
        if reason := why_not(runtime, device, precision):
            pytest.skip(reason)
        try:
            segmenter = Segmenter("embedded", device=device, size=SIZE, runtime=runtime, precision=precision)
        except DeviceError as error:  # a provider of onnxruntime's whose libraries are not installed
            pytest.skip(str(error))
        for photo in [*photos, *photos, *photos]:  # graphs are recorded at the second, replayed at the third
            found = parity(on_cpu, segmenter, photo)
            assert found.unlike_share < (0.001 if precision == "fp32" else 0.01)
            if precision == "fp32":
                assert found.relative_error is not None
                assert found.relative_error < 1e-4  # TF32 has 1e-3

    def test_masks_in_the_size_of_the_photo(self) -> None:
        """From logits on the GPU as from the same logits on the CPU, which takes another way."""
        logits = torch.nn.functional.interpolate(
            torch.randn(1, 21, 9, 12, generator=torch.Generator().manual_seed(0)), size=(60, 80), mode="bilinear"
        )[0]
        found = upsample_class_map(logits.to(NAME), 191, 253)
        assert (found == upsample_class_map(logits, 191, 253)).mean() > 0.999


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["queued", "queued twice"])
class TestTiming:
    pytestmark = rehearsable

    def test_a_stage_ends_when_its_work_is_done(self, stage: str) -> None:
        """As long as the GPU's own clock says, though queueing the work takes microseconds."""
        device = open_device(NAME)
        a = torch.randn(2048, 2048, device=device.torch_device)
        repeats = (40 if NAME == "cuda" else 1) * (1 + (stage == "queued twice"))
        apart = []
        for _ in range(5):  # the first chooses a kernel; other processes may use the GPU between the two clocks
            timer, events = StageTimer(device), [Event(enable_timing=True) for _ in range(2 * (NAME == "cuda"))]
            with timer.stage(stage):
                for event in events[:1]:
                    event.record()
                start = time.perf_counter()
                for _ in range(repeats):
                    a @ a
                queued_s = time.perf_counter() - start
                for event in events[1:]:
                    event.record()
            if events:
                own_s = events[0].elapsed_time(events[1]) / 1e3
                apart.append(abs(timer.seconds[stage] / own_s - 1))
        if apart:
            assert queued_s < 0.5 * own_s
            assert min(apart) < 0.02


class TestDevices:
    pytestmark = real

    def test_every_gpu_has_a_name(self) -> None:
        infos = [info for info in find_devices() if info.name.startswith("cuda")]
        assert len(infos) == torch.cuda.device_count()
        assert all(info.available and info.memory_bytes for info in infos)
        assert str(detect_device("auto")) == str(detect_device("cuda:0")) == "cuda"

    def test_a_gpu_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(DeviceError, match=f"unknown device cuda:{torch.cuda.device_count()}.*cuda"):
            detect_device(f"cuda:{torch.cuda.device_count()}")

    def test_the_high_water_mark_is_that_of_the_calls(self) -> None:
        device = open_device("cuda")
        marks = []
        for mib in (0, 192, 64):
            assert device.reset_peak_memory()
            block = torch.empty(mib << 20, dtype=torch.uint8, device="cuda")
            del block
            marks.append(device.peak_memory_bytes() or 0)
        nothing, large, small = marks
        assert (large - nothing, small - nothing) == (192 << 20, 64 << 20)


class TestArithmetic:
    pytestmark = real

    def test_fp32_is_not_rounded_to_tf32(self, on_gpu: Segmenter) -> None:
        assert on_gpu.runtime_options["tf32"] == "off"
        generator = torch.Generator().manual_seed(0)
        left, right = (torch.randn(512, 512, generator=generator) for _ in range(2))
        image, weight = torch.randn(1, 64, 40, 40, generator=generator), torch.randn(64, 64, 3, 3, generator=generator)
        for exact, found in (
            (left.double() @ right.double(), left.cuda() @ right.cuda()),
            (
                nn.functional.conv2d(image.double(), weight.double()),
                nn.functional.conv2d(image.cuda(), weight.cuda()),
            ),
        ):
            assert (found.cpu().double() - exact).norm() / exact.norm() < 1e-5  # TF32 has 3e-4


class TestMemory:
    pytestmark = real

    @pytest.fixture
    def little(self, on_gpu: Segmenter) -> Iterator[None]:
        """A process that may take 192 MiB of the GPU: more than one small photo needs, less than eight large ones."""
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((192 << 20) / total)
        yield
        torch.cuda.set_per_process_memory_fraction(1.0)
        torch.cuda.empty_cache()

    @pytest.mark.usefixtures("little")
    def test_too_large_a_photo_is_an_error_of_one_line(self, on_gpu: Segmenter, photos: list[np.ndarray]) -> None:
        with pytest.raises(ImageError, match=r"out of memory with 8 photos of .* choose a smaller size") as caught:
            on_gpu.run([photos[0]] * 8, size=1024)
        assert "\n" not in str(caught.value)
        assert on_gpu(photos[0]).class_map.any()  # it goes on

    @pytest.mark.usefixtures("little")
    def test_a_remedy_of_the_gpu_s_own(self) -> None:
        with pytest.raises(torch.OutOfMemoryError) as caught:
            torch.empty(2 << 30, dtype=torch.uint8, device="cuda")
        assert "nvidia-smi" in (explain(caught.value) or "")


class Waiting(nn.Module):
    """Asks the GPU for a number in the middle of a pass, which a graph cannot."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.repeat(1, 7, 1, 1) * float(x.mean().item() + 1)


class TestGraphs:
    pytestmark = real

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_replays_are_equal_to_the_bit(self, precision: str) -> None:
        """For new photos, two shapes in turns, more shapes than are kept, and results that are kept."""
        device = open_device("cuda")
        plain, graphs = (open_session(name, TinyNet(), device, precision) for name in ("torch", "torch-graphs"))
        kept: list[tuple[torch.Tensor, torch.Tensor]] = []
        shapes = [(1, 3, 64, 48 + 16 * i) for i in range(MAX_SHAPES + 2)]
        for seed, shape in enumerate([shapes[0], shapes[1]] * 4 + shapes * 3):
            batch = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).cuda()
            kept.append((plain.forward(batch), graphs.forward(batch)))
        for wanted, found in kept:
            assert found.dtype == torch.float32
            assert torch.equal(wanted, found)
        assert graphs.build_s > 0
        assert graphs.options["graphs"] == str(MAX_SHAPES)

    def test_what_cannot_be_recorded_is_refused(self) -> None:
        device = open_device("cuda")
        session = open_session("torch-graphs", Waiting(), device)
        batch = torch.rand(1, 3, 32, 32, device="cuda")
        session.forward(batch)
        with pytest.raises(ModelError, match="--runtime torch runs it"):
            session.forward(batch)
        assert open_session("torch", Waiting(), device).forward(batch).isfinite().all()  # the GPU goes on


class TestProfile:
    pytestmark = real

    @pytest.mark.slow
    @pytest.mark.parametrize("runtime", ["torch", "torch-graphs", "torch-compile"])
    def test_only_kernels_take_time(self, runtime: str, photos: list[np.ndarray]) -> None:
        segmenter = Segmenter("embedded", device="cuda", size=SIZE, runtime=runtime)
        for _ in range(3):
            segmenter(photos[0])
        found = profile(segmenter, photos[0], calls=2)
        kinds: dict[str, Any] = {cost.operator: cost.kind for cost in found.operators}
        assert set(kinds.values()) == {"kernel"}
        assert kinds.keys().isdisjoint(found.stage_ms)
        total_ms = sum(cost.total_ms for cost in found.operators)
        assert 0 < total_ms <= 2 * 1.5 * found.stage_ms["forward"]
        assert math.isclose(sum(cost.share for cost in found.operators), 1)
