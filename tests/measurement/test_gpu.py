from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from segcore.core.errors import DeviceError
from segcore.inference.devices import open_device
from segcore.measurement.calibration import calibrate
from segcore.measurement.energy import open_counter
from segcore.measurement.gpu import Board, BoardWatch, open_board, open_watch
from tests.support.accelerator import real


class NvmlError(Exception):
    """Stands for ``pynvml.NVMLError``."""


@dataclass
class FakeNvml:
    """NVML's bindings with one board; what is not among the answers is not supported."""

    answers: dict[str, list[int]]
    NVMLError: type[Exception] = NvmlError
    NVML_CLOCK_SM: int = 1
    NVML_TEMPERATURE_GPU: int = 0
    asked: list[str] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvmlDevice"):
            raise AttributeError(name)

        def answer(_: object, *__: object) -> int:
            self.asked.append(name)
            if name not in self.answers:
                raise NvmlError("Not Supported")
            values = self.answers[name]
            return values.pop(0) if len(values) > 1 else values[0]

        return answer


GOOD = {
    "nvmlDeviceGetClockInfo": [1980, 1755, 1980],
    "nvmlDeviceGetMaxClockInfo": [1980],
    "nvmlDeviceGetTemperature": [41, 52, 55],
    "nvmlDeviceGetPowerUsage": [350_400, 699_900, 400_000],
    "nvmlDeviceGetEnforcedPowerLimit": [700_000],
    "nvmlDeviceGetCurrentClocksEventReasons": [0, 4, 1],
}


def watch(**changes: list[int]) -> BoardWatch:
    answers = {name: list(values) for name, values in GOOD.items()} | changes
    found = BoardWatch("cuda", Board("Imaginary GPU", FakeNvml(answers), None))
    for _ in range(3):
        found.look()
    return found


def test_the_conditions_are_what_was_seen_after_the_items() -> None:
    found = watch()
    assert found.conditions() == {
        "cuda clock": "1755 to 1980 of 1980 MHz",
        "cuda temperature": "41 to 55 °C",
        "cuda power": "350 to 700 of 700 W",
        "cuda slowed by": "power limit (1 of 3 times)",
    }
    assert found.warnings() == ()  # a board at its power limit is in good order


@pytest.mark.parametrize(
    ("reasons", "share", "names"),
    [([0x20, 0, 0], 1 / 3, "temperature"), ([0x40, 0x20, 0], 2 / 3, "temperature"), ([0x8, 0x88, 0x4], 2 / 3, "brake")],
)
def test_heat_and_faults_are_warned_of(reasons: list[int], share: float, names: str) -> None:
    (warning,) = watch(nvmlDeviceGetCurrentClocksEventReasons=reasons).warnings()
    assert warning.code == "throttled"
    assert warning.value == pytest.approx(share)
    assert names in warning.text


def test_what_a_board_does_not_report_is_unknown() -> None:
    found = BoardWatch("cuda:1", Board("Imaginary GPU", FakeNvml({"nvmlDeviceGetTemperature": [40]}), None))
    assert found.conditions() == {}
    found.look()
    assert found.conditions() == {
        "cuda:1 clock": "unknown",
        "cuda:1 temperature": "40 °C",
        "cuda:1 power": "unknown",
        "cuda:1 slowed by": "nothing",
    }


def test_the_older_name_of_the_reasons_is_known() -> None:
    old = {"nvmlDeviceGetCurrentClocksThrottleReasons": [0x20]}
    found = BoardWatch("cuda", Board("Imaginary GPU", FakeNvml(old), None))
    found.look()
    assert [warning.code for warning in found.warnings()] == ["throttled"]


def test_only_nvidia_boards_are_watched() -> None:
    def missing(index: int) -> Board:
        raise DeviceError("no bindings")

    assert open_watch("cpu") is None
    assert open_watch("mps") is None
    assert open_watch("cuda", missing) is None
    found = open_watch("cuda:3", lambda index: Board(f"board {index}", FakeNvml({}), None))
    assert found is not None
    assert (found.device, found.board.name) == ("cuda:3", "board 3")


class TestOnHardware:
    pytestmark = real

    def test_a_board_tells_its_state(self) -> None:
        pytest.importorskip("pynvml")
        found = open_watch("cuda")
        assert found is not None
        a = torch.randn(4096, 4096, device="cuda")
        for _ in range(50):
            a @ a
        found.look()
        torch.cuda.synchronize()
        (state,) = found.states
        assert state.clock_mhz is not None
        assert 100 < state.clock_mhz < 5000
        assert state.celsius is not None
        assert 0 < state.celsius < 110
        assert set(found.conditions()) == {f"cuda {name}" for name in ("clock", "temperature", "power", "slowed by")}
        assert open_board(0).name == torch.cuda.get_device_name(0)

    def test_work_takes_energy(self) -> None:
        pytest.importorskip("pynvml")
        counter = open_counter("cuda")
        a = torch.randn(8192, 8192, device="cuda")
        before = counter.read()
        for _ in range(30):
            a @ a
        torch.cuda.synchronize()
        assert counter.joules(before, counter.read()) > 10  # 0.6 s at hundreds of watts

    def test_the_calibrated_rates_are_those_of_a_gpu(self) -> None:
        found = calibrate(open_device("cuda"))
        assert found is not None
        assert found.tf32 is False
        assert 10 < found.copy_gbytes_per_s < 10_000
        assert 100 < found.matmul_gmacs_per_s < 200_000  # fp32, without TF32
