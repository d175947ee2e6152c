from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from segcore import Segmenter
from segcore.core.errors import DeviceError, ImageError
from segcore.core.records import STAGES
from segcore.inference.devices import Device
from segcore.inference.runtimes import torch_profile, why_not
from segcore.inference.runtimes.session import OperatorTime
from segcore.inputs.download import FetchSettings
from segcore.measurement.profiling import operator_costs, profile
from tests.support.networks import TinyNet

CPU = Device("cpu")
PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "kind", "in_trace"),
    [
        ("torch", "aten", {*STAGES, "aten::conv2d"}),
        ("onnxruntime", "Conv", {"model_run"}),
        ("openvino", "Convolution ", None),
    ],
)
def test_every_runtime_times_its_operators(runtime: str, kind: str, in_trace: set[str] | None, tmp_path: Path) -> None:
    if reason := why_not(runtime, CPU):
        pytest.skip(reason)
    segmenter = Segmenter(TinyNet(), device=CPU, size=32, runtime=runtime, settings=FetchSettings(tmp_path))
    plain = segmenter(PHOTO).class_map
    found = profile(segmenter, PHOTO, size=48, calls=2)
    assert found.title == f"TinyNet {runtime} fp32 cpu 48x64"
    assert found.calls == 2
    assert tuple(found.stage_ms) == STAGES
    assert sum(cost.total_ms for cost in found.operators) > 0
    convolution = [cost for cost in found.operators if cost.kind.startswith(kind)]
    assert {cost.calls for cost in convolution if "conv" in cost.operator.lower()} == {2}  # a pass has one
    assert sum(cost.share for cost in found.operators) == pytest.approx(1)
    if in_trace is None:
        assert found.trace is None
    else:
        events = json.loads(found.trace or b"")
        events = events["traceEvents"] if isinstance(events, dict) else events
        assert {event.get("name") for event in events} >= in_trace
    assert (segmenter(PHOTO).class_map == plain).all()


@pytest.mark.slow
def test_operators_take_less_time_than_the_forward_passes_around_them() -> None:
    found = profile(Segmenter(TinyNet(), device=CPU, size=48), PHOTO, calls=1)
    assert sum(cost.total_ms for cost in found.operators) <= found.stage_ms["forward"]


def test_a_failed_profile_leaves_no_profiler_running(tmp_path: Path) -> None:
    segmenter = Segmenter(TinyNet(), device=CPU, size=48)
    with pytest.raises(ImageError, match="no such file"):
        profile(segmenter, tmp_path / "missing.jpg")
    assert profile(segmenter, PHOTO, calls=1).operators


def test_a_runtime_without_a_profiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    session = SimpleNamespace(build_s=0.0, options={}, forward=lambda batch: batch)
    monkeypatch.setattr("segcore.inference.pipeline.open_session", lambda *_, **__: session)
    with pytest.raises(DeviceError, match="runtime torch has no profiler"):
        profile(Segmenter(TinyNet(), device=CPU, size=48), PHOTO)


def event(name: str, start: float, end: float, own: float, device: str = "CPU") -> Any:
    return SimpleNamespace(
        name=name,
        time_range=SimpleNamespace(start=start, end=end),
        self_cpu_time_total=own,
        device_type=SimpleNamespace(name=device),
    )


def test_on_a_gpu_only_kernels_take_time() -> None:
    events = [
        event("aten::to", 0, 5, 5),  # before the forward pass
        event(torch_profile.FORWARD, 10, 110, 1),
        event(torch_profile.FORWARD, 12, 100, 0, "CUDA"),  # the same in the GPU's row
        event("aten::conv2d", 10, 30, 4),
        event("cudaLaunchKernel", 12, 14, 2),
        event("sgemm", 40, 100, 0, "CUDA"),
        event("sgemm", 120, 130, 0, "CUDA"),
    ]
    (operators,) = torch_profile.operators(events)
    assert operators == (
        OperatorTime("aten::conv2d", "aten", 0),
        OperatorTime("cudaLaunchKernel", "call", 0),
        OperatorTime("sgemm", "kernel", 60e-6),
    )


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        ("sm80_xmma_fprop_implicit_gemm__5x_cudnn", "sm80_xmma_fprop_implicit_gemm__5x_cudnn"),
        (
            "void at::native::(anonymous namespace)::conv_depthwise2d_forward_kernel<5, float, int>(torch::headeronly::"
            "detail::GenericPackedTensorAccessor<c10::ArrayRef<long>, float const>, bool, int)",
            "conv_depthwise2d_forward_kernel<5, float, int>",
        ),
        (
            "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>, "
            "std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<float>, std::array<char*, 3ul>)",
            "vectorized_elementwise_kernel<4, CUDAFunctor_add<float>, ...",
        ),
    ],
)
def test_kernels_have_short_names(signature: str, name: str) -> None:
    assert torch_profile.kernel_name(signature) == name


def test_the_cost_of_an_operator_is_the_sum_over_its_calls() -> None:
    costs = operator_costs(
        [
            OperatorTime("conv", "aten", 0.002),
            OperatorTime("gemm", "kernel", 0.004),
            OperatorTime("conv", "aten", 0.002),
            OperatorTime("empty", "aten", 0.0),
        ]
    )
    assert [(cost.operator, cost.kind, cost.calls) for cost in costs] == [("conv", "aten", 2), ("gemm", "kernel", 1)]
    assert [cost.total_ms for cost in costs] == pytest.approx([4.0, 4.0])
    assert [cost.share for cost in costs] == pytest.approx([0.5, 0.5])
    assert operator_costs([]) == ()


def test_plain_calls_are_not_profiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_profile.ProfiledTorch, "__init__", lambda *_: pytest.fail("profiled"))
    Segmenter(TinyNet(), device=CPU, size=48).forward(torch.zeros(1, 3, 48, 48))
