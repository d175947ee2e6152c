from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from segcore.core.errors import DeviceError
from segcore.measurement.energy import POWERCAP, EnergyCounter, EnergyMeter, open_counter
from tests.support.fakes import fake_counter

RANGE = 262143_328850
"""Range of a common processor, microjoules."""
LAPTOP = {
    "intel-rapl:0": "package-0",
    "intel-rapl:0:0": "core",
    "intel-rapl:0:1": "uncore",
    "intel-rapl:0:2": "dram",
    "intel-rapl:1": "psys",
    "intel-rapl": "",
}
SERVER = {"intel-rapl:0": "package-0", "intel-rapl:0:0": "dram", "intel-rapl:1": "package-1", "intel-rapl:1:0": "dram"}


def make_tree(root: Path, zones: dict[str, str], microjoules: int = 1000) -> Path:
    for place, (directory, name) in enumerate(zones.items()):
        zone = root / POWERCAP / directory
        zone.mkdir(parents=True)
        if name:
            (zone / "name").write_text(f"{name}\n")
            (zone / "energy_uj").write_text(f"{microjoules + place}\n")
            (zone / "max_energy_range_uj").write_text(f"{RANGE}\n")
    return root


def set_counter(root: Path, directory: str, microjoules: int) -> None:
    (root / POWERCAP / directory / "energy_uj").write_text(f"{microjoules}\n")


@pytest.mark.parametrize(
    ("zones", "name", "state"),
    [
        (LAPTOP, "RAPL package-0 + dram", (1000, 1003)),
        (SERVER, "RAPL package-0 + dram + package-1 + dram", (1000, 1001, 1002, 1003)),
    ],
)
def test_packages_and_their_memory_are_counted_once(
    tmp_path: Path, zones: dict[str, str], name: str, state: tuple[int, ...]
) -> None:
    counter = open_counter("cpu", make_tree(tmp_path, zones))
    assert counter.name == name
    assert counter.read() == state


def test_joules_add_up_over_the_zones(tmp_path: Path) -> None:
    counter = open_counter("cpu", make_tree(tmp_path, LAPTOP))
    before = counter.read()
    set_counter(tmp_path, "intel-rapl:0", 1000 + 7_500_000)
    set_counter(tmp_path, "intel-rapl:0:2", 1003 + 250_000)
    set_counter(tmp_path, "intel-rapl:0:0", 5_000_000)  # the cores are in the package
    assert counter.joules(before, counter.read()) == pytest.approx(7.75)


def test_a_zone_may_wrap_around(tmp_path: Path) -> None:
    counter = open_counter("cpu", make_tree(tmp_path, LAPTOP, RANGE - 2_000_000))
    before = counter.read()
    set_counter(tmp_path, "intel-rapl:0", 3_000_000)
    assert counter.joules(before, counter.read()) == pytest.approx(5.0)


def test_the_error_says_why_there_is_no_rapl(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="shows no RAPL package: a virtual machine"):
        open_counter("cpu", tmp_path)
    with pytest.raises(DeviceError, match="shows no RAPL package"):
        open_counter("cpu", make_tree(tmp_path, {"intel-rapl:0": "psys"}))


def test_a_counter_for_root_alone_is_refused_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_tree(tmp_path, LAPTOP)
    read_text = Path.read_text

    def denied(path: Path, **options: str) -> str:  # root may read everything, and tests may be run by root
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, **options)

    monkeypatch.setattr(Path, "read_text", denied)
    with pytest.raises(DeviceError, match=r"intel-rapl:0/energy_uj can be read by root alone; .*sudo chmod a\+r"):
        open_counter("cpu", tmp_path)


@pytest.mark.parametrize("text", ["", "not a number"])
def test_an_unreadable_counter_is_refused(tmp_path: Path, text: str) -> None:
    (make_tree(tmp_path, LAPTOP) / POWERCAP / "intel-rapl:0" / "energy_uj").write_text(text)
    with pytest.raises(DeviceError, match="cannot be read"):
        open_counter("cpu", tmp_path)


def test_other_devices_have_no_counter() -> None:
    with pytest.raises(DeviceError, match="no energy counter of mps is known"):
        open_counter("mps")


class NvmlError(Exception):
    """Stands for ``pynvml.NVMLError``."""


def fake_nvml(monkeypatch: pytest.MonkeyPatch, millijoules: list[int] | None) -> list[str]:
    """A module ``pynvml`` with one board, which has no counter if there are no states."""
    asked: list[str] = []

    def energy(handle: None) -> int:
        if millijoules is None:
            raise NvmlError("Not Supported")
        return millijoules.pop(0)

    module = ModuleType("pynvml")
    module.__dict__.update(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=asked.append,
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )
    monkeypatch.setitem(sys.modules, "pynvml", module)
    boards = {1: SimpleNamespace(name="Imaginary GPU", uuid="1b2c-3d")}
    monkeypatch.setattr(torch.cuda, "get_device_properties", boards.__getitem__)
    return asked


def test_a_gpu_is_identified_by_its_uuid(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_nvml(monkeypatch, [10_000, 10_000, 12_500])
    counter = open_counter("cuda:1")
    assert asked == ["GPU-1b2c-3d"]
    assert counter.name == "NVML Imaginary GPU"
    assert counter.joules(counter.read(), counter.read()) == pytest.approx(2.5)


def test_an_old_gpu_has_no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvml(monkeypatch, None)
    with pytest.raises(DeviceError, match=r"Imaginary GPU has no energy counter that can be read: .*Not Supported"):
        open_counter("cuda:1")


def test_the_error_names_the_package_of_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # makes its import fail
    with pytest.raises(DeviceError, match=r"segcore\[energy\]"):
        open_counter("cuda")


def test_a_meter_counts_from_start_to_stop() -> None:
    meter = EnergyMeter(fake_counter(100, 130))
    meter.start()
    found = meter.stop(calls=3)
    assert found is not None
    assert (found.joules, found.calls, found.counter) == (30.0, 3, "fake")


@pytest.mark.parametrize(
    ("counter", "started", "calls"),
    [
        (None, True, 3),
        (fake_counter(100, 130), False, 3),
        (fake_counter(100, 130), True, 0),
        (fake_counter(100, 100), True, 3),  # unchanged: it is updated less often than that
        (fake_counter(100), True, 3),  # can no longer be read
    ],
)
def test_energy_that_was_not_counted_is_none(counter: EnergyCounter | None, started: bool, calls: int) -> None:
    meter = EnergyMeter(counter)
    if started:
        meter.start()
    assert meter.stop(calls) is None


@pytest.mark.skipif(not Path("/", POWERCAP, "intel-rapl:0").exists(), reason="this machine has no RAPL")
def test_the_counter_of_this_machine_goes_up() -> None:
    try:
        counter = open_counter("cpu")
    except DeviceError as error:
        pytest.skip(str(error))
    before = counter.read()
    for _ in range(200):
        torch.ones(256, 256) @ torch.ones(256, 256)
    assert counter.joules(before, counter.read()) >= 0
