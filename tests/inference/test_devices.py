from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from segcore import detect_device
from segcore.core.errors import DeviceError
from segcore.inference import devices
from segcore.inference.allocator import give_back_freed_memory
from segcore.inference.devices import Device, find_devices, open_device, tf32_option
from tests.support.fakes import FakeDevice


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
def test_auto_is_the_cpu_without_an_accelerator() -> None:
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
    assert device.reset_peak_memory()
    assert calls == ["synchronize cuda:1", "reset cuda:1", "reset cuda:1"]
    assert [info.memory_bytes for info in find_devices()][:2] == [80 << 30] * 2


def test_mps_comes_before_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: calls.append("synchronize"))
    assert detect_device() == torch.device("mps")
    device = open_device()
    device.synchronize()
    assert not device.reset_peak_memory()
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
def test_an_unavailable_device_is_refused(name: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        detect_device(name)


def test_the_cpu_keeps_tensors() -> None:
    device = Device("cpu")
    tensor = torch.zeros(3)
    assert device.put(tensor) is tensor
    device.synchronize()


def test_the_fake_device_records_events() -> None:
    device = FakeDevice()
    device.put(torch.zeros(1))
    device.synchronize()
    device.synchronize()
    assert (device.events.count("put"), device.events.count("synchronize")) == (1, 2)


MIB = 1 << 20


def mark_while_allocating(device: Device, mib: int) -> int:
    """The high-water mark of one item that allocates, touches and frees so much."""
    give_back_freed_memory()  # as is done before each item
    assert device.reset_peak_memory()
    block = torch.ones(mib * MIB // 4)
    del block
    mark = device.peak_memory_bytes()
    assert mark is not None
    return mark


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux lets a process reset its own mark")
def test_each_item_has_its_own_memory_peak() -> None:
    device = open_device("cpu")
    nothing, large, small = (mark_while_allocating(device, mib) for mib in (0, 192, 64))
    assert 180 * MIB < large - nothing < 204 * MIB
    assert 56 * MIB < small - nothing < 80 * MIB  # not that of the item before, which was larger


@pytest.mark.parametrize("files", [(), ("status",), ("clear_refs",)])
def test_a_peak_that_cannot_be_reset_is_not_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]
) -> None:
    (tmp_path / "clear_refs").mkdir()  # cannot be written, not even by root
    for name in files:
        if name == "clear_refs":
            (tmp_path / name).rmdir()
        (tmp_path / name).write_text("VmPeak:\t 2048 kB\nVmHWM:\t 1024 kB\n" if name == "status" else "")
    monkeypatch.setattr(devices, "PROCESS", tmp_path)
    device = Device("cpu")
    assert not device.reset_peak_memory()
    assert device.peak_memory_bytes() == (1 << 20 if files == ("status",) else None)


def test_tf32_is_off_on_cuda_and_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda().install(monkeypatch)
    flags: list[Any] = [torch.backends.cudnn, torch.backends.cuda.matmul]
    before = [flag.allow_tf32 for flag in flags]
    try:
        for flag in flags:
            flag.allow_tf32 = True
        assert tf32_option(Device("cuda:1")) == {"tf32": "on"}
        open_device("cpu")
        assert all(flag.allow_tf32 for flag in flags)
        assert tf32_option(open_device("cuda:1")) == {"tf32": "off"}
        assert tf32_option(open_device("cpu")) == {}
    finally:
        for flag, was in zip(flags, before, strict=True):
            flag.allow_tf32 = was
