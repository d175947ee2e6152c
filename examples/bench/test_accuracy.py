"""Every model sees in every case what the case says."""

import pytest


def test_accuracy(accuracy_item):
    found = accuracy_item.check()
    if not found.passed:
        pytest.fail(accuracy_item.explain(found), pytrace=False)
