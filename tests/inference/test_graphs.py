"""When passes are recorded and replayed, without a GPU."""

from __future__ import annotations

import torch

from segcore.inference.devices import Device
from segcore.inference.runtimes import why_not
from segcore.inference.runtimes.graphs import MAX_SHAPES, Graph, GraphedNetwork


class Capture:
    """Records as CUDA does: a replay runs the same code on the same memory, whatever the arguments are."""

    def __init__(self) -> None:
        self.captured: list[tuple[int, ...]] = []

    def __call__(self, network: object, batch: torch.Tensor) -> Graph:
        self.captured.append(tuple(batch.shape))
        source, output = batch.clone(), doubled(batch)

        def replay() -> None:
            output.copy_(source * 2)

        return Graph(source, output, replay)


def doubled(batch: torch.Tensor) -> torch.Tensor:
    return batch * 2


def batch(width: int, value: float) -> torch.Tensor:
    return torch.full((1, 3, 4, width), value)


def test_a_shape_is_recorded_when_it_comes_back() -> None:
    capture = Capture()
    network = GraphedNetwork(doubled, capture)
    for count, width in enumerate([4, 5, 4, 4, 5, 4]):
        assert (network(batch(width, count)) == 2 * count).all()
    assert capture.captured == [(1, 3, 4, 4), (1, 3, 4, 5)]
    assert network.build_s > 0


def test_results_are_not_overwritten() -> None:
    network = GraphedNetwork(doubled, Capture())
    found = [network(batch(4, value)) for value in range(5)]
    assert [float(each.max()) for each in found] == [0, 2, 4, 6, 8]


def test_only_so_many_shapes_are_kept() -> None:
    capture = Capture()
    network = GraphedNetwork(doubled, capture)
    for _ in range(3):
        for width in range(4, 4 + MAX_SHAPES + 1):  # each is forgotten before it comes back
            network(batch(width, 1.0))
    assert capture.captured == []
    for _ in range(3):
        for width in range(4, 4 + MAX_SHAPES):
            network(batch(width, 1.0))
    assert len(capture.captured) == MAX_SHAPES


def test_graphs_need_an_nvidia_gpu() -> None:
    assert "NVIDIA" in str(why_not("torch-graphs", Device("cpu")))
