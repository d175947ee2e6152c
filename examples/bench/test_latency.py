"""One photo from the file to its mask, timed."""


def test_latency(latency_item, benchmark):
    latency_item.warm_up()
    benchmark(latency_item)
