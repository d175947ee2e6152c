from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segcore import detect_device
from segcore.devices import FakeDevice, TorchDevice, find_devices, open_device
from segcore.errors import DeviceError


class FakeCuda:
    """Stands in for two GPUs in ``torch.cuda``."""

    name, major, minor, total_memory = "Imaginary GPU", 9, 0, 80 << 30

    def install(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: self)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append(f"synchronize {device}"))
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(f"reset {device}"))
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 123)
        return calls


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("no_accelerator")
def test_cpu_is_what_auto_finds_when_there_is_nothing_else() -> None:
    assert detect_device() == torch.device("cpu")
    infos = {info.name: info for info in find_devices()}
    assert list(infos) == ["cuda", "mps", "cpu"]
    assert not infos["cuda"].available
    assert infos["cuda"].detail
    assert infos["cpu"].available
    assert "threads" in infos["cpu"].detail


def test_cuda_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = FakeCuda().install(monkeypatch)
    assert detect_device("auto") == torch.device("cuda")
    assert detect_device("cuda:0") == torch.device("cuda")
    assert detect_device("CUDA:1") == torch.device("cuda:1")
    assert detect_device("cpu") == torch.device("cpu")
    device = open_device("cuda:1")
    device.synchronize()
    device.reset_peak_memory()
    assert device.peak_memory_bytes() == 123
    assert calls == ["synchronize cuda:1", "reset cuda:1"]
    assert [info.memory_bytes for info in find_devices()][:2] == [80 << 30] * 2


def test_mps_comes_before_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: calls.append("synchronize"))
    assert detect_device() == torch.device("mps")
    device = open_device()
    device.synchronize()
    device.reset_peak_memory()
    assert device.peak_memory_bytes() is None
    assert calls == ["synchronize"]


@pytest.mark.usefixtures("no_accelerator")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "device cuda is not available: .*; available: cpu"),
        ("mps", "device mps is not available: .*; available: cpu"),
        ("gpu", r"unknown device gpu.*known here: auto, cuda, mps, cpu"),
        ("cdua", r"did you mean 'cuda'"),
        ("cuda:7", "unknown device cuda:7"),
    ],
)
def test_a_device_asked_for_by_name_and_not_there_is_an_error(name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        detect_device(name)


def test_the_cpu_keeps_tensors_and_knows_its_high_water_mark() -> None:
    device = TorchDevice("cpu")
    tensor = torch.zeros(3)
    assert device.put(tensor) is tensor
    device.synchronize()
    peak = device.peak_memory_bytes()
    assert peak is not None
    assert peak > 10 << 20


def test_the_fake_counts() -> None:
    device = FakeDevice()
    device.put(torch.zeros(1))
    device.synchronize()
    device.synchronize()
    assert (device.events.count("put"), device.events.count("synchronize")) == (1, 2)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process reset its own mark")
def test_the_memory_mark_of_the_process_can_be_reset() -> None:
    device = open_device("cpu")
    block = torch.ones(64 << 18)  # 64 MiB, touched
    before = device.peak_memory_bytes()
    del block
    device.reset_peak_memory()
    after = device.peak_memory_bytes()
    assert before is not None
    assert after is not None
    assert before - after > 32 << 20
