"""What flickers while a run is going on, and which of it makes the run's figures doubtful.

Readings are taken by one function that touches the system; the others are pure.
"""

from __future__ import annotations

import contextlib
import gc
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from segcore.measurement.machine import usable_cores

MAX_OTHER_LOAD = 0.10
"""Share of the machine's processor time taken by others during a run above which we warn."""
MAX_SPREAD = 0.10
MAX_DRIFT = 0.05
DRIFT_Z = 2.58
"""Two-sided 1 % of the normal distribution."""
MAX_DRIFT_POINTS = 500
MIN_ROUNDS = 3


@dataclass(frozen=True)
class Reading:
    """The state of machine and process at one moment; None where the system does not tell."""

    at_s: float
    load_1min: float | None
    busy_s: float
    """Processor seconds that all processes of the machine have used since it started."""
    own_s: float
    """Processor seconds of this process and its ended children."""
    stolen_s: float
    """Processor seconds that the hypervisor gave to others."""
    processors: int
    usable: int
    governors: tuple[str, ...]
    turbo: bool | None
    on_battery: bool | None
    throttled: int | None
    """Thermal throttling events of all cores since the machine started, or control group periods cut short."""
    gc_enabled: bool
    debug_build: bool


def take_reading(root: Path = Path("/")) -> Reading:
    """Read the state of machine and process now.

    Args:
        root: where ``proc`` and ``sys`` are looked for.
    """
    cpu = psutil.cpu_times()
    idle = cpu.idle + getattr(cpu, "iowait", 0.0)
    own = psutil.Process().cpu_times()
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    turbo = _read(root, "sys/devices/system/cpu/intel_pstate/no_turbo")
    return Reading(
        at_s=time.monotonic(),
        load_1min=psutil.getloadavg()[0] if hasattr(psutil, "getloadavg") else None,
        # guest time is part of user time already
        busy_s=sum(cpu) - idle - getattr(cpu, "guest", 0.0) - getattr(cpu, "guest_nice", 0.0),
        own_s=own.user + own.system + own.children_user + own.children_system,
        stolen_s=getattr(cpu, "steal", 0.0),
        processors=psutil.cpu_count() or 1,
        usable=usable_cores(),
        governors=tuple(sorted(set(_read_all(root, "cpufreq/scaling_governor")))),
        turbo=None if turbo is None else turbo == "0",
        on_battery=None if battery is None or battery.power_plugged is None else not battery.power_plugged,
        throttled=_throttled(root),
        gc_enabled=gc.isenabled(),
        debug_build=hasattr(sys, "gettotalrefcount"),
    )


def _read(root: Path, path: str) -> str | None:
    with contextlib.suppress(OSError):
        return (root / path).read_text(encoding="utf-8").strip()
    return None


def _read_all(root: Path, name: str) -> list[str]:
    cpus = sorted((root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/{name}"))
    return [text for path in cpus if (text := _read(root, str(path.relative_to(root)))) is not None]


def _throttled(root: Path) -> int | None:
    counts = [int(text) for text in _read_all(root, "thermal_throttle/core_throttle_count") if text.isdecimal()]
    for line in (_read(root, "sys/fs/cgroup/cpu.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key == "nr_throttled":
            counts.append(int(value))
    return sum(counts) if counts else None


def describe(before: Reading, after: Reading) -> dict[str, str]:
    """Return what was read at both ends of a run, in words and figures for the record."""
    return {
        "gc": "on" if after.gc_enabled else "off",
        "affinity": f"{after.usable} of {after.processors} processors",
        "load before": "unknown" if before.load_1min is None else f"{before.load_1min:.2f}",
        "load after": "unknown" if after.load_1min is None else f"{after.load_1min:.2f}",
        "other load": _percent(other_load(before, after)),
        "stolen": _percent(_share(after.stolen_s - before.stolen_s, before, after)),
        "governor": ", ".join(after.governors) or "unknown",
        "turbo": {None: "unknown", True: "on", False: "off"}[after.turbo],
        "power": {None: "unknown", True: "battery", False: "mains"}[after.on_battery],
        "throttled": "unknown" if after.throttled is None else str(after.throttled - (before.throttled or 0)),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _share(seconds: float, before: Reading, after: Reading) -> float:
    return max(0.0, seconds) / max(1e-9, (after.at_s - before.at_s) * after.processors)


def other_load(before: Reading, after: Reading) -> float:
    """Return the share of the machine's processor time between two readings that went to other processes, 0 to 1."""
    return _share((after.busy_s - before.busy_s) - (after.own_s - before.own_s), before, after)


def run_warnings(before: Reading, after: Reading, calibration_change: float | None = None) -> tuple[str, ...]:
    """Return what makes a run's speed figures doubtful, one sentence each.

    Args:
        before: reading at the start of the run.
        after: reading at its end.
        calibration_change: relative change of the calibration's matrix product from start to end, where repeated.
    """
    load, stolen = other_load(before, after), _share(after.stolen_s - before.stolen_s, before, after)
    throttled = (after.throttled or 0) - (before.throttled or 0)
    slow = [name for name in after.governors if name in {"powersave", "conservative", "ondemand"}]
    doubts = {
        f"other processes took {_percent(load)} of the processors' time: close them, or run on an idle machine": (
            load > MAX_OTHER_LOAD
        ),
        f"the hypervisor gave {_percent(stolen)} of the processors' time to others": stolen > 0.02,
        f"the processors were throttled {throttled} times: the machine is too hot, or its CPU quota ran out": throttled
        > 0,
        f"frequency governor {', '.join(slow)}: use `performance` (cpupower frequency-set -g performance)": bool(slow),
        "running on battery: plug the machine in": bool(after.on_battery),
        "this is a debug build of Python: its times say nothing about a release build": after.debug_build,
        f"the machine's own speed changed by {100 * (calibration_change or 0.0):+.0f} % from start to end of the run": (
            abs(calibration_change or 0.0) > 2 * MAX_DRIFT
        ),
    }
    return tuple(sentence for sentence, holds in doubts.items() if holds)


def sample_warnings(samples: Sequence[float]) -> tuple[str, ...]:
    """Return what makes one item's samples doubtful, one sentence each.

    Args:
        samples: seconds per round, in the order measured.
    """
    n = len(samples)
    if n < MIN_ROUNDS:
        return (f"only {n} round{'s' * (n != 1)}: raise --benchmark-min-rounds",)
    values = np.asarray(samples, dtype=np.float64)
    if not np.isfinite(values).all():
        return ("samples that are not numbers",)
    doubts = []
    spread = float(values.std(ddof=1) / values.mean())
    if spread > MAX_SPREAD:
        doubts.append(f"standard deviation is {_percent(spread)} of the mean")
    change = drift(values)
    if abs(change) > MAX_DRIFT:
        doubts.append(f"drifted by {100 * change:+.0f} % from first to last round")
    return tuple(doubts)


def drift(samples: Sequence[float] | np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
    """Return the relative change over a sequence of samples, 0.0 where there is no trend beyond chance at 1 %.

    Trend by the Mann-Kendall test (Mann 1945, Kendall 1975), size by the Theil-Sen slope (Sen 1968) over the median.
    """
    values = np.asarray(samples, dtype=np.float64)
    if len(values) > MAX_DRIFT_POINTS:  # all pairs of 10,000 rounds would fill the memory
        values = np.array([np.median(block) for block in np.array_split(values, MAX_DRIFT_POINTS)])
    n = len(values)
    if n < 8:  # below, the normal approximation of the test statistic does not hold
        return 0.0
    later, earlier = np.tril_indices(n, -1)
    differences = values[later] - values[earlier]
    score = float(np.sign(differences).sum())
    if abs(score) - 1 < DRIFT_Z * math.sqrt(n * (n - 1) * (2 * n + 5) / 18):
        return 0.0
    return float(np.median(differences / (later - earlier)) * (n - 1) / np.median(values))
