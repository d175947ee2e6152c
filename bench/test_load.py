"""How does a model hold up under queries, as MLPerf Inference makes them?

For example `pytest bench/test_load.py --segcore-scenario server --segcore-max-p99-ms 400 --segcore-model embedded`.
"""

import pytest

from segcore.plugin.load import LoadItem


def test_load(load_item: LoadItem) -> None:
    """Each query is one photo, or a batch of copies of it, end to end; a limit on p99 is kept."""
    found = load_item.measure()
    if found.validity not in (None, "valid"):
        pytest.fail(load_item.explain(found), pytrace=False)
