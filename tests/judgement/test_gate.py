from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.core.errors import UsageError
from segcore.core.labels import VOC, LabelSet
from segcore.core.limits import Limits
from segcore.core.records import (
    AccuracyRecord,
    Benchmark,
    CheckRecord,
    DatasetRecord,
    GitRecord,
    GpuRecord,
    LabelsRef,
    LoadRecord,
    OutcomeKind,
    OutcomeRecord,
    ProcessRecord,
    Run,
    WeightsRecord,
)
from segcore.judgement.drift import Drift
from segcore.judgement.gate import LEFT_OUT, GateResult, judge, seconds_between
from segcore.judgement.gate.verdict import EXIT_CODES, VERDICTS, Row, Verdict, worst
from segcore.judgement.statistics import ProcessNoise
from tests.support.examples import examples
from tests.support.factories import make_machine
from tests.support.judged_runs import a_run, an_item, steady

QUIET = ProcessNoise(0.003, 8, "given")
KEY = "latency[cat-embedded-torch-cpu-320]"
SEEN = "accuracy[cat-embedded-torch-cpu-320]"


def gate(old: Run, new: Run, limits: Limits | None = None, **more: Any) -> GateResult:
    noise = {b.info.key: QUIET for b in (*old.benchmarks, *new.benchmarks)}
    return judge([old], [new], limits or Limits(), noise=noise, **more)


def only(result: GateResult) -> Row:
    assert len(result.rows) == 1, result.rows
    return result.rows[0]


def machine(**changed: Any) -> dict[str, Any]:
    return {"machine": make_machine().model_copy(update=changed)}


@pytest.mark.parametrize(
    ("one", "other", "seconds"),
    [
        ("2026-01-01T00:00:00+00:00", "2026-01-01T01:00:00+00:00", 3600),
        ("2026-01-01T02:00:00+02:00", "2025-12-31T23:59:59+00:00", 1),
        ("2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00", math.inf),
        ("yesterday", "2026-01-01T00:00:00+00:00", math.inf),
    ],
)
def test_runs_of_unknown_times_are_far_apart(one: str, other: str, seconds: float) -> None:
    assert seconds_between(a_run(started=one).record, a_run(started=other).record) == seconds


def test_runs_that_are_hours_apart_may_differ_by_more() -> None:
    item = an_item(steady(), processes=tuple(ProcessRecord(samples=steady(seed=n)) for n in range(1, 4)))
    found = [
        judge([a_run(item)], [a_run(item, name="later", started=f"2026-01-01T{at}:00+00:00")], Limits())
        for at in ("00:20", "03:00")
    ]
    soon, later = (result.rows[0] for result in found)
    assert "1.2%, assumed for cpu" in soon.reason
    assert "2.5%, assumed for cpu and runs over half an hour apart" in later.reason


# ---- speed


@pytest.mark.parametrize(
    ("factor", "verdict", "code"),
    [(1.0, "pass", 0), (0.8, "improved", 0), (1.2, "regressed", 1), (1.05, "inconclusive", 3), (1.02, "pass", 0)],
)
def test_speed_against_the_default_limit(factor: float, verdict: str, code: int) -> None:
    result = gate(a_run(an_item(steady(0.05))), a_run(an_item(steady(0.05 * factor, seed=1))))
    row = only(result)
    assert (row.item, row.aspect, row.verdict, result.exit_code) == (KEY, "median", verdict, code)
    assert row.change is not None
    assert row.change.low < factor - 1 < row.change.high
    assert row.old == pytest.approx(50, rel=0.01)
    assert row.limit == "+5.0%"


def test_one_process_each_cannot_pass_five_percent_unless_the_noise_is_known_to_be_small() -> None:
    old, new = a_run(an_item(steady())), a_run(an_item(steady(seed=1)))
    row = only(judge([old], [new], Limits()))
    assert row.verdict == "inconclusive"
    assert "more rounds in one process cannot decide: about" in row.reason
    assert "9.2%, assumed for cpu" in row.reason
    assert only(judge([old], [new], Limits(max_slowdown={"p50": 0.35}))).verdict == "pass"


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "pass"), (1.15, "regressed")])
def test_several_processes_show_their_own_noise(factor: float, verdict: str) -> None:
    rng = np.random.default_rng(0)

    def arm(seconds: float) -> list[Run]:
        return [a_run(an_item(steady(seconds * math.exp(rng.normal(0, 0.01)), seed=n))) for n in range(5)]

    row = only(judge(arm(0.05), arm(0.05 * factor), Limits()))
    assert row.verdict == verdict
    assert "measured over 10 processes" in row.reason


def test_limits_of_the_case_come_before_the_defaults_and_percentiles_have_their_own() -> None:
    limits = Limits(max_slowdown={"p50": 0.5, "p90": 0.01})
    old = a_run(an_item(steady(rounds=200), limits=limits))
    new = a_run(an_item(steady(0.06, rounds=200, seed=1), limits=limits))
    rows = {row.aspect: row for row in gate(old, new).rows}
    assert {aspect: row.verdict for aspect, row in rows.items()} == {"median": "pass", "p90": "regressed"}
    plain = a_run(an_item(steady(rounds=200))), a_run(an_item(steady(0.06, rounds=200, seed=1)))
    assert gate(*plain).rows[0].verdict == "regressed"


def test_the_reason_says_how_many_rounds_a_percentile_needs() -> None:
    limits = Limits(max_slowdown={"p99": 0.5})
    row = only(gate(a_run(an_item()), a_run(an_item(steady(seed=1))), limits))
    assert row.verdict == "inconclusive"
    assert "40 rounds cannot bound the p99: about 383 would" in row.reason


def test_the_reason_says_when_more_rounds_would_decide() -> None:
    old, new = a_run(an_item(steady(sd=0.2))), a_run(an_item(steady(sd=0.2, seed=1)))
    row = only(judge([old], [new], Limits(), noise={KEY: ProcessNoise(0.0, math.inf, "none")}))
    assert row.verdict == "inconclusive"
    assert "more rounds would decide" in row.reason


@pytest.mark.parametrize(
    ("limits", "aspect", "verdict"),
    [
        (Limits(max_latency_ms={"p50": 60}), "median latency", "pass"),
        (Limits(max_latency_ms={"p50": 40}), "median latency", "regressed"),
        (Limits(max_latency_ms={"p50": 50}), "median latency", "inconclusive"),
        (Limits(max_latency_ms={"p90": 60}), "p90 latency", "pass"),
    ],
)
def test_absolute_limits_need_no_comparable_baseline(limits: Limits, aspect: str, verdict: Verdict) -> None:
    new = a_run(an_item(limits=limits))
    for old, code in (
        (a_run(an_item()), EXIT_CODES[verdict]),
        (a_run(an_item(), **machine(cpu="Another CPU")), 1 if verdict == "regressed" else 3),
        (a_run(an_item(case="another"), an_item()), 1),  # which is missing
    ):
        result = gate(old, new)
        assert {row.aspect: row.verdict for row in result.rows if row.item == KEY}[aspect] == verdict
        assert result.exit_code == code


@pytest.mark.parametrize(
    ("kind", "limits", "aspects"),
    [
        ("latency", Limits(max_latency_ms={"p50": 60}, min_throughput=1e6), {"median latency"}),
        ("throughput", Limits(max_latency_ms={"p50": 1}, min_throughput=15), {"throughput"}),
        ("throughput", Limits(max_latency_ms={"p50": 1}), set()),
        ("latency", Limits(min_throughput=1e6), set()),
    ],
)
def test_an_absolute_limit_holds_for_its_kind_of_items(kind: str, limits: Limits, aspects: set[str]) -> None:
    item = an_item(kind=kind, batch=4 if kind == "throughput" else 1, limits=limits)
    result = gate(a_run(item), a_run(item))
    assert {row.aspect for row in result.rows} - {"median"} == aspects
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("samples", "limits", "verdict"),
    [
        ((1.407,), Limits(max_latency_ms={"p50": 1}), "regressed"),
        ((0.2, 0.3, 0.25), Limits(max_latency_ms={"p99": 199}), "regressed"),
        ((0.2, 0.3, 0.25), Limits(max_latency_ms={"p50": 201}), "inconclusive"),
        ((0.001, 0.002), Limits(max_latency_ms={"p50": 5}), "inconclusive"),
    ],
)
def test_a_limit_that_every_round_breaks_is_broken_however_few_they_are(
    samples: tuple[float, ...], limits: Limits, verdict: Verdict
) -> None:
    rows = judge([a_run(an_item(case="other"))], [a_run(an_item(samples, limits=limits))], Limits()).rows
    assert [row.verdict for row in rows if row.item == KEY] == [verdict]


def test_throughput_counts_images_not_batches() -> None:
    item = an_item(steady(0.1), kind="throughput", batch=4, limits=Limits(min_throughput=30))
    row = next(r for r in gate(a_run(item), a_run(item)).rows if r.aspect == "throughput")
    assert row.new == pytest.approx(40, rel=0.01)
    assert row.verdict == "pass"


# ---- fail closed


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 0.0, -1.0])
@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("kind", ["latency", "accuracy"])
def test_a_time_that_is_not_a_positive_number_never_passes(bad: float, side: str, kind: str) -> None:
    good, spoilt = an_item(kind=kind), an_item((*steady(), bad), kind=kind)
    result = gate(a_run(spoilt if side == "old" else good), a_run(spoilt if side == "new" else good))
    assert only(result).verdict == "missing"
    assert result.exit_code == 1


def test_an_empty_sample_is_missing() -> None:
    assert only(gate(a_run(an_item()), a_run(an_item(())))).verdict == "missing"


@pytest.mark.parametrize(
    ("new", "reason"),
    [
        (a_run(), "the current run does not have it; --accept-changed-limits accepts that"),
        (a_run(complete=False), "it was interrupted"),
        (
            a_run(outcomes=(OutcomeRecord(item="t", kind="latency", outcome="skipped", reason="no weights", key=KEY),)),
            "skipped in the current run: no weights",
        ),
        (
            a_run(outcomes=(OutcomeRecord(item="t", kind="latency", outcome="error", reason="boom", key=KEY),)),
            "error in the current run: boom",
        ),
    ],
)
def test_an_item_absent_from_the_current_run_is_missing(new: Run, reason: str) -> None:
    result = gate(a_run(an_item()), new)
    assert only(result).verdict == "missing"
    assert reason in only(result).reason
    assert result.exit_code == 1


@pytest.mark.parametrize(
    "lookalike", [{"runtime": "openvino"}, {"precision": "int8"}, {"device": "cuda"}, {"threads": 2}]
)
def test_a_dropped_item_is_missing_although_a_new_one_resembles_it(lookalike: dict[str, Any]) -> None:
    kept, dropped = an_item(case="dog"), an_item(kind="throughput", batch=2)
    new = an_item(kind="throughput", batch=2, **lookalike)
    result = gate(a_run(kept, dropped), a_run(kept, new))
    assert {row.item: row.verdict for row in result.rows} == {kept.info.key: "pass", dropped.info.key: "missing"}
    assert result.exit_code == 1


def test_two_dropped_items_are_not_one_new_one() -> None:
    old = a_run(an_item(), an_item(runtime="openvino"))
    result = gate(old, a_run(an_item(runtime="onnxruntime")))
    assert [row.verdict for row in result.rows] == ["missing", "missing"]


DOG = an_item(case="dog", tags=("speed",))
BATCHES = an_item(kind="throughput", batch=4)


def ran(file: str, *items: Benchmark) -> tuple[OutcomeRecord, ...]:
    """Outcomes of items whose tests are in a file."""
    return tuple(
        OutcomeRecord(item=f"{file}::{b.info.case}", kind=b.info.kind, outcome="passed", key=b.info.key) for b in items
    )


@pytest.mark.parametrize(
    ("old", "record", "code", "missing", "left_out"),
    [
        ((an_item(), DOG), {}, 1, 1, 0),
        ((an_item(), DOG), {"deselected": (DOG.info.key,)}, 0, 0, 1),
        ((an_item(), DOG), {"deselected": ("latency[another]",)}, 1, 1, 0),
        ((an_item(), DOG), {"paths": ("bench/accuracy.py", "bench/speed.py::cat")}, 0, 0, 1),
        ((an_item(), DOG), {"paths": ("bench/sp",)}, 0, 0, 1),
        ((an_item(), DOG), {"paths": ("bench/speed.py::dog",)}, 1, 1, 0),
        ((an_item(), DOG), {"paths": ("bench/speed.py",)}, 1, 1, 0),
        ((an_item(), DOG), {"paths": ("other", "bench")}, 1, 1, 0),
        ((an_item(), DOG), {"selection": {"case": ("cat",)}}, 0, 0, 1),
        ((an_item(), DOG), {"selection": {"case": ("cat", "dog")}}, 1, 1, 0),
        ((an_item(tags=("a",)), DOG), {"selection": {"tag": ("a",)}}, 0, 0, 1),
        ((an_item(), DOG), {"selection": {"batch": ("1",), "model": ("embedded",)}}, 1, 1, 0),
        ((an_item(), BATCHES), {"selection": {"batch": ("1",)}}, 0, 0, 1),
        ((an_item(), an_item(size=640)), {"selection": {"size": ("320",)}}, 0, 0, 1),
        ((an_item(), an_item(runtime="openvino")), {"selection": {"runtime": ("torch",)}}, 0, 0, 1),
        ((DOG,), {"selection": {"case": ("cat",)}}, 1, 1, 0),  # nothing of the baseline was selected
        ((), {}, 3, 0, 0),
    ],
)
def test_what_the_command_line_leaves_out_is_not_missing(
    old: tuple[Benchmark, ...], record: dict[str, Any], code: int, missing: int, left_out: int
) -> None:
    limits = Limits(max_latency_ms={"p50": 1000})
    before = a_run(*old, outcomes=ran("bench/speed.py", *old))
    result = gate(before, a_run(an_item(steady(seed=1), limits=limits), **record))
    assert result.exit_code == code
    assert result.counts.get("missing", 0) == missing
    assert sum(note.startswith("not selected") for note in result.notes) == left_out


def test_paths_say_nothing_of_a_baseline_whose_items_are_elsewhere() -> None:
    old, new = an_item(), an_item(steady(seed=1))
    for place, code in (("bench/speed.py", 0), ("speed.py", 1)):
        before = a_run(old, DOG, outcomes=(*ran(place, old), *ran(place.replace("speed", "other"), DOG)))
        after = a_run(new, outcomes=ran("bench/speed.py", new), paths=("bench/speed.py",))
        assert gate(before, after).exit_code == code


@pytest.mark.parametrize(("outcome", "verdict"), [("failed", "regressed"), ("error", "missing")])
def test_a_test_that_ended_badly_counts_even_without_a_baseline(outcome: OutcomeKind, verdict: str) -> None:
    bad = OutcomeRecord(item="bench/t.py::new", kind="latency", outcome=outcome, reason="boom")
    result = gate(a_run(an_item()), a_run(an_item(steady(seed=1)), outcomes=(bad,)))
    assert {row.item: row.verdict for row in result.rows} == {KEY: "pass", "bench/t.py::new": verdict}
    assert result.exit_code == 1


def test_a_skip_without_a_baseline_is_no_failure() -> None:
    skipped = OutcomeRecord(item="t", kind="latency", outcome="skipped", reason="no GPU", key="latency[other]")
    assert gate(a_run(an_item()), a_run(an_item(steady(seed=1)), outcomes=(skipped,))).exit_code == 0


def test_an_item_that_only_some_processes_have_is_missing() -> None:
    old, new = a_run(an_item()), a_run(an_item(), an_item(case="dog"))
    rows = judge([old, old], [new, old], Limits()).rows
    assert [(row.item, row.verdict) for row in rows if "dog" in row.item] == [
        ("latency[dog-embedded-torch-cpu-320]", "missing")
    ]
    assert "1 of the 2 processes of the current run" in rows[-1].reason


def test_a_new_item_is_noted_and_does_not_fail() -> None:
    result = gate(a_run(an_item()), a_run(an_item(steady(seed=1)), an_item(case="dog")))
    assert result.exit_code == 0
    assert result.notes == ("new, not in the baseline: latency[dog-embedded-torch-cpu-320]",)


def test_a_new_item_that_is_a_nan_fails() -> None:
    assert gate(a_run(an_item()), a_run(an_item(), an_item((math.nan,), case="dog"))).exit_code == 1


def test_nothing_to_judge_is_an_error_and_nothing_judged_is_undecided() -> None:
    with pytest.raises(UsageError, match="nothing to judge"):
        gate(a_run(), a_run())
    assert gate(a_run(), a_run(an_item())).exit_code == 3


def test_an_interrupted_run_never_passes() -> None:
    assert gate(a_run(an_item()), a_run(an_item())).exit_code == 0
    result = gate(a_run(an_item()), a_run(an_item(), complete=False))
    assert [row.verdict for row in result.rows] == ["pass", "missing"]
    assert result.exit_code == 1


def test_interruptions_and_warnings_of_the_runs_are_notes() -> None:
    notes = gate(a_run(an_item(), complete=False, name="old"), a_run(an_item(), warnings=("busy",), name="new")).notes
    assert notes == ("the baseline old was interrupted and is incomplete", "the current run new: busy")


# ---- incomparable


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"cpu": "Other CPU"}, "cpu was Imaginary CPU (family 6), is Other CPU"),
        ({"cores_usable": 8}, "cores usable was 2, is 8"),
        ({"cgroup_cpus": 1.5}, "cgroup cpus was None, is 1.5"),
        ({"instruction_sets": ("avx2", "avx512f")}, "instruction sets now without fma, with avx512f"),
        ({"gpus": (GpuRecord(name="H100", driver="550"),)}, "gpus was none, is H100 550 None"),
        ({"torch": "9.9"}, "torch was 2.9.0, is 9.9"),
        ({"torch_build": "BLAS_INFO=open; x"}, "torch build now without BLAS_INFO=mkl, with BLAS_INFO=open, with x"),
        ({"intra_op_threads": 1}, "intra op threads was 2, is 1"),
        ({"thread_settings": {"OMP_NUM_THREADS": "1"}}, "OMP_NUM_THREADS was 2, is 1"),
        ({"thread_settings": {}}, "OMP_NUM_THREADS was 2, is not set"),
    ],
)
def test_another_machine_is_incomparable_in_speed_and_not_in_accuracy(changed: dict[str, Any], words: str) -> None:
    old, new = (
        a_run(an_item(), an_item(kind="accuracy")),
        a_run(an_item(), an_item(kind="accuracy"), **machine(**changed)),
    )
    result = gate(old, new)
    rows = {row.item: row for row in result.rows}
    assert (rows[KEY].verdict, rows[KEY].reason) == ("incomparable", words)
    assert rows[SEEN].verdict == "pass"
    assert result.exit_code == 3


@pytest.mark.parametrize("kind", ["latency", "accuracy"])
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"photo_sha256": "cd" * 32}, "photo was abababababab, is cdcdcdcdcdcd"),
        ({"preprocess": "new"}, "preprocess was as ever, is new"),
        ({"precision": "bf16"}, "precision was fp32, is bf16"),
        ({"device": "cuda"}, "device was cpu, is cuda"),
        ({"runtime": "openvino"}, "runtime was torch, is openvino"),
    ],
)
def test_a_change_of_what_runs_is_incomparable(kind: str, changed: dict[str, Any], words: str) -> None:
    result = gate(
        a_run(an_item(kind=kind, photo_sha256="ab" * 32)),
        a_run(an_item(kind=kind, **{"photo_sha256": "ab" * 32, **changed})),
    )
    assert only(result).verdict == "incomparable"
    assert words in only(result).reason
    assert result.exit_code == 3


@pytest.mark.parametrize("kind", ["latency", "accuracy"])
@pytest.mark.parametrize(("byte", "code"), [("ab", 3), ("cd", 0)])
def test_what_another_model_file_says_of_its_input_is_judged(kind: str, byte: str, code: int) -> None:
    file = {"file": "mine.yaml", "source": "python"}
    old = an_item(kind=kind, model_file={**file, "sha256": "ab" * 32})
    new = an_item(kind=kind, model_file={**file, "sha256": byte * 32}, preprocess="new")
    assert gate(a_run(old), a_run(new)).exit_code == code


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_photo_of_unknown_hash_is_no_difference(side: str) -> None:
    known, unknown = a_run(an_item(photo_sha256="ab" * 32)), a_run(an_item())
    assert gate(*((known, unknown) if side == "old" else (unknown, known))).exit_code == 0


def weights(kind: str = "pretrained", byte: str = "ab") -> WeightsRecord:
    return WeightsRecord.model_validate({"kind": kind, "name": "w", "sha256": byte * 32})


@pytest.mark.parametrize(
    ("old", "new", "miou", "seconds", "code"),
    [
        (weights(), weights(byte="cd"), 0.7, 0.05, 0),
        (weights(), weights(byte="cd"), 0.6, 0.05, 1),
        (weights(), weights(byte="cd"), 0.7, 0.06, 1),
        (weights(), weights("checkpoint", "cd"), 0.8, 0.05, 0),
        (weights(), weights("checkpoint", "cd"), 0.6, 0.05, 1),
        (weights("checkpoint"), weights("checkpoint", "cd"), 0.6, 0.05, 1),
        (weights("random"), weights(byte="cd"), 0.7, 0.05, 3),
        (weights(), weights("random", "cd"), 0.7, 0.05, 3),
        (weights(), weights("random", "cd"), 0.7, 0.06, 1),
    ],
)
def test_new_weights_are_judged_in_scores_and_times(
    old: WeightsRecord, new: WeightsRecord, miou: float, seconds: float, code: int
) -> None:
    result = gate(
        a_run(an_item(weights=old), an_item(kind="accuracy", weights=old, accuracy=seen(miou=0.7))),
        a_run(
            an_item(steady(seconds, seed=1), weights=new),
            an_item(kind="accuracy", weights=new, accuracy=seen(miou=miou)),
        ),
        drift={SEEN: Drift(0.5, 0.0, 0.5)},
    )
    assert result.exit_code == code
    assert not [row for row in result.rows if row.aspect == "changed pixels"]
    (changed,) = [note for note in result.notes if note.startswith("weights of embedded")]
    assert "abababababab" in changed
    assert new.sha256[:12] in changed
    assert any("50.00%" in note for note in result.notes)


@pytest.mark.parametrize(
    ("limits", "verdict"), [({}, None), ({"max_drift": 0.6}, "pass"), ({"max_drift": 0.4}, "regressed")]
)
def test_drift_between_different_weights_is_judged_on_request(limits: dict[str, float], verdict: str | None) -> None:
    weights = [WeightsRecord(kind="pretrained", name=name, sha256=name * 64) for name in "ab"]
    old, new = (a_run(an_item(kind="accuracy", accuracy=seen(), weights=each)) for each in weights)
    result = gate(old, new, Limits.model_validate(limits), drift={SEEN: Drift(0.5, 0.0, 0.5)})
    assert [row.verdict for row in result.rows if row.aspect == "changed pixels"] == [verdict] * bool(verdict)
    assert any("not judged between different weights" in note for note in result.notes) == (verdict is None)


def test_what_a_run_says_it_left_out_is_missing_where_all_is_required() -> None:
    before = a_run(an_item(), DOG)
    after = a_run(an_item(steady(seed=1)), deselected=(DOG.info.key,))
    for require_all, reasons in ((False, []), (True, [LEFT_OUT])):
        rows = gate(before, after, require_all=require_all).rows
        assert [row.reason for row in rows if row.verdict == "missing"] == reasons


@pytest.mark.parametrize(
    ("commit", "dirty", "noted"), [("a" * 40, False, 0), ("b" * 40, False, 1), ("a" * 40, True, 1)]
)
def test_another_commit_is_noted_with_both_hashes(commit: str, dirty: bool, noted: int) -> None:
    old, new = (
        a_run(an_item(), git=GitRecord(commit=name, branch=None, dirty=changed))
        for name, changed in (("a" * 40, False), (commit, dirty))
    )
    notes = [note for note in gate(old, new).notes if note.startswith("commit was aaaaaaaaaa")]
    assert len(notes) == noted
    assert all(commit[:10] in note.partition(", is ")[2] for note in notes)


def test_an_item_of_one_device_is_missing_where_the_other_device_has_its_own() -> None:
    cpu, cuda = an_item(), an_item(device="cuda")
    assert {r.item: r.verdict for r in gate(a_run(cpu, cuda), a_run(cpu)).rows}[cuda.info.key] == "missing"


def seen(**fields: Any) -> AccuracyRecord:
    return AccuracyRecord.model_validate({"dominant": "cat", "fractions": {"cat": 0.4}, **fields})


def dataset(**fields: Any) -> DatasetRecord:
    record = {"name": "voc", "sha256": "a", "images": 9, "protocol": "p", "scores": {}, "intervals": {}}
    return DatasetRecord.model_validate({**record, **fields})


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ({"accuracy": seen(metric="a")}, {"accuracy": seen(metric="b")}, "metric was a, is b"),
        ({"dataset": dataset()}, {"dataset": dataset(protocol="q")}, "protocol was p, is q"),
        ({"dataset": dataset()}, {"dataset": dataset(images=8)}, "images was 9, is 8"),
        ({"dataset": dataset()}, {}, "protocol was p, is none"),
    ],
)
def test_another_convention_is_incomparable(old: dict[str, Any], new: dict[str, Any], words: str) -> None:
    row = only(gate(a_run(an_item(kind="accuracy", **old)), a_run(an_item(kind="accuracy", **new))))
    assert row.verdict == "incomparable"
    assert words in row.reason


# ---- a change cannot loosen its own judge


def timed(seed: int, **limits: Any) -> Benchmark:
    return an_item(steady(0.05, seed=seed), limits=Limits(**limits))


def check(least: float | None = 0.3, most: float | None = None, **fields: Any) -> CheckRecord:
    record = {"name": "fraction of cat", "wanted": f"{least} to {most}", "found": "0.4", "passed": True}
    return CheckRecord.model_validate({**record, "least": least, "most": most, **fields})


DOMINANT = check(None, name="dominant class", wanted="cat")
OLD_CHECK = check(None, wanted="at least 30 %")  # as in runs of schema version 2


@pytest.mark.parametrize(
    ("old", "new", "aspect"),
    [
        ({}, {}, None),
        ({"max_slowdown": 0.1}, {"max_slowdown": 0.1}, None),
        ({"max_slowdown": 0.1}, {"max_slowdown": 0.08}, None),
        ({}, {"max_slowdown": 0.3}, "limits"),
        ({"max_slowdown": 0.1}, {"max_slowdown": 0.2}, "limits"),
        ({"max_slowdown": 0.1}, {}, None),
        ({"max_slowdown": {"p50": 0.1}}, {"max_slowdown": {"p90": 0.1}}, "limits"),
        ({"max_latency_ms": 60.0}, {"max_latency_ms": 600.0}, "limits"),
        ({"max_latency_ms": 60.0}, {}, "limits"),
        ({}, {"max_latency_ms": 60.0}, None),
        ({}, {"max_miou_drop": 1.0}, None),  # has no effect on a latency item
    ],
)
def test_a_loosened_limit_is_a_regression(old: dict[str, Any], new: dict[str, Any], aspect: str | None) -> None:
    before, after = a_run(timed(0, **old)), a_run(timed(1, **new))
    rows = {row.aspect: row.verdict for row in gate(before, after).rows if EXIT_CODES[row.verdict] == 1}
    assert rows == ({aspect: "regressed"} if aspect else {})
    accepted = gate(before, after, accept_changed_limits=True)
    assert not any(EXIT_CODES[row.verdict] == 1 for row in accepted.rows)
    assert any(note.startswith("loosened") for note in accepted.notes) == bool(aspect)


def test_the_limit_of_the_baseline_judges_unless_that_is_accepted() -> None:
    before, after = a_run(an_item()), a_run(an_item(steady(0.06, seed=1), limits=Limits(max_slowdown={"p50": 0.5})))
    assert {row.aspect: row.verdict for row in gate(before, after).rows} == {
        "median": "regressed",
        "limits": "regressed",
    }
    assert gate(before, after, accept_changed_limits=True).exit_code == 0


@pytest.mark.parametrize(
    ("old", "new", "loose"),
    [
        ((check(),), (check(),), 0),
        ((check(),), (check(0.4),), 0),
        ((check(),), (check(0.3, 0.9),), 0),
        ((check(),), (check(0.2),), 1),
        ((check(),), (), 1),
        ((check(),), (check(None, 0.9),), 1),
        ((check(0.3, 0.9),), (check(0.3, None),), 1),
        ((check(0.3, 0.9),), (check(0.3, 0.95),), 1),
        ((DOMINANT,), (DOMINANT,), 0),
        ((DOMINANT,), (check(None, name="dominant class", wanted="dog"),), 1),
        ((DOMINANT, check()), (), 2),
        ((), (check(),), 0),
        ((OLD_CHECK,), (check(wanted="at least 30 %"),), 0),
        ((OLD_CHECK,), (check(0.2, wanted="at least 20 %"),), 1),
        ((check(name="absence of dog"),), (check(name="fraction of dog"),), 1),
    ],
)
def test_a_removed_or_loosened_check_is_a_regression(
    old: tuple[CheckRecord, ...], new: tuple[CheckRecord, ...], loose: int
) -> None:
    before, after = (a_run(an_item(kind="accuracy", accuracy=seen(checks=checks))) for checks in (old, new))
    result = gate(before, after)
    assert result.counts.get("regressed", 0) == loose
    assert gate(before, after, accept_changed_limits=True).exit_code == 0


@pytest.mark.parametrize(
    ("current", "code", "accepted"),
    [
        ({}, 1, 0),  # dropped, or renamed
        ({"outcomes": ("skipped", True)}, 1, 0),  # skip_reason
        ({"outcomes": ("skipped", False)}, 1, 1),  # no weights, no network
        ({"outcomes": ("error", False)}, 1, 1),
        ({"complete": False}, 1, 1),
    ],
)
def test_a_dropped_case_is_missing_unless_that_is_accepted(current: dict[str, Any], code: int, accepted: int) -> None:
    if "outcomes" in current:
        outcome, by_case = current["outcomes"]
        record = OutcomeRecord(
            item="t", kind="latency", outcome=outcome, reason="r", key=DOG.info.key, skipped_by_case=by_case
        )
        current = {"outcomes": (record,)}
    before, after = a_run(an_item(), DOG), a_run(an_item(steady(seed=1)), an_item(case="renamed"), **current)
    assert gate(before, after).exit_code == code
    assert gate(before, after, accept_changed_limits=True).exit_code == accepted


# ---- accuracy


def accuracy(old: dict[str, Any], new: dict[str, Any], **more: Any) -> dict[str, str]:
    before = a_run(an_item(kind="accuracy", accuracy=seen(**old)))
    result = gate(before, a_run(an_item(kind="accuracy", accuracy=seen(**new))), **more)
    return {row.aspect: row.verdict for row in result.rows}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"miou": 0.7}, {"miou": 0.7}, {"mIoU": "pass"}),
        ({"miou": 0.7}, {"miou": 0.695}, {"mIoU": "pass"}),
        ({"miou": 0.7}, {"miou": 0.68}, {"mIoU": "regressed"}),
        ({"miou": 0.7}, {"miou": 0.8}, {"mIoU": "improved"}),
        ({"miou": 0.7}, {}, {"mIoU": "missing"}),
        ({"iou": {"cat": 0.7, "dog": 0.5}}, {"iou": {"cat": 0.5}}, {"IoU cat": "regressed", "IoU dog": "missing"}),
        ({"pixel_accuracy": 0.9}, {"pixel_accuracy": 0.8}, {"pixel accuracy": "regressed"}),
    ],
)
def test_scores_may_not_fall(old: dict[str, Any], new: dict[str, Any], expected: dict[str, str]) -> None:
    assert accuracy(old, new) == {**expected, "dominant class": "pass"}


def test_the_allowed_drop_is_a_limit_like_others() -> None:
    found = accuracy(
        {"miou": 0.7, "iou": {"cat": 0.7}}, {"miou": 0.6, "iou": {"cat": 0.6}}, limits=Limits(max_miou_drop=0.2)
    )
    assert found == {"mIoU": "pass", "IoU cat": "regressed", "dominant class": "pass"}


def test_without_labels_the_dominant_class_may_not_change() -> None:
    assert accuracy({}, {"dominant": "dog"}) == {"dominant class": "regressed"}


def test_an_expectation_that_does_not_hold_has_regressed_even_if_it_never_held() -> None:
    failed = CheckRecord(name="dominant", wanted="cat", found="dog", passed=False)
    assert accuracy({"checks": (failed,)}, {"checks": (failed,)}) == {"dominant": "regressed"}


@pytest.mark.parametrize(
    ("drift", "verdict"),
    [
        (Drift(0.0, 0.0, 0.0), "pass"),
        (Drift(0.3, 0.295, 0.005), "pass"),
        (Drift(0.02, 0.0, 0.02), "regressed"),
        (Drift(math.nan, math.nan, math.nan), "regressed"),
        ("the file is gone", "missing"),
    ],
)
def test_drift_is_judged_without_labels(drift: Drift | str, verdict: str) -> None:
    assert accuracy({}, {}, drift={SEEN: drift}) == {"changed pixels": verdict}


def test_of_several_processes_the_worst_counts() -> None:
    good, bad = (a_run(an_item(kind="accuracy", accuracy=seen(miou=m))) for m in (0.7, 0.5))
    rows = judge([good], [good, bad, good], Limits()).rows
    assert [row.verdict for row in rows if row.aspect == "mIoU"] == ["regressed"]


# ---- properties

times = st.lists(st.floats(0.02, 1.0), min_size=1, max_size=40)


@given(old=times, new=times)
def test_swapping_the_arms_mirrors_the_verdict(old: list[float], new: list[float]) -> None:
    there = only(gate(a_run(an_item(old)), a_run(an_item(new))))
    back = only(gate(a_run(an_item(new)), a_run(an_item(old))))
    if there.verdict == "regressed":
        assert back.verdict == "improved"
    assert there.change is not None
    assert back.change is not None
    if there.change.high < 1e6:
        assert (1 + there.change.value) * (1 + back.change.value) == pytest.approx(1)
        assert (1 + there.change.high) * (1 + back.change.low) == pytest.approx(1)


@given(old=times, new=times, factor=st.floats(0.01, 100))
def test_the_unit_of_time_does_not_matter(old: list[float], new: list[float], factor: float) -> None:
    rows = [
        only(gate(a_run(an_item([x * f for x in old])), a_run(an_item([x * f for x in new])))) for f in (1.0, factor)
    ]
    if rows[0].change is not None and abs(rows[0].change.high - 0.05) > 1e-6 and abs(rows[0].change.low - 0.05) > 1e-6:
        assert rows[0].verdict == rows[1].verdict or abs(rows[0].change.high) < 1e-9


@given(data=st.data(), spoil=st.sampled_from([math.nan, math.inf, 0.0, -0.1]))
def test_a_nan_anywhere_never_passes(data: st.DataObject, spoil: float) -> None:
    samples = data.draw(times)
    where = data.draw(st.integers(0, len(samples)))
    spoilt = [*samples[:where], spoil, *samples[where:]]
    for old, new in ((samples, spoilt), (spoilt, samples), (spoilt, spoilt)):
        assert gate(a_run(an_item(old)), a_run(an_item(new)), Limits(max_slowdown={"p50": 1e6})).exit_code == 1


@examples(50)
@given(st.lists(st.sampled_from(VERDICTS)))
def test_the_exit_code_is_that_of_the_worst(verdicts: Sequence[Any]) -> None:
    rows = tuple(Row("item", "median", verdict, "") for verdict in verdicts)
    result = GateResult("old", "new", rows)
    assert result.exit_code == (EXIT_CODES[worst(rows).verdict] if rows else 3)
    assert sum(result.counts.values()) == len(rows)


def test_judging_needs_no_torch_and_no_pytest() -> None:
    program = (
        "import sys, segcore.judgement.gate, segcore.judgement.compare, segcore.judgement.history\n"
        "import segcore.report.gate, segcore.results.store\n"
        "print([m for m in ('torch', 'torchvision', 'pytest', 'matplotlib', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_two_large_runs_are_judged_with_few_sorts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work grows with items and samples, not with their product: each sample is sorted a few times at most."""
    sorts = 0
    plain = np.sort

    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal sorts
        sorts += 1
        return plain(*args, **kwargs)

    monkeypatch.setattr(np, "sort", counted)
    items: list[Benchmark] = [an_item(steady(rounds=500, seed=n), case=f"c{n}") for n in range(50)]
    gate(a_run(*items), a_run(*items))
    assert sorts <= 4 * len(items)


def load_item(samples: Sequence[float], rate: float | None = None) -> Benchmark:
    return an_item(samples, kind="load", scenario="server", load=LoadRecord(seed=0, rate=rate, queries=len(samples)))


def test_load_items_are_judged_by_their_samples() -> None:
    row = only(gate(a_run(load_item(steady(0.05))), a_run(load_item(steady(0.06, seed=1)))))
    assert (row.item, row.aspect, row.verdict) == ("load[cat-embedded-torch-cpu-320-server]", "median", "regressed")
    limits = Limits(max_latency_ms={"p50": 40}, min_throughput=1e6)  # of latency and throughput items alone
    absolute = gate(a_run(load_item(steady(0.05))), a_run(load_item(steady(0.05, seed=1))), limits)
    assert [(row.aspect, row.verdict) for row in absolute.rows] == [("median", "pass"), ("median latency", "regressed")]


def test_loads_at_other_rates_are_incomparable() -> None:
    row = only(gate(a_run(load_item(steady(), 5.0)), a_run(load_item(steady(), 6.0))))
    assert row.verdict == "incomparable"
    assert "rate was 5.0, is 6.0" in row.reason


def test_other_threads_are_incomparable() -> None:
    one, two = (
        a_run(an_item(kind="throughput", threads=threads, runtime_options={"threads": str(threads)}))
        for threads in (1, 2)
    )
    result = judge([one], [two], Limits())
    assert result.exit_code == 3
    assert any("threads was 1, is 2" in row.reason for row in result.rows)
    assert judge([one], [one], Limits()).rows[0].item.endswith("-b1-t1]")


# Label sets


@pytest.mark.parametrize("kind", ["latency", "accuracy"])
def test_another_label_set_is_incomparable(kind: str) -> None:
    own = LabelsRef.of(LabelSet("own", VOC.names))  # the same names, and no background
    fields: dict[str, Any] = {"kind": kind, "accuracy": seen(miou=0.7) if kind == "accuracy" else None}
    (row,) = gate(a_run(an_item(**fields)), a_run(an_item(labels=own, **fields))).rows
    assert row.verdict == "incomparable"
    assert f"labels were voc (21 classes, sha256 {VOC.digest[:12]}), are own (21 classes" in row.reason
    same = LabelsRef.of(LabelSet("renamed", VOC.names, background=0))
    assert all(
        row.verdict == "pass" for row in gate(a_run(an_item(**fields)), a_run(an_item(labels=same, **fields))).rows
    )
