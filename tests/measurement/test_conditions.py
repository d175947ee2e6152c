from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.measurement.conditions import (
    SystemState,
    describe,
    neighbour_warnings,
    read_state,
    reference_warnings,
    run_warnings,
    sample_warnings,
    trend,
)

QUIET = SystemState(
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


def test_a_quiet_machine_has_no_warnings() -> None:
    assert run_warnings(QUIET, LATER, 0.02) == ()


@pytest.mark.parametrize(
    ("change", "code", "value", "figure"),
    [
        ({"busy_s": 190.0}, "other-load", 0.2, "20.0 %"),
        ({"stolen_s": 10.0}, "stolen", 0.05, "5.0 %"),
        ({"throttled": 3}, "throttled", 3, "3 times"),
        ({"governors": ("performance", "powersave")}, "frequency", None, "powersave"),
        ({"on_battery": True}, "battery", None, "battery"),
        ({"debug_build": True}, "debug-build", None, "debug build"),
    ],
)
def test_each_condition_has_its_warning(change: dict[str, Any], code: str, value: float | None, figure: str) -> None:
    (warning,) = run_warnings(QUIET, replace(LATER, **change))
    assert (warning.code, warning.value) == (code, None if value is None else pytest.approx(value))
    assert figure in warning.text


def test_a_machine_that_became_slower_has_a_warning() -> None:
    (warning,) = run_warnings(QUIET, LATER, -0.2)
    assert (warning.code, warning.value) == ("machine-speed", -0.2)
    assert "-20 %" in warning.text


def test_what_the_system_does_not_report_is_unknown() -> None:
    unreported = replace(LATER, load_1min=None, busy_s=None, governors=(), turbo=None, on_battery=None, throttled=None)
    text = describe(QUIET, unreported)
    assert {text[key] for key in ("load after", "other load", "governor", "turbo", "power", "throttled")} == {"unknown"}
    assert describe(QUIET, LATER)["throttled"] == "0"
    assert run_warnings(QUIET, unreported) == ()


def test_the_state_is_read_from_the_system(tmp_path: Path) -> None:
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
    state = read_state(tmp_path)
    assert state.governors == ("performance", "powersave")
    assert state.throttled == 7
    assert state.turbo is False
    bare = read_state(tmp_path / "none")
    assert (bare.governors, bare.throttled, bare.turbo) == ((), None, None)
    assert bare.busy_s


def test_busy_time_counts_our_own_work() -> None:
    before = read_state()
    while read_state().own_s - before.own_s < 0.2:
        sum(range(100_000))
    after = read_state()
    assert after.busy_s is not None
    assert before.busy_s is not None
    assert after.busy_s - before.busy_s >= 0.15


@pytest.mark.parametrize(
    ("samples", "code", "value", "figure"),
    [
        ([1.0], "rounds", 1, "1 round:"),
        ([1.0, 1.0], "rounds", 2, "2 rounds:"),
        ([1.0, 2.0, 1.0], "spread", 0.433, "43.3 %"),
        ([1.0, 1.0, float("nan")], "not-finite", None, "not finite"),
        ([1 + 0.01 * i for i in range(20)], "trend", 0.1735, "+17 %"),
    ],
)
def test_unreliable_samples_have_a_warning(samples: list[float], code: str, value: float | None, figure: str) -> None:
    (warning,) = sample_warnings(samples)
    assert (warning.code, warning.value) == (code, None if value is None else pytest.approx(value, rel=1e-3))
    assert figure in warning.text


def test_steady_samples_have_no_warning() -> None:
    assert sample_warnings([1.0, 1.01, 0.99, 1.0, 1.02]) == ()


def test_a_trend_is_rarely_found_in_noise() -> None:
    rng = np.random.default_rng(1)
    false_alarms = sum(trend(rng.lognormal(0, 0.1, 40)) != 0.0 for _ in range(500))
    assert false_alarms <= 15  # 1 % of 500 is 5; 15 has a chance of 1 in 10,000


@given(st.integers(8, 60), st.floats(0.06, 0.5))
def test_a_steady_trend_is_measured(n: int, change: float) -> None:
    samples = [1 + change * i / (n - 1) for i in range(n)]
    assert trend(samples) == pytest.approx(change / (1 + change / 2), rel=0.02)
    assert trend(samples[::-1]) == pytest.approx(-trend(samples))


def test_the_trend_of_a_very_long_run_is_measured_on_block_medians() -> None:
    assert trend(np.linspace(1, 1.5, 20_000)) == pytest.approx(0.4, rel=0.02)


def test_few_or_constant_samples_have_no_trend() -> None:
    assert trend([1.0] * 20) == 0.0
    assert trend([1, 2, 3, 4, 5, 6, 7]) == 0.0


@pytest.mark.parametrize(
    ("references_ms", "unfit"),
    [
        ([1.25] * 20, False),
        ([1.25] * 19 + [9.0], False),  # a burst
        ([1.25] * 10 + [1.4] * 10, False),
        ([1.25] * 10 + [1.46] * 10, True),
        ([1.25], False),
        ([], False),
    ],
)
def test_a_run_on_a_machine_whose_speed_changes_is_unfit(references_ms: list[float], unfit: bool) -> None:
    found = reference_warnings([ms / 1e3 for ms in references_ms])
    assert [warning.code for warning in found] == ["reference"] * unfit
    assert all("from 1.25 to 1.46 ms" in warning.text and "--against" in warning.text for warning in found)


@pytest.mark.parametrize(
    ("loads", "words"),
    [
        ([None, 0.0, 0.1], ""),
        ([0.05, 0.5, 0.3, None], "disturbed in 2 of 4 processes: others took up to 50"),
    ],
)
def test_processes_that_others_disturbed_are_marked(loads: list[float | None], words: str) -> None:
    found = neighbour_warnings(loads)
    assert [warning.code for warning in found] == ["neighbours"] * bool(words)
    assert all(warning.text.startswith(words) for warning in found)
