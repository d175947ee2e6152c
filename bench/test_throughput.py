"""How many photos per second, in batches of several sizes?

For example `pytest bench/test_throughput.py --segcore-batch 8 --benchmark-sort mean`.
"""

from pytest_benchmark.fixture import BenchmarkFixture

from segcore.plugin.items import SpeedItem


def test_throughput(throughput_item: SpeedItem, benchmark: BenchmarkFixture) -> None:
    """A batch of copies of one photo end to end; a round is a batch."""
    throughput_item.warm_up()
    benchmark(throughput_item)
