from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from segcore import Segmenter
from segcore.core.errors import DeviceError, ImageError, OutputError
from segcore.inference.devices import TorchDevice
from segcore.inference.pipeline import STAGES
from segcore.inference.runtimes import OperatorSpan, torch_profile, why_not
from segcore.inputs.download import FetchSettings
from segcore.measurement.profiling import Profile, StageSpan, chrome_trace, profile, save_trace
from tests.support.networks import TinyNet

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = TorchDevice("cpu")
PHOTO = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("runtime", "kind"), [("torch", "aten"), ("onnxruntime", "Conv"), ("openvino", "Convolution ")]
)
def test_every_runtime_tells_its_operators(runtime: str, kind: str, tmp_path: Path) -> None:
    if reason := why_not(runtime, CPU):
        pytest.skip(reason)
    segmenter = Segmenter(TinyNet(), device=CPU, size=48, runtime=runtime, settings=FetchSettings(tmp_path))
    plain = segmenter(PHOTO).class_map
    found = profile(segmenter, PHOTO, calls=2)
    assert found.title == f"TinyNet {runtime} fp32 cpu 48x64"
    assert [span.stage for span in found.stages] == list(STAGES) * 2
    assert set(found.stage_ms) == set(STAGES)
    forwards = [span for span in found.stages if span.stage == "forward"]
    assert len(found.passes) == len(forwards) == 2
    for forward, spans in zip(forwards, found.passes, strict=True):
        assert 0 < sum(span.own_s for span in spans) <= forward.seconds
        assert all(span.start_s >= 0 and span.own_s <= span.seconds + 1e-9 for span in spans)
    convolution = [cost for cost in found.operators if cost.kind.startswith(kind)]
    assert {cost.calls for cost in convolution if "conv" in cost.operator.lower()} == {2}  # a pass has one
    assert sum(cost.share for cost in found.operators) == pytest.approx(1)
    assert (segmenter(PHOTO).class_map == plain).all()


def test_a_profile_that_breaks_off_leaves_nothing_running(tmp_path: Path) -> None:
    segmenter = Segmenter(TinyNet(), device=CPU, size=48)
    with pytest.raises(ImageError, match="no such file"):
        profile(segmenter, tmp_path / "missing.jpg")
    assert profile(segmenter, PHOTO, calls=1).operators


def test_a_runtime_without_a_profiler_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_on_a_gpu_the_kernels_have_the_time() -> None:
    events = [
        event("aten::to", 0, 5, 5),  # before the forward pass
        event(torch_profile.FORWARD, 10, 110, 1),
        event(torch_profile.FORWARD, 12, 100, 0, "CUDA"),  # the same, as the GPU's row shows it
        event("aten::conv2d", 10, 30, 4),
        event("cudaLaunchKernel", 12, 14, 2),
        event("sgemm", 40, 100, 0, "CUDA"),
        event("sgemm", 120, 130, 0, "CUDA"),
    ]
    (spans,) = torch_profile.spans(events)
    assert spans == (
        OperatorSpan("aten::conv2d", "aten", 0, 20e-6, 0),
        OperatorSpan("cudaLaunchKernel", "call", 2e-6, 2e-6, 0),
        OperatorSpan("sgemm", "kernel", 30e-6, 60e-6, 60e-6),
    )


MADE = Profile(
    title="net torch fp32 cuda 48x64",
    stages=(
        StageSpan("decode", 0.0, 0.002),
        StageSpan("forward", 0.002, 0.010),
        StageSpan("decode", 0.020, 0.004),
        StageSpan("forward", 0.024, 0.020),
    ),
    passes=(
        (OperatorSpan("conv", "aten", 0.001, 0.006, 0.002), OperatorSpan("gemm", "kernel", 0.002, 0.004, 0.004)),
        (OperatorSpan("conv", "aten", 0.001, 0.012, 0.002), OperatorSpan("empty", "aten", 0.002, 0.001, 0.0)),
    ),
)


def test_stages_are_medians_and_operators_sums() -> None:
    assert MADE.stage_ms == pytest.approx({"decode": 3.0, "forward": 15.0})
    assert [(cost.operator, cost.kind, cost.calls) for cost in MADE.operators] == [
        ("conv", "aten", 2),
        ("gemm", "kernel", 1),
    ]
    assert [cost.total_ms for cost in MADE.operators] == pytest.approx([4.0, 4.0])
    assert [cost.share for cost in MADE.operators] == pytest.approx([0.5, 0.5])
    assert Profile("", (), ()).operators == ()


def test_the_trace_has_stages_and_operators_in_rows_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "new" / "trace.json"
    save_trace(MADE, path)
    trace = json.loads(path.read_text())
    assert trace == chrome_trace(MADE)
    rows = {e["tid"]: e["args"]["name"] for e in trace["traceEvents"] if e["name"] == "thread_name"}
    spans = [e for e in trace["traceEvents"] if e["ph"] == "X"]
    assert {(rows[e["tid"]], e["name"], e["ts"], e["dur"]) for e in spans} == {
        ("stages", "decode", 0, 2000),
        ("stages", "forward", 2000, 10000),
        ("stages", "decode", 20000, 4000),
        ("stages", "forward", 24000, 20000),
        ("operators", "conv", 3000, 6000),
        ("kernels", "gemm", 4000, 4000),
        ("operators", "conv", 25000, 12000),
        ("operators", "empty", 26000, 1000),
    }


def test_a_trace_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"trace.json: cannot be written"):
        save_trace(MADE, tmp_path / "file" / "trace.json")


def test_profiles_are_not_made_by_plain_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_profile.ProfiledTorch, "__init__", lambda *_: pytest.fail("profiled"))
    Segmenter(TinyNet(), device=CPU, size=48).forward(torch.zeros(1, 3, 48, 48))
