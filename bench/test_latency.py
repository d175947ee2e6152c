"""How long does one photo take, from the file to the colour mask?

For example `pytest bench/test_latency.py --segcore-model embedded --benchmark-max-time 5`.
"""

from pytest_benchmark.fixture import BenchmarkFixture

from segcore.plugin.items import SpeedItem


def test_latency(latency_item: SpeedItem, benchmark: BenchmarkFixture) -> None:
    """One photo end to end; the plugin keeps the stages of every round beside it."""
    latency_item.warm_up()
    benchmark(latency_item)
