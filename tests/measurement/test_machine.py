from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from segcore.measurement import machine

CPUINFO = """processor\t: 0
cpu family\t: 6
model\t\t: 85
model name\t: Some(R) CPU @ 2.00GHz
stepping\t: 7
cpu MHz\t\t: {mhz}
flags\t\t: fpu sse2 avx avx2 fma avx512f

processor\t: 1
model name\t: Another
"""
ARM = (
    "processor\t: 0\nFeatures\t: fp asimd asimddp i8mm\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\nCPU revision\t: 1\n"
)


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_the_fingerprint_reads_cpu_and_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    record = machine.fingerprint(write(tmp_path, {"proc/cpuinfo": CPUINFO.format(mhz=1999)}))
    assert record.cpu == "Some(R) CPU @ 2.00GHz (family 6, model 85, stepping 7)"
    assert record.instruction_sets == ("avx", "avx2", "fma", "avx512f")
    assert record.thread_settings["OMP_NUM_THREADS"] == "2"
    assert record.cores_usable == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else True
    assert "BLAS_INFO" in record.torch_build
    assert record.memory_bytes % (1 << 30) == 0


def test_the_fingerprint_is_stable(tmp_path: Path) -> None:
    slow = machine.fingerprint(write(tmp_path / "a", {"proc/cpuinfo": CPUINFO.format(mhz=800)}))
    fast = machine.fingerprint(write(tmp_path / "b", {"proc/cpuinfo": CPUINFO.format(mhz=3800)}))
    assert slow == fast
    assert machine.fingerprint() == machine.fingerprint()


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="reads /proc")
def test_cpu_model_of_arm_and_without_cpuinfo(tmp_path: Path) -> None:
    assert machine.cpu_model(write(tmp_path, {"proc/cpuinfo": ARM})) == "ARM implementer 0x41, part 0xd0c, revision 1"
    assert machine.cpu_model(tmp_path / "none")


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
            },
            1.0,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/x\n3:cpu,cpuacct:/host/path\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            2.5,
        ),
        (
            {
                "proc/self/cgroup": "3:cpu:/x\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense"}, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 0\n"}, None),
        ({"proc/self/cgroup": "nonsense\n\n:\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1.0),
        ({"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1.0),
        ({"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1.0),
    ],
)
def test_cgroup_quota(tmp_path: Path, files: dict[str, str], cpus: float | None) -> None:
    assert machine.cgroup_cpus(write(tmp_path, files)) == cpus


def test_torch_build_keeps_the_parts_that_affect_speed() -> None:
    text = (
        "PyTorch built with:\n  - GCC 13.3\n  - Intel(R) MKL-DNN v3.1\n  - OpenMP 201511\n"
        "  - CPU capability usage: AVX2\n  - Build settings: BLAS_INFO=open, BUILD_TYPE=Release, "
        "CXX_FLAGS=-O2, USE_OPENMP=ON,\n"
    )
    assert machine.torch_build(text) == (
        "Intel(R) MKL-DNN v3.1; OpenMP 201511; CPU capability usage: AVX2; "
        "BLAS_INFO=open; BUILD_TYPE=Release; USE_OPENMP=ON"
    )


def git(directory: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *words], cwd=directory, check=True, capture_output=True)


def test_git_commit_branch_and_local_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr("platform.node", lambda: "box")
    assert machine.git_commit(tmp_path) is None
    assert machine.run_name(tmp_path) == "box-unversioned"
    git(tmp_path, "init", "-q", "-b", "trunk")
    assert machine.git_commit(tmp_path) is None  # nothing committed yet
    (tmp_path / "a").write_text("a")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-q", "-m", "a")
    clean = machine.git_commit(tmp_path)
    assert clean is not None
    assert (clean.branch, clean.dirty, len(clean.commit)) == ("trunk", False, 40)
    assert machine.run_name(tmp_path) == f"box-{clean.commit[:7]}"
    (tmp_path / "run.json").touch()  # what a run writes is no change
    assert machine.git_commit(tmp_path) == clean
    (tmp_path / "a").write_text("b")
    git(tmp_path, "checkout", "-q", "--detach")
    dirty = machine.git_commit(tmp_path)
    assert dirty is not None
    assert (dirty.branch, dirty.dirty) == (None, True)


def test_names_in_a_repository_need_not_be_utf_8(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", os.fsdecode(b"caf\xe9"))
    git(tmp_path, "config", "core.quotepath", "false")
    git(tmp_path, "commit", "-q", "-m", "a", "--allow-empty")
    (tmp_path / os.fsdecode(b"caf\xe9.py")).touch()
    found = machine.git_commit(tmp_path)
    assert found is not None
    assert (found.branch, found.dirty) == ("caf\N{REPLACEMENT CHARACTER}", True)


def test_versions_name_python_and_torch() -> None:
    versions = machine.package_versions()
    assert next(iter(versions)) == "python"
    assert {"torch", "torchvision", "segcore", "pytest-benchmark"} <= set(versions)


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="file names are text there")
def test_git_need_not_speak_utf8(tmp_path: Path) -> None:
    repository = tmp_path / os.fsdecode(b"caf\xe9")
    repository.mkdir()
    git(repository, "init", "-q", "-b", os.fsdecode(b"zweig-\xe9"))
    git(
        repository,
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        os.fsdecode(b"caf\xe9"),
        "--author",
        os.fsdecode(b"Ren\xe9 <a@b>"),
    )
    clean = machine.git_commit(repository)
    assert clean is not None
    assert (clean.branch, clean.dirty) == ("zweig-\ufffd", False)
    (repository / os.fsdecode(b"x\xe9.py")).touch()
    changed = machine.git_commit(repository)
    assert changed is not None
    assert changed.dirty
    assert machine.run_name(repository).endswith(clean.commit[:7])
