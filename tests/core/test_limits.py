from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from segcore.core.limits import Limits


def test_a_number_applies_to_the_median() -> None:
    limits = Limits.model_validate({"max_slowdown": 0.1, "max_latency_ms": {"p50": 40, "p99.9": 60}})
    assert limits.slowdowns == {0.5: 0.1}
    assert limits.latencies_ms == {0.5: 40.0, 0.999: 60.0}


def test_only_limits_that_are_set_are_written() -> None:
    limits = Limits(max_drift=0.02)
    assert limits.model_dump(mode="json") == {"max_drift": 0.02}
    again = Limits.model_validate_json(limits.model_dump_json())
    assert again.over(Limits(max_drift=0.5, max_iou_drop=0.3)).model_dump() == {"max_drift": 0.02, "max_iou_drop": 0.3}


def test_a_limit_set_to_its_default_overrides_other_defaults() -> None:
    assert Limits(max_drift=0.01).over(Limits(max_drift=0.5)).max_drift == 0.01
    assert Limits().over(Limits(max_drift=0.5)).max_drift == 0.5


@pytest.mark.parametrize(
    "bad",
    [
        {"max_slowdown": {}},
        {"max_slowdown": -0.1},
        {"max_slowdown": "5%"},
        {"max_slowdown": {"p0": 0.1}},
        {"max_slowdown": {"p100": 0.1}},
        {"max_slowdown": {"median": 0.1}},
        {"max_latency_ms": 0},
        {"max_latency_ms": float("inf")},
        {"min_throughput": float("nan")},
        {"max_drift": True},
        {"max_drift": 1.5},
        {"max_iou": 0.1},
    ],
)
def test_an_invalid_limit_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(bad)
