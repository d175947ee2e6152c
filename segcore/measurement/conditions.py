"""Volatile system state sampled around a run, and the warnings that follow from it and from the samples themselves.

`read_state` touches the system; the other functions are pure.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import psutil

from segcore.core.records import MAX_OTHER_LOAD, WarningCode, WarningRecord
from segcore.measurement.machine import usable_cores
from segcore.measurement.neighbours import Usage, other_load, read_usage

_T = TypeVar("_T")

MAX_STOLEN = 0.02
MAX_REFERENCE_CHANGE = 0.15
"""Largest ratio, minus one, of the reference task's 90th percentile over a run to its 10th without a warning."""
MAX_SPREAD = 0.10
MAX_TREND = 0.05
TREND_ALPHA = 0.01
"""Two-sided significance level of the test for a trend."""
MAX_TREND_POINTS = 500
MIN_TREND_POINTS = 8
MIN_ROUNDS = 3
SLOW_GOVERNORS = {"powersave", "conservative", "ondemand"}


@dataclass(frozen=True)
class SystemState(Usage):
    """State of machine and process at one moment; None where the system does not report it."""

    load_1min: float | None
    stolen_s: float
    """Processor seconds that the hypervisor gave to other guests."""
    usable: int
    governors: tuple[str, ...]
    turbo: bool | None
    on_battery: bool | None
    throttled: int | None
    """Thermal throttling events of all cores since the machine started, plus throttled control group periods."""
    gc_enabled: bool
    debug_build: bool


def read_state(root: Path = Path("/")) -> SystemState:
    """Read the current state of machine and process; `root` contains ``proc`` and ``sys``."""
    battery = _ask(lambda: psutil.sensors_battery())
    turbo = _read(root / "sys/devices/system/cpu/intel_pstate/no_turbo")
    return SystemState(
        **vars(read_usage()),
        load_1min=_ask(lambda: psutil.getloadavg()[0]),
        stolen_s=getattr(_ask(psutil.cpu_times), "steal", 0.0),
        usable=usable_cores(),
        governors=tuple(sorted(set(_read_all(root, "cpufreq/scaling_governor")))),
        turbo=None if turbo is None else turbo == "0",
        on_battery=None if battery is None or battery.power_plugged is None else not battery.power_plugged,
        throttled=_throttled(root),
        gc_enabled=gc.isenabled(),
        debug_build=hasattr(sys, "gettotalrefcount"),
    )


def _ask(read: Callable[[], _T]) -> _T | None:
    """Return what the system reports; None if it has no such report, or a sandbox withholds it."""
    try:
        return read()
    except (OSError, AttributeError):
        return None


def _read(path: Path) -> str | None:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip()
    return None


def _read_all(root: Path, name: str) -> list[str]:
    cpus = (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/{name}")
    return [text for path in cpus if (text := _read(path)) is not None]


def _throttled(root: Path) -> int | None:
    counts = [int(text) for text in _read_all(root, "thermal_throttle/core_throttle_count") if text.isdecimal()]
    for line in (_read(root / "sys/fs/cgroup/cpu.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key == "nr_throttled":
            counts.append(int(value))
    return sum(counts) if counts else None


def describe(before: SystemState, after: SystemState) -> dict[str, str]:
    """Return the conditions of a run as text by name, for `RunRecord.conditions`."""
    return {
        "gc": "on" if after.gc_enabled else "off",
        "affinity": f"{after.usable} of {after.processors} processors",
        "load before": _text(before.load_1min, "{:.2f}".format),
        "load after": _text(after.load_1min, "{:.2f}".format),
        "other load": _text(other_load(before, after), _percent),
        "stolen": _percent(_stolen(before, after)),
        "governor": ", ".join(after.governors) or "unknown",
        "turbo": {None: "unknown", True: "on", False: "off"}[after.turbo],
        "power": {None: "unknown", True: "battery", False: "mains"}[after.on_battery],
        "throttled": "unknown" if after.throttled is None else str(after.throttled - (before.throttled or 0)),
    }


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _text(value: float | None, form: Callable[[float], str]) -> str:
    return "unknown" if value is None else form(value)


def _stolen(before: SystemState, after: SystemState) -> float:
    stolen_s = max(0.0, after.stolen_s - before.stolen_s)
    return stolen_s / max(1e-9, (after.at_s - before.at_s) * after.processors)


def run_warnings(
    before: SystemState, after: SystemState, calibration_change: float | None = None
) -> tuple[WarningRecord, ...]:
    """Return what makes the speed figures of a run unreliable, given the states at its start and end.

    `calibration_change` is the relative change of the calibration's matrix product meanwhile; None if not repeated.
    """
    found: list[WarningRecord] = []

    def warn(code: WarningCode, text: str, value: float | None = None) -> None:
        found.append(WarningRecord(code=code, text=text, value=value))

    load, stolen, change = other_load(before, after) or 0.0, _stolen(before, after), calibration_change or 0.0
    if load > MAX_OTHER_LOAD:
        text = f"other processes took {_percent(load)} of the processor time: close them, or run on an idle machine"
        warn("other-load", text, load)
    if stolen > MAX_STOLEN:
        warn("stolen", f"the hypervisor gave {_percent(stolen)} of the processor time to other guests", stolen)
    if throttled := max(0, (after.throttled or 0) - (before.throttled or 0)):
        text = f"the processors were throttled {throttled} times: the machine is too hot, or its CPU quota ran out"
        warn("throttled", text, throttled)
    if slow := [name for name in after.governors if name in SLOW_GOVERNORS]:
        text = f"frequency governor {', '.join(slow)}: use `performance` (cpupower frequency-set -g performance)"
        warn("frequency", text)
    if after.on_battery:
        warn("battery", "running on battery: connect the power supply")
    if after.debug_build:
        warn("debug-build", "debug build of Python: its times do not hold for a release build")
    if abs(change) > 2 * MAX_TREND:
        text = f"the speed of the machine itself changed by {100 * change:+.0f} % from start to end of the run"
        warn("machine-speed", text, change)
    return tuple(found)


def reference_warnings(references_s: Sequence[float]) -> tuple[WarningRecord, ...]:
    """Return a warning if the machine's own speed changed so much during a run that its times are unfit.

    `references_s` are median seconds of the reference task in each process of each item.
    """
    if len(references_s) < 2:
        return ()
    low, high = (float(np.quantile(references_s, q)) for q in (0.1, 0.9))  # some are hit by a burst of load
    if high / low - 1 <= MAX_REFERENCE_CHANGE:
        return ()
    text = (
        f"unfit for judging times: the reference task took from {1e3 * low:.3g} to {1e3 * high:.3g} ms; close other "
        "programs, fix the clock frequency, or measure two revisions in turns (segcore gate --against)"
    )
    return (WarningRecord(code="reference", value=high / low - 1, text=text),)


def neighbour_warnings(loads: Sequence[float | None]) -> tuple[WarningRecord, ...]:
    """Return a warning if other processes disturbed an item.

    `loads` are the shares of the machine's processor time that they used, by process of the item; None if unknown.
    """
    disturbed = [load for load in loads if load and load > MAX_OTHER_LOAD]
    if not disturbed:
        return ()
    text = (
        f"disturbed in {len(disturbed)} of {len(loads)} processes: others took up to {_percent(max(disturbed))} of the "
        "processor time; close them, or raise --segcore-wait"
    )
    return (WarningRecord(code="neighbours", value=max(disturbed), text=text),)


def sample_warnings(samples: Sequence[float], rounds: int | None = None) -> tuple[WarningRecord, ...]:
    """Return what makes the samples of one item, seconds per round in the order measured, unreliable.

    `rounds` are those of all processes, if further ones measure the item.
    """
    n = len(samples)
    if n < MIN_ROUNDS <= (rounds or n):
        return ()
    if n < MIN_ROUNDS:
        text = f"only {n} round{'s' * (n != 1)}: raise --benchmark-min-rounds"
        return (WarningRecord(code="rounds", value=n, text=text),)
    values = np.asarray(samples, dtype=np.float64)
    if not np.isfinite(values).all():
        return (WarningRecord(code="not-finite", text="samples that are not finite numbers"),)
    warnings = []
    spread = float(values.std(ddof=1) / values.mean())
    if spread > MAX_SPREAD:
        text = f"standard deviation is {_percent(spread)} of the mean"
        warnings.append(WarningRecord(code="spread", value=spread, text=text))
    change = trend(values)
    if abs(change) > MAX_TREND:
        text = f"changed by {100 * change:+.0f} % from first to last round"
        warnings.append(WarningRecord(code="trend", value=change, text=text))
    return tuple(warnings)


def trend(samples: Sequence[float] | npt.NDArray[np.float64]) -> float:
    """Return the relative change over a sequence of samples; 0.0 if no trend is significant at `TREND_ALPHA`.

    Significance by the Mann-Kendall test (Mann 1945; Kendall's tau against time), size by the Theil-Sen slope
    (Sen 1968) over the median.
    """
    values = np.asarray(samples, dtype=np.float64)
    if len(values) > MAX_TREND_POINTS:  # the slope needs all pairs
        values = np.array([np.median(block) for block in np.array_split(values, MAX_TREND_POINTS)])
    n = len(values)
    if n < MIN_TREND_POINTS:
        return 0.0
    from scipy import stats  # takes half a second to import

    # NaN, the p-value of constant samples, is not significant either.
    if not stats.kendalltau(np.arange(n), values).pvalue < TREND_ALPHA:
        return 0.0
    return float(stats.theilslopes(values).slope * (n - 1) / np.median(values))
