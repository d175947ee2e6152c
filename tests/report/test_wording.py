"""How numbers, names and markdown are written."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segcore.core.scores import score_words
from segcore.judgement.statistics import Interval
from segcore.report.escape import plain_text
from segcore.report.wording import change_text, number, shortened, value_text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (3.0, "3"),
        (1234.0, "1,234"),
        (1234.4, "1,234"),
        (12.345, "12.3"),
        (0.0012345, "0.00123"),
        (-0.5, "-0.500"),
        (99.95, "100.0"),
        (math.nan, "n/a"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (1e-12, "0.000000000"),
    ],
)
def test_number(value: float, text: str) -> None:
    assert number(value) == text


@given(st.floats(1e-6, 1e9))
def test_number_keeps_three_digits(value: float) -> None:
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=5e-3)


def test_values_and_changes() -> None:
    assert value_text(None, "ms") == ""
    assert value_text(0.0212, "share") == "2.12%"
    assert value_text(21.46, "ms") == "21.5 ms"
    assert change_text(None, "ms") == ""
    assert change_text(Interval(0.06, 0.081, 0.1), "ms") == "+8.1% [+6.0%, +10.0%]"
    assert change_text(Interval(-0.1, 0.2, math.inf), "ms") == "+20.0% [-10.0%, ?]"
    assert change_text(Interval(-0.1, 0.2, 3.5e30), "ms") == "+20.0% [-10.0%, ?]"
    assert change_text(Interval(-0.02, -0.02, -0.02), "share") == "-2.00 pp"


@given(st.lists(st.text(max_size=12), max_size=8))
def test_short_labels_stay_apart(labels: list[str]) -> None:
    short = shortened(labels, most=5)
    assert [labels.index(label) for label in labels] == [short.index(label) for label in short]


@given(st.text())
def test_plain_text_has_no_controls(text: str) -> None:
    clean = plain_text(text)
    assert all(ord(c) >= 32 and not 127 <= ord(c) <= 159 and c not in "\u2028\u2029\u202e" for c in clean)


@pytest.mark.parametrize(
    ("score", "words"),
    [
        ("miou", "mIoU"),
        ("pixel_accuracy", "pixel accuracy"),
        ("boundary_iou", "boundary IoU"),
        ("iou cat", "IoU cat"),
        ("iou lane_marking", "IoU lane_marking"),
        ("iou iou meter", "IoU iou meter"),
    ],
)
def test_names_of_scores_keep_those_of_classes(score: str, words: str) -> None:
    assert score_words(score) == words
