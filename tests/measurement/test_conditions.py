from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.measurement.conditions import (
    Reading,
    describe,
    drift,
    other_load,
    run_warnings,
    sample_warnings,
    take_reading,
)

QUIET = Reading(
    at_s=0.0,
    load_1min=0.1,
    busy_s=0.0,
    own_s=0.0,
    stolen_s=0.0,
    processors=2,
    usable=2,
    governors=("performance",),
    turbo=True,
    on_battery=False,
    throttled=0,
    gc_enabled=True,
    debug_build=False,
)
LATER = replace(QUIET, at_s=100.0, busy_s=160.0, own_s=150.0)


def test_a_quiet_machine_raises_no_doubt() -> None:
    assert run_warnings(QUIET, LATER, 0.02) == ()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"busy_s": 190.0}, "other processes took 20.0 % of the processors' time"),
        ({"stolen_s": 10.0}, "the hypervisor gave 5.0 %"),
        ({"throttled": 3}, "throttled 3 times"),
        ({"governors": ("performance", "powersave")}, "frequency governor powersave"),
        ({"on_battery": True}, "running on battery"),
        ({"debug_build": True}, "debug build"),
    ],
)
def test_each_doubt_is_said(change: dict[str, Any], words: str) -> None:
    (doubt,) = run_warnings(QUIET, replace(LATER, **change))
    assert words in doubt


def test_a_machine_that_became_slower_is_doubted() -> None:
    assert run_warnings(QUIET, LATER, -0.2) == (
        "the machine's own speed changed by -20 % from start to end of the run",
    )


def test_other_load_is_what_was_not_ours() -> None:
    assert other_load(QUIET, LATER) == pytest.approx(10 / 200)
    assert other_load(QUIET, replace(LATER, busy_s=140.0)) == 0.0  # clocks of different grain may disagree


def test_the_description_says_unknown_where_the_system_is_silent() -> None:
    silent = replace(LATER, load_1min=None, governors=(), turbo=None, on_battery=None, throttled=None)
    said = describe(QUIET, silent)
    assert {said[key] for key in ("load after", "governor", "turbo", "power", "throttled")} == {"unknown"}
    assert describe(QUIET, LATER)["throttled"] == "0"
    assert run_warnings(QUIET, silent) == ()


def test_readings_come_from_the_system(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    files = {
        f"{cpu}/cpu0/cpufreq/scaling_governor": "powersave\n",
        f"{cpu}/cpu1/cpufreq/scaling_governor": "performance\n",
        f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "3\n",
        f"{cpu}/intel_pstate/no_turbo": "1\n",
        "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_throttled 4\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    reading = take_reading(tmp_path)
    assert reading.governors == ("performance", "powersave")
    assert reading.throttled == 7
    assert reading.turbo is False
    bare = take_reading(tmp_path / "none")
    assert (bare.governors, bare.throttled, bare.turbo) == ((), None, None)
    assert bare.busy_s > 0


def test_busy_time_counts_our_own_work() -> None:
    before = take_reading()
    while take_reading().own_s - before.own_s < 0.2:
        sum(range(100_000))
    after = take_reading()
    assert after.busy_s - before.busy_s >= 0.15


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([1.0], "only 1 round:"),
        ([1.0, 1.0], "only 2 rounds:"),
        ([1.0, 2.0, 1.0], "standard deviation is 43.3 % of the mean"),
        ([1.0, 1.0, float("nan")], "not numbers"),
        ([1 + 0.01 * i for i in range(20)], "drifted by +17 %"),
    ],
)
def test_doubtful_samples(samples: list[float], words: str) -> None:
    (doubt,) = sample_warnings(samples)
    assert words in doubt


def test_steady_samples_raise_no_doubt() -> None:
    assert sample_warnings([1.0, 1.01, 0.99, 1.0, 1.02]) == ()


def test_drift_is_seldom_seen_where_there_is_none() -> None:
    rng = np.random.default_rng(1)
    false_alarms = sum(drift(rng.lognormal(0, 0.1, 40)) != 0.0 for _ in range(500))
    assert false_alarms <= 15  # 1 % of 500 is 5; 15 has a chance of 1 in 10,000


@given(st.integers(8, 60), st.floats(0.06, 0.5))
def test_a_steady_drift_is_measured(n: int, change: float) -> None:
    samples = [1 + change * i / (n - 1) for i in range(n)]
    assert drift(samples) == pytest.approx(change / (1 + change / 2), rel=0.02)
    assert drift(samples[::-1]) == pytest.approx(-drift(samples))


def test_a_very_long_run_is_thinned() -> None:
    assert drift(np.linspace(1, 1.5, 20_000)) == pytest.approx(0.4, rel=0.02)


def test_few_samples_have_no_trend() -> None:
    assert drift([1, 2, 3, 4, 5, 6, 7]) == 0.0
