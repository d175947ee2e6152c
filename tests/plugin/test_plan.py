from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from segcore.core.bench_options import Choices
from segcore.core.errors import UsageError
from segcore.core.records import BenchmarkRecord, Kind, WeightsRecord
from segcore.inputs.cases import Case
from segcore.plugin.options import check_names
from segcore.plugin.plan import PlanItem, estimate_seconds, plan_items, run_order, select_cases


def case(name: str, **more: Any) -> Case:
    return Case.model_validate({"name": name, "image": {"resource": "skimage:chelsea.png"}, **more})


CASES = (
    case("a", tags=("speed", "animal"), sizes=(320, 640)),
    case("b", models=("embedded",)),
    case("c", tags=("animal",)),
)
ALL = Choices(case_dirs=(Path("cases"),))


def ids(kind: Kind, choices: Choices = ALL, devices: tuple[str, ...] = ("cpu",)) -> list[str]:
    return [item.id for item in plan_items(kind, select_cases(CASES, choices), choices, devices)]


def test_accuracy_is_judged_on_every_case_its_models_and_sizes() -> None:
    assert ids("accuracy") == [
        "a-embedded-torch-cpu-320",
        "a-embedded-torch-cpu-640",
        "b-embedded-torch-cpu-320",
        "c-embedded-torch-cpu-320",
        "a-fcn_resnet101-torch-cpu-320",
        "a-fcn_resnet101-torch-cpu-640",
        "c-fcn_resnet101-torch-cpu-320",
    ]


def test_slow_models_are_timed_on_cases_tagged_for_it() -> None:
    assert [i for i in ids("latency") if "fcn" in i] == [
        "a-fcn_resnet101-torch-cpu-320",
        "a-fcn_resnet101-torch-cpu-640",
    ]
    assert [i for i in ids("throughput") if "fcn" in i] == [
        "a-fcn_resnet101-torch-cpu-320-b1",
        "a-fcn_resnet101-torch-cpu-320-b2",
    ]
    assert len([i for i in ids("throughput") if "embedded" in i]) == 4 * 3


def test_what_is_named_goes_for_every_case() -> None:
    named = Choices((), cases=("c",), models=("lraspp_mobilenet_v3_large",), sizes=(64, 96), batches=(8,))
    assert ids("latency", named) == [
        "c-lraspp_mobilenet_v3_large-torch-cpu-64",
        "c-lraspp_mobilenet_v3_large-torch-cpu-96",
    ]
    assert ids("throughput", named) == [
        "c-lraspp_mobilenet_v3_large-torch-cpu-64-b8",
        "c-lraspp_mobilenet_v3_large-torch-cpu-96-b8",
    ]


def test_every_device_runtime_and_precision() -> None:
    choices = Choices((), cases=("b",), runtimes=("torch", "compiled"), precisions=("fp32", "bf16"))
    assert ids("latency", choices, ("cpu", "cuda:1")) == [
        f"b-embedded-{runtime}-{device}-320"
        for device in ("cpu", "cuda:1")
        for runtime in ("torch", "torch.bf16", "compiled", "compiled.bf16")
    ]


def test_threads_are_swept_in_throughput_alone() -> None:
    choices = Choices((), cases=("b",), batches=(1, 4), threads=(2, 1))
    assert ids("throughput", choices) == [
        f"b-embedded-torch-cpu-320-b{batch}-t{threads}" for threads in (2, 1) for batch in (1, 4)
    ]
    assert ids("latency", choices) == ["b-embedded-torch-cpu-320"]


def test_tags_choose_cases() -> None:
    assert [c.name for c in select_cases(CASES, Choices((), tags=("animal",)))] == ["a", "c"]
    assert [c.name for c in select_cases(CASES, Choices((), tags=("animal",), cases=("c", "b")))] == ["c"]


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (Choices((), cases=("aa",)), r"--segcore-case aa: .*there are: a, b, c"),
        (Choices((), tags=("animals",)), r"--segcore-tag animals: .*did you mean 'animal'"),
    ],
)
def test_unknown_names_get_the_nearest(choices: Choices, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        select_cases(CASES, choices)


def test_nothing_to_choose_from() -> None:
    with pytest.raises(UsageError, match="there are: none"):
        check_names("--segcore-tag", ["x"], [])


def test_the_key_is_that_of_the_record() -> None:
    kinds: tuple[Kind, ...] = ("accuracy", "latency", "throughput")
    for kind in kinds:
        for precision in ("fp32", "bf16"):
            item = PlanItem(kind, CASES[0], "embedded", "torch", precision, "cuda:1", 320, 2, "auto")
            record = BenchmarkRecord(
                kind=kind,
                case="a",
                model="embedded",
                weights=WeightsRecord(kind="random", name="", sha256=""),
                precision=precision,
                device="cuda:1",
                size=320,
                batch=2,
                input_shape=(2, 3, 320, 320),
                preprocess="",
            )
            assert item.key == record.key
            assert set(item.params) <= set(BenchmarkRecord.model_fields)
            assert replace(item, threads=3).key == record.model_copy(update={"threads": 3}).key != item.key


def test_every_model_is_loaded_once_and_judged_first() -> None:
    items = [item for kind in ("throughput", "accuracy", "latency") for item in plan_items(kind, CASES, ALL, ("cpu",))]
    order = run_order(items)
    ordered = sorted(items, key=lambda item: order[item.key])
    switches = sum(a.model_key != b.model_key for a, b in pairwise(ordered))
    assert switches == 1
    assert [item.kind for item in ordered if item.model == "embedded"] == sorted(
        (item.kind for item in ordered if item.model == "embedded"), key=["accuracy", "latency", "throughput"].index
    )
    assert sorted(order.values()) == list(range(len(items)))


@pytest.mark.parametrize(
    ("kind", "call_s", "seconds"),
    [
        ("accuracy", 2.0, 2.3),
        ("latency", 2.0, (1 + 1 + 5 + 1) * 2.0 + 0.1),
        ("latency", 0.1, (3 + 1 + 10 + 1) * 0.1 + 0.1),
    ],
)
def test_how_long_an_item_takes(kind: Kind, call_s: float, seconds: float) -> None:
    assert estimate_seconds(kind, call_s, min_rounds=5, max_time_s=1.0) == pytest.approx(seconds)
