"""What the system refuses is explained in one line that says what to set."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import psutil
import pytest

from segcore.core.errors import EnvironmentFaultError, UsageError
from segcore.core.system import available_memory, explain, explained, machine_name, out_of_memory


@pytest.mark.parametrize(
    ("files", "limited"),
    [
        ({}, False),
        ({"memory.max": "max\n"}, False),
        ({"memory.max": "garbage"}, False),
        ({"memory.max": f"{1 << 60}\n"}, False),
        ({"memory.max": "1000\n"}, True),
        ({"memory/memory.limit_in_bytes": "1000\n"}, True),
        ({"memory.max": "max\n", "a/b/memory.max": "1000\n", "a/memory.max": "max\n"}, True),
        ({"memory.max": "max\n", "a/memory.max": "1000\n"}, True),
        ({"c/memory.max": "1000\n"}, False),
    ],
)
def test_memory_is_that_of_the_machine_within_the_limit_of_the_container(
    tmp_path: Path, files: dict[str, str], limited: bool
) -> None:
    for name, text in files.items():
        path = tmp_path / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if len(files) > 1:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text("0::/a/b\n")
    found = available_memory(tmp_path)
    assert found == 0 if limited else 0 < found < 1 << 50


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of address space")
def test_memory_is_within_the_limit_of_the_address_space(monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda which: (used + (1 << 20), resource.RLIM_INFINITY))
    assert 0 <= available_memory() <= 1 << 20
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert available_memory() > 1 << 20


def test_a_machine_that_does_not_say_has_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    def masked() -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/proc/meminfo")

    monkeypatch.setattr("psutil.virtual_memory", masked)
    assert available_memory() == sys.maxsize


REFUSALS: list[tuple[Exception, str]] = [
    (MemoryError(), "ulimit -v"),
    (MemoryError("Unable to allocate 3.00 GiB"), "ulimit -v"),
    (
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: x"),
        "ulimit -v",
    ),
    (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.\nMore lines"), "nvidia-smi"),
    (RuntimeError("CUDA error: out of memory"), "nvidia-smi"),
    (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "nvidia-smi"),
    (RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB)"), "nvidia-smi"),
    (RuntimeError("std::bad_alloc"), "ulimit -v"),
    (ImportError("libtorch_cpu.so: failed to map segment from shared object"), "ulimit -v"),
    (ImportError("libtorch_cpu.so: cannot allocate memory in static TLS block"), "ulimit -v"),
    (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "ulimit -v"),
    (OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.png"), "ulimit -n"),
    (ImportError("libx.so: cannot open shared object file: Too many open files"), "ulimit -n"),
    (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "ulimit -u"),
    (RuntimeError("can't start new thread"), "ulimit -u"),
    (RuntimeError("Failed to initialize cpuinfo!"), "/proc"),
    (ValueError("\nInvalid log settings: nonsense, must be a comma separated list of fully\nqualified"), "TORCH_LOGS"),
    (RuntimeError("Unable to open /dev/urandom"), "/dev"),
    (FileNotFoundError(errno.ENOENT, "No usable temporary directory found in ['/tmp']"), "TMPDIR"),
    (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)), "cd "),
]


@pytest.mark.parametrize(("error", "remedy"), REFUSALS, ids=[f"{type(e).__name__} {e}"[:60] for e, _ in REFUSALS])
def test_a_refusal_is_one_line_with_its_remedy(error: Exception, remedy: str) -> None:
    line = explain(error)
    assert line is not None
    assert remedy in line
    assert "\n" not in line
    assert out_of_memory(error) == (remedy in ("ulimit -v", "nvidia-smi"))


@pytest.mark.parametrize("error", [error for error, _ in REFUSALS[:3]])
def test_a_refusal_becomes_an_expected_error(error: Exception) -> None:
    with pytest.raises(EnvironmentFaultError, match="ulimit -v"), explained():
        raise error
    with pytest.raises(ZeroDivisionError), explained():
        raise ZeroDivisionError
    with pytest.raises(UsageError), explained():
        raise UsageError("out of memory")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("x"),
        OSError(errno.ENOSPC, "full", "a"),
        FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.png"),
        KeyError("a"),
        RecursionError("x"),
    ],
    ids=repr,
)
def test_any_other_error_is_not_explained(error: Exception) -> None:
    assert explain(error) is None


@pytest.mark.parametrize(
    ("setting", "node", "name"),
    [
        ("", "box.example.org", "box"),
        ("", "My Box!", "My-Box"),
        ("", "", "machine"),
        ("", "::", "machine"),
        ("ci-large", "a1b2c3", "ci-large"),
        ("v1.2", "box", "v1.2"),
        ("../etc/x", "box", "etc-x"),
        ("x" * 99, "box", "x" * 63),
    ],
)
def test_a_machine_is_called_as_is_valid_in_a_file_name(
    monkeypatch: pytest.MonkeyPatch, setting: str, node: str, name: str
) -> None:
    monkeypatch.setenv("SEGCORE_MACHINE", setting)
    monkeypatch.setattr("platform.node", lambda: node)
    assert machine_name() == name
