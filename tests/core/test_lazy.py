"""Sequences that make their items when they are read."""

from __future__ import annotations

import pytest

from segcore.core.lazy import Lazy


def test_it_is_the_list_of_its_items() -> None:
    expected = [index * index for index in range(7)]
    found = Lazy(7, lambda index: index * index)
    assert list(found) == expected
    assert (len(found), found[2], found[-1], found[1:6:2]) == (7, 4, 36, expected[1:6:2])
    assert 25 in found
    assert not Lazy(0, lambda index: index)
    for index in (7, -8):
        with pytest.raises(IndexError):
            found[index]


def test_items_are_made_each_time_and_no_others() -> None:
    made: list[int] = []

    def make(index: int) -> int:
        made.append(index)
        return index

    found = Lazy(5, make)
    assert (found[3], found[3], found[-2:]) == (3, 3, [3, 4])
    assert made == [3, 3, 3, 4]
