"""Warnings are ignored in one thread: those of the process and of other threads are not."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable

import pytest

from segcore.core.quiet import quiet


def in_a_thread(work: Callable[[], object]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def test_warnings_are_ignored_inside_and_shown_outside() -> None:
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn("inside", stacklevel=1)
            with quiet():
                warnings.warn("further inside", stacklevel=1)
            warnings.warn("inside again", stacklevel=1)
            in_a_thread(lambda: warnings.warn("meanwhile in another thread", stacklevel=1))
        warnings.warn("outside", stacklevel=1)
    assert [str(each.message) for each in seen] == ["meanwhile in another thread", "outside"]
    assert warnings.filters == before


def test_threads_that_overlap_leave_the_filters_as_they_were() -> None:
    before = list(warnings.filters)
    first_is_in, second_is_in, first_is_out = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with quiet():
            first_is_in.set()
            assert second_is_in.wait(60)
        first_is_out.set()

    thread = threading.Thread(target=first)
    thread.start()
    assert first_is_in.wait(60)
    with quiet():
        second_is_in.set()
        assert first_is_out.wait(60)
        warnings.warn("still quiet here", stacklevel=1)
    thread.join()
    assert warnings.filters == before


def test_filters_that_others_set_meanwhile_stay() -> None:
    with warnings.catch_warnings():
        with quiet():
            warnings.filterwarnings("ignore", message="theirs")
        assert warnings.filters[0][0] == "ignore"
        assert warnings.filters[0][1] is not None
        warnings.warn("theirs", stacklevel=1)
        with quiet(), warnings.catch_warnings():
            warnings.resetwarnings()
        with pytest.raises(UserWarning, match="as before"):
            warnings.warn("as before", stacklevel=1)  # the suite makes errors of warnings
