"""A few of the trials of `tools.kill_trial`, and what the tools about the noise between runs compute."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.support.judged_runs import a_run
from tools.run_pairs import analyse, describe, planned, upper
from tools.run_simulation import Noise, settle, simulate


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="kills forks and looks for their descendants")
@pytest.mark.parametrize("words", [["--count", "3"], ["--count", "1", "--at-once", "8"]], ids=["killed", "at-once"])
def test_a_download_survives(words: list[str]) -> None:
    command = [sys.executable, "-m", "tools.kill_trial", "fetch", *words]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": right") == int(words[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slowdown", "wanted", "least", "never"), [(0.0, "pass", 0.9, "regressed"), (0.2, "regressed", 0.9, "pass")]
)
def test_two_runs_of_four_processes_have_few_wrong_verdicts(
    slowdown: float, wanted: str, least: float, never: str
) -> None:
    verdicts = simulate(slowdown, 0.10, 200, Noise())
    assert verdicts[wanted] >= least * 200
    assert verdicts[never] == 0


@pytest.mark.parametrize(("slowdown", "verdict"), [(0.0, "pass"), (0.2, "regressed")])
def test_what_two_runs_leave_undecided_is_settled_in_turns(slowdown: float, verdict: str) -> None:
    before = Counter({"pass": 3, "regressed": 2, "inconclusive": 40})
    after = settle(before, slowdown, 0.05)
    assert after.total() == 45
    assert after[verdict] >= before[verdict] + 38
    assert settle(Counter({"pass": 3}), slowdown, 0.05) == {"pass": 3}


def test_pairs_of_runs_show_the_noise_that_they_were_drawn_with() -> None:
    noise, rng = (
        Noise(between_runs=0.02, between_processes=0.01, within=0.0, outlier_share=0.0, disturbed_share=0.0),
        np.random.default_rng(1),
    )
    runs = [a_run(noise.run(0.0, rng)[0]) for _ in range(400)]
    (found,) = analyse(list(zip(runs[::2], runs[1::2], strict=True)), 0.1)
    assert found.process_sd == pytest.approx(0.01, rel=0.1)
    assert found.run_sd == pytest.approx(0.02, rel=0.1)
    assert found.pair_sd == pytest.approx(np.hypot(0.02, 0.01 * 0.546), rel=0.1)
    assert sum(found.verdicts.values()) == found.pairs == 200
    assert "assume between runs" in describe([found])


def test_few_pairs_bound_the_noise_loosely() -> None:
    assert upper([0.01], 3) > upper([0.01], 20) > upper([0.01], 1000) > 0.01


@pytest.mark.slow
def test_changes_of_a_run_file_are_harmless() -> None:
    command = [sys.executable, "-m", "tools.hostile_values", "--step", "997"]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(" 0 wrong\n")


def test_a_chain_takes_fewer_runs_and_waits_as_often() -> None:
    first, second, slow = (0.0, False), (0.0, True), (0.2, False)
    assert planned(2, 0.2, chain=False) == [first, second, slow] * 2
    assert planned(2, 0.2, chain=True) == [first, slow, second, slow, second]
    assert planned(2, 0.0, chain=True) == [first, second, second]
    assert planned(0, 0.2, chain=True) == planned(0, 0.2, chain=False) == []
