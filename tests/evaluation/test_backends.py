from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from segcore.cli import cli
from segcore.core.errors import DeviceError
from segcore.core.labels import NUM_CLASSES
from segcore.evaluation.backends import Candidate, available_backends, benchmark_backends, fastest, interleave
from segcore.evaluation.metrics import class_counts
from segcore.evaluation.parity import REFERENCE, Parity
from segcore.inference.devices import Device
from segcore.inference.pipeline import Segmenter
from tests.support.networks import TinyNet

CPU = Device("cpu")
BF16 = ("torch", "bf16")


def candidate(runtime: str, speedups: tuple[float, ...], wrong: int = 0, error: float = 0.1) -> Candidate:
    matrix = np.zeros((NUM_CLASSES, NUM_CLASSES), dtype=np.int64)
    matrix[0, 0], matrix[1, 1], matrix[1, 0] = 900, 100 - wrong, wrong
    return Candidate(runtime, "fp32", {}, 0.0, None, Parity(class_counts(matrix), wrong, error, 10.0), (1.0,), speedups)


def test_the_reference_comes_first_and_once() -> None:
    assert available_backends(CPU, ["torch"], ["fp32", "bf16", "int8"])[0] == REFERENCE
    assert len(set(available_backends(CPU))) == len(available_backends(CPU))
    assert "tensorrt" not in dict(available_backends(CPU))
    with pytest.raises(DeviceError, match="did you mean 'openvino'"):
        available_backends(CPU, ["opnvino"])


@pytest.mark.parametrize(
    ("call_s", "made"),
    [
        (0.1, "aabbcc" + "bbccaa" + "ccaabb" + "aabbcc"),
        (1.0, "aabbcc" + "bca" + "cab" + "abc"),  # of the first round it is not known that they are long
    ],
)
def test_every_round_runs_every_arm_and_starts_with_another(call_s: float, made: str) -> None:
    """Short calls are made twice, and the second is timed."""
    calls: list[str] = []
    ticks = iter(range(0, 10**12, int(call_s * 1e9)))
    arms = {("torch", name): (lambda name=name: calls.append(name)) for name in ("a", "b", "c")}
    seconds = interleave(arms, 4, lambda: next(ticks))
    assert "".join(calls) == made
    assert set(seconds.values()) == {(call_s,) * 4}


def test_the_fastest_backend_keeps_the_masks() -> None:
    slow, fast = candidate("torch", (1.0, 1.0)), candidate("openvino", (2.0, 3.0, 1.5))
    wrong = candidate("wrong", (9.0,), wrong=50)
    broken = candidate("broken", (9.0,), error=math.inf)
    assert fastest([slow, fast, wrong, broken], 0.01) is fast
    assert fastest([slow, fast, wrong, broken], 0.5) is wrong
    assert fast.speedup == 2.0


def test_backends_are_benchmarked_together() -> None:
    net = TinyNet()

    def make(runtime: str, precision: str) -> Segmenter:
        return Segmenter(net, device=CPU, size=32, runtime=runtime, precision=precision)

    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (40, width, 3)).astype(np.uint8) for width in (50, 60)]
    steps: list[str] = []
    found = benchmark_backends(make, [REFERENCE, BF16], photos, 3, steps.append)
    assert [(each.runtime, each.precision) for each in found] == [REFERENCE, BF16]
    assert found[0].speedups == (1.0,) * 3
    assert found[0].parity.equal_share == 1.0
    assert found[1].parity.totals[:, 1].sum() == 32 * 40 + 32 * 48
    assert 0 < (found[1].parity.relative_error or 0) < 0.02
    ratios = [a / b for a, b in zip(found[0].seconds, found[1].seconds, strict=True)]
    assert list(found[1].speedups) == ratios
    assert steps == ["torch fp32, 1 of 2", "torch bf16, 2 of 2", "3 rounds"]
    assert all(each.memory_bytes is None or 0 <= each.memory_bytes < 10**9 for each in found)


def test_memory_is_what_a_backend_adds_to_the_process() -> None:
    if not Device("cpu").reset_peak_memory():
        pytest.skip("the peak of memory cannot be reset here")

    class Hungry(TinyNet):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            block = torch.ones(25_000_000 if x.dtype == torch.bfloat16 else 1)  # 100 MB
            found = super().forward(x)
            return {"out": found["out"] * block[-1].to(x.dtype)}

    def make(runtime: str, precision: str) -> Segmenter:
        return Segmenter(Hungry(), device=CPU, size=32, runtime=runtime, precision=precision)

    plain, hungry = benchmark_backends(make, [REFERENCE, BF16], [np.zeros((32, 40, 3), np.uint8)], 2)
    assert plain.memory_bytes is not None
    assert hungry.memory_bytes is not None
    assert plain.memory_bytes < 50e6
    assert 95e6 < hungry.memory_bytes < 150e6


class NanInBf16(TinyNet):
    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        found = super().forward(x)
        return found if x.dtype == torch.float32 else {"out": found["out"] * math.nan}


def test_a_backend_whose_logits_are_nan_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def make(runtime: str, precision: str) -> Segmenter:
        return Segmenter(NanInBf16(), device=CPU, size=32, runtime=runtime, precision=precision)

    found = benchmark_backends(make, [REFERENCE, BF16], [np.zeros((32, 40, 3), np.uint8)], 2)
    assert [(each.runtime, each.precision) for each in found] == [REFERENCE]
    assert "torch bf16 is left out" in capsys.readouterr().err


def test_best_command_names_the_winner_and_how_to_use_it() -> None:
    arguments = ["best", "skimage:chelsea.png", "--model", "embedded", "--weights", "random", "--size", "32"]
    arguments += ["--device", "cpu", "--runtime", "torch", "--precision", "bf16", "--rounds", "2"]
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert 'Segmenter(..., runtime="torch", precision="' in result.output
    assert "weights are random" in result.output
    found = json.loads(CliRunner().invoke(cli, [*arguments, "--json"], catch_exceptions=False).output)
    assert [row["precision"] for row in found["candidates"]] == ["fp32", "bf16"]
    assert found["best"]["runtime"] == "torch"
    assert found["candidates"][0]["keeps_masks"] is True
