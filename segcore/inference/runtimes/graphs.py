"""torch, operator by operator, replayed as a CUDA graph for shapes that recur.

The GPU runs a small network faster than the CPU can queue its operators one by one. A graph queues all of them in one
call; the kernels are the same, and so are the bits.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch

from segcore.core.errors import ModelError
from segcore.core.system import out_of_memory
from segcore.core.text import first_line
from segcore.inference.devices import Device
from segcore.inference.process_state import alone
from segcore.inference.runtimes import eager
from segcore.inference.runtimes.session import BuildRequest

MAX_SHAPES = 8
"""Shapes that are remembered, with a graph each; the one that was used least recently goes first."""

Network = Callable[[torch.Tensor], torch.Tensor]


def refusal(device: Device, precision: str) -> str | None:
    """Return why there are no CUDA graphs on that device in that precision, None if there are."""
    if device.torch_device.type != "cuda":
        return "CUDA graphs need an NVIDIA GPU"
    return eager.refusal(device, precision)


@dataclass(frozen=True)
class Graph:
    """A recorded forward pass: replaying it reads `source` and writes `output`."""

    source: torch.Tensor
    output: torch.Tensor
    replay: Callable[[], None]

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return a copy of the output for a batch: the next replay overwrites it."""
        self.source.copy_(batch)
        self.replay()
        return self.output.clone()


class GraphedNetwork:
    """A network whose passes are recorded at the second batch of a shape and replayed from then on.

    Args:
        network: to record.
        capture: records a pass.
    """

    def __init__(self, network: Network, capture: Callable[[Network, torch.Tensor], Graph]) -> None:
        self.build_s = 0.0
        self._network = network
        self._capture = capture
        self._shapes: OrderedDict[torch.Size, Graph | None] = OrderedDict()

    def records(self, shape: torch.Size) -> bool:
        """Return whether the next batch of a shape is recorded."""
        return shape in self._shapes and self._shapes[shape] is None

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what the network returns for a batch, in memory of its own."""
        record = self.records(batch.shape)
        graph = self._shapes.pop(batch.shape, None)
        if record:
            start = time.perf_counter()
            graph = self._capture(self._network, batch)
            self.build_s += time.perf_counter() - start
        self._shapes[batch.shape] = graph
        if len(self._shapes) > MAX_SHAPES:
            self._shapes.popitem(last=False)
        return graph(batch) if graph else self._network(batch)


class CudaCapture:
    """Records passes in one pool of memory: graphs run one after the other, and their outputs are copied at once."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, network: Network, batch: torch.Tensor) -> Graph:
        """Return the recorded pass for batches like this one.

        Raises:
            ModelError: the network waits for the GPU, or does something else that cannot be recorded.
        """
        source, graph = batch.clone(), torch.cuda.CUDAGraph()
        with torch.cuda.device(batch.device):
            try:
                with torch.cuda.graph(graph, pool=self._pool):
                    output = network(source)
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                raise ModelError(
                    f"the network cannot be recorded as a CUDA graph: {first_line(error)}; --runtime torch runs it"
                ) from error
        return Graph(source, output, graph.replay)


class GraphSession(eager.EagerSession):
    """Eager execution, recorded; it runs one batch at a time, whichever thread asks: a graph has one input."""

    def __init__(self, request: BuildRequest) -> None:
        super().__init__(request)
        self._recorder = GraphedNetwork(self._network, CudaCapture())
        self._network = self._recorder
        self._turn = threading.Lock()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), float32, for a batch (B, 3, H, W)."""
        with self._turn:
            if not self._recorder.records(batch.shape):
                return super().forward(batch)
            with alone():  # what other threads ask of CUDA while one records ends the recording
                return super().forward(batch)

    @property
    def build_s(self) -> float:  # type: ignore[override]  # the base class has a constant
        """Seconds of recording so far."""
        return self._recorder.build_s

    @property
    def options(self) -> dict[str, str]:
        """Those of eager execution, and the number of shapes that have graphs at the most."""
        return {**super().options, "graphs": str(MAX_SHAPES)}


open_session = GraphSession
