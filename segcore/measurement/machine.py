"""Properties of the machine that determine speed; what varies during a run is in `segcore.measurement.conditions`.

Torch is imported only where it is queried, because the machine's name is needed before anything heavy is loaded.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import psutil

from segcore.core.errors import UsageError
from segcore.core.git import git
from segcore.core.records import GitRecord, GpuRecord, MachineRecord
from segcore.core.system import control_groups, machine_name

INSTRUCTION_SETS = (
    *("avx", "avx2", "fma", "f16c", "avx_vnni"),
    *("avx512f", "avx512bw", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
"""CPU flags, as Linux spells them, for which torch, oneDNN or OpenBLAS have separate kernels."""
THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "OMP_WAIT_POLICY", "OMP_DYNAMIC"),
    *("GOMP_CPU_AFFINITY", "GOMP_SPINCOUNT", "KMP_AFFINITY", "KMP_BLOCKTIME"),
    *("MKL_NUM_THREADS", "MKL_DYNAMIC", "OPENBLAS_NUM_THREADS"),
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "LD_PRELOAD"),
)
"""Environment variables that select threads, kernels and, by LD_PRELOAD, another OpenMP or allocator."""
PACKAGES = ("segcore", "torch", "torchvision", "numpy", "pillow", "pytest", "pytest-benchmark", "scikit-image")


def run_name(directory: Path | None = None) -> str:
    """Return the default name of a run: machine and short commit, or ``unversioned`` outside of git."""
    found = git_commit(directory)
    return f"{machine_name()}-{found.commit[:7] if found else 'unversioned'}"


def git_commit(directory: Path | None = None) -> GitRecord | None:
    """Return the commit checked out in a directory (default: current); None without git, repository or commit.

    It is dirty if a tracked file has changed, or a Python or YAML file is not in git; run files do not count.
    """
    commit = _git(directory, "rev-parse", "HEAD")
    if commit is None:
        return None
    branch = _git(directory, "symbolic-ref", "--short", "-q", "HEAD")
    changed = _git(directory, "status", "--porcelain", "--untracked-files=no")
    added = _git(directory, "ls-files", "--others", "--exclude-standard", ":/*.py", ":/*.yaml", ":/*.yml")
    return GitRecord(commit=commit, branch=branch or None, dirty=bool(changed or added))


def repository_root(directory: Path) -> Path:
    """Return the top of the git repository that a directory is in; the directory itself outside of one."""
    return Path(_git(directory, "rev-parse", "--show-toplevel") or directory)


def _git(directory: Path | None, *words: str) -> str | None:
    try:
        return git(directory or Path(), *words, timeout_s=20).decode(errors="replace")
    except UsageError:
        return None


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a result."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def fingerprint(root: Path = Path("/")) -> MachineRecord:
    """Return the properties of this machine that determine its speed; `root` contains ``proc`` and ``sys``."""
    import torch

    cpu = _cpu_fields(root)
    flags = set((cpu.get("flags") or cpu.get("features") or "").lower().split())
    return MachineRecord(
        cpu=cpu_model(root),
        cores_physical=psutil.cpu_count(logical=False),
        cores_usable=usable_cores(),
        cgroup_cpus=cgroup_cpus(root),
        instruction_sets=tuple(name for name in INSTRUCTION_SETS if name in flags),
        memory_bytes=_memory_bytes(),
        system=f"{platform.system()} {platform.machine()}",
        gpus=_gpus(),
        python=f"{platform.python_implementation()} {'.'.join(platform.python_version_tuple()[:2])}",
        torch=torch.__version__,
        torch_build=torch_build(torch.__config__.show()),
        intra_op_threads=torch.get_num_threads(),
        inter_op_threads=torch.get_num_interop_threads(),
        thread_settings={name: os.environ[name] for name in THREAD_VARIABLES if name in os.environ},
    )


def _memory_bytes() -> int:
    """Return the memory of the machine in whole GiB: the kernel reserves a few MB more or less from boot to boot."""
    gib = 1 << 30
    try:
        return round(psutil.virtual_memory().total / gib) * gib
    except OSError:  # no /proc
        return 0


def usable_cores() -> int:
    """Return the number of logical processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model(root: Path = Path("/")) -> str:
    """Return the CPU's name with family, model and stepping, which identify it if a cloud provider hides the name."""
    if sys.platform == "darwin" and (brand := _output("sysctl", "-n", "machdep.cpu.brand_string")):
        return brand
    fields = _cpu_fields(root)
    if "model name" in fields:
        numbers = [f"{key.split()[-1]} {fields[key]}" for key in ("cpu family", "model", "stepping") if key in fields]
        return f"{fields['model name']} ({', '.join(numbers)})" if numbers else fields["model name"]
    if "cpu implementer" in fields:  # ARM reports numbers only
        keys = ("cpu implementer", "cpu architecture", "cpu variant", "cpu part", "cpu revision")
        return "ARM " + ", ".join(f"{key[4:]} {fields[key]}" for key in keys if key in fields)
    return platform.processor() or platform.machine()


def _output(*command: str) -> str:
    """Return what a command prints; nothing if it fails."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
        return done.stdout.decode(errors="replace").strip()
    return ""


def _cpu_fields(root: Path) -> dict[str, str]:
    """Return the first processor of /proc/cpuinfo; empty if there is none."""
    try:
        first = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").partition("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip().lower(): value.strip() for key, _, value in pairs if value.strip()}


def cgroup_cpus(root: Path = Path("/")) -> float | None:
    """Return the lowest CPU quota of this process's control groups, in processors; None if there is none.

    Read are ``cpu.max`` (version 2) and ``cpu.cfs_quota_us`` over ``cpu.cfs_period_us`` (version 1); see the kernel's
    admin-guide/cgroup-v2 and scheduler/sched-bwc.
    """
    return min((quota for directory in control_groups("cpu", root) for quota in _quota(directory)), default=None)


def _quota(directory: Path) -> list[float]:
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (directory / "cpu.max").read_text(encoding="utf-8").split()
        return [int(quota) / int(period)] if quota != "max" else []
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota = (directory / "cpu.cfs_quota_us").read_text(encoding="utf-8")
        period = (directory / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return [int(quota) / int(period)] if int(quota) > 0 else []
    return []


def torch_build(config: str) -> str:
    """Return the parts of ``torch.__config__.show()`` that affect speed: BLAS, oneDNN, OpenMP and instruction set."""
    wanted = re.compile(r"^(Intel\(R\)|OpenMP|LAPACK|CPU capability|CUDA Runtime|CuDNN)", re.IGNORECASE)
    parts = []
    for line in (line.strip(" -\t") for line in config.splitlines()):
        if line.startswith("Build settings"):
            parts += re.findall(r"\b(BLAS_INFO=\w+|BUILD_TYPE=\w+|USE_MKLDNN=\w+|USE_OPENMP=\w+)", line)
        elif wanted.match(line):
            parts.append(line)
    return "; ".join(parts)


def _gpus() -> tuple[GpuRecord, ...]:
    import torch

    if torch.cuda.is_available():
        drivers = _output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split()
        driver = drivers[0] if drivers else "unknown"
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return tuple(GpuRecord(name=p.name, driver=driver, memory_bytes=p.total_memory) for p in found)
    if torch.backends.mps.is_available():
        return (GpuRecord(name=f"Apple {platform.machine()}", driver=f"macOS {platform.mac_ver()[0]}"),)
    return ()
