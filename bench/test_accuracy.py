"""Is the model still right? Every case's expectations, on every model and device.

For example `pytest bench/test_accuracy.py -k chelsea`.
"""

import pytest

from segcore.plugin.items import AccuracyItem


def test_accuracy(accuracy_item: AccuracyItem) -> None:
    """Dominant class, fractions, absences and IoU are as the case's YAML says."""
    found = accuracy_item.check()
    if not found.passed:
        pytest.fail(accuracy_item.explain(found), pytrace=False)
