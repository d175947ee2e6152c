from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.core.records import GitRecord, Run, WeightsRecord
from segcore.judgement.history import MIN_SEGMENT, change_points, history, learned_noise
from tests.support.factories import make_machine
from tests.support.judged_runs import a_run, an_item, steady

KEY = "latency[cat-embedded-torch-cpu-320]"


def noisy(levels: Sequence[tuple[float, int]], sd: float = 0.01, seed: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    return [float(level + rng.normal(0, sd)) for level, count in levels for _ in range(count)]


@pytest.mark.parametrize(
    ("levels", "cuts"),
    [
        ([(0.0, 30)], []),
        ([(0.0, 10), (0.1, 10)], [10]),
        ([(0.0, 8), (0.2, 3), (0.0, 8)], [8, 11]),
        ([(0.0, 10), (0.1, 1), (0.0, 10)], []),
        ([(0.0, 3), (0.3, 2)], []),
        ([(0.0, 1)], []),
        ([], []),
    ],
)
def test_steps_are_found_and_single_outliers_are_not(levels: list[tuple[float, int]], cuts: list[int]) -> None:
    assert change_points(noisy(levels)) == cuts


def test_noise_alone_seldom_looks_like_a_change() -> None:
    rng = np.random.default_rng(1)
    alarms = sum(bool(change_points(rng.normal(0, 0.02, 30).tolist())) for _ in range(300))
    assert alarms / 300 < 0.06


def test_steps_below_repeatability_are_ignored() -> None:
    assert change_points([0.0] * 10 + [1e-5] * 10) == []


@given(st.lists(st.floats(-1, 1), max_size=25), st.floats(-5, 5))
def test_change_points_are_far_enough_apart_and_do_not_depend_on_the_level(values: list[float], level: float) -> None:
    cuts = change_points(values)
    edges = [0, *cuts, len(values)]
    assert all(b - a >= MIN_SEGMENT for a, b in itertools.pairwise(edges) if cuts)
    shifted = change_points([round(v, 6) + round(level, 3) for v in values])
    assert len(shifted) == len(change_points([round(v, 6) for v in values])) or max(map(abs, values), default=0) < 1e-3


def runs(seconds: Sequence[float], **fields: object) -> list[Run]:
    found = [
        a_run(
            an_item(steady(s, seed=n)),
            name=f"r{n}",
            started=f"2026-01-{n + 1:02}T00:00:00+00:00",
            git=GitRecord(commit=f"{n:040x}", branch=None, dirty=False),
            **fields,
        )
        for n, s in enumerate(seconds)
    ]
    return found[::2] + found[1::2]


def test_a_lasting_slowdown_is_marked_where_it_began() -> None:
    (series,) = history(runs([0.05] * 8 + [0.06] * 8))
    assert [point.run for point in series.points] == [f"r{n}" for n in range(16)]
    changes = {point.run: point.change for point in series.points if point.change is not None}
    assert list(changes) == ["r8"]
    assert changes["r8"] == pytest.approx(0.2, abs=0.01)
    assert series.points[0].commit == "0" * 10


def test_machines_and_weights_have_histories_of_their_own() -> None:
    other = a_run(an_item(), name="other", machine=make_machine("Other CPU"))
    retrained = a_run(an_item(weights=WeightsRecord(kind="checkpoint", name="x", sha256="00" * 32)), name="new weights")
    found = history([*runs([0.05] * 3), other, retrained])
    assert sorted((series.machine, len(series.points)) for series in found) == [
        ("Imaginary CPU (family 6), 2 threads", 1),
        ("Imaginary CPU (family 6), 2 threads", 3),
        ("Other CPU, 2 threads", 1),
    ]


def test_a_name_selects_runs_or_items() -> None:
    everything = [*runs([0.05, 0.05]), a_run(an_item(case="dog"), an_item((math.nan,), case="bad"), name="nightly")]
    assert {series.item for series in history(everything, "nightly")} == {KEY.replace("cat", "dog")}
    assert {series.item for series in history(everything, "cat-embedded")} == {KEY}
    assert len(history(everything)) == 2


def test_noise_between_processes_is_learned_from_runs_of_the_same_machine() -> None:
    rng = np.random.default_rng(0)
    several = runs([0.05 * math.exp(rng.normal(0, 0.03)) for _ in range(20)])
    info = several[0].benchmarks[0].info
    learned = learned_noise(several, make_machine(), info)
    assert learned is not None
    assert 0.02 < learned.sd < 0.04
    assert learned.source == "learned from 15 runs of this machine"
    assert learned_noise(several, make_machine("Other CPU"), info) is None
    assert learned_noise(several[:5], make_machine(), info) is None
    dogs = (an_item(steady(0.01), case="dog"),)
    others = [run.model_copy(update={"benchmarks": dogs}) for run in several]
    assert learned_noise([*several[:10], *others], make_machine(), info) == learned_noise(
        several[:10], make_machine(), info
    )


def test_two_machines_of_one_kind_have_a_series_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGCORE_MACHINE", "desk")
    paths = ("runs/x", "runs/machines/laptop", "runs/machines/server")
    runs = [
        a_run(an_item(), started=f"2026-01-0{n}").model_copy(update={"path": Path(path) / f"{n}.json"})
        for path in paths
        for n in range(1, 4)
    ]
    assert [(series.machine, len(series.points)) for series in history(runs)] == [
        (f"{name}, 2 threads", 3) for name in ("desk", "laptop", "server")
    ]
