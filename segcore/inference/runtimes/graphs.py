"""torch, operator by operator, replayed as a CUDA graph for shapes that recur.

The GPU runs a small network faster than the CPU can queue its operators one by one. A graph queues all of them in one
call; the kernels are the same, and so are the bits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from segcore.core.errors import ModelError
from segcore.core.system import out_of_memory
from segcore.core.text import first_line
from segcore.inference.devices import Device
from segcore.inference.process_state import alone
from segcore.inference.recurring import Recurring
from segcore.inference.runtimes import eager
from segcore.inference.runtimes.session import BuildRequest

MAX_SHAPES = 8
"""Shapes that have a graph each; the least recently used is dropped."""

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
    """A network whose passes are recorded by `capture` at the second batch of a shape and replayed from then on."""

    def __init__(self, network: Network, capture: Callable[[Network, torch.Tensor], Graph]) -> None:
        self.build_s = 0.0
        self._network = network
        self._capture = capture
        self._graphs: Recurring[torch.Size, Graph] = Recurring(MAX_SHAPES, self._record, uses=2)

    def for_batch(self, batch: torch.Tensor) -> Network:
        """Return the graph for a batch, recorded now or before, or the network itself."""
        return self._graphs.get(batch.shape, batch) or self._network

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what the network returns for a batch, in memory of its own."""
        return self.for_batch(batch)(batch)

    def _record(self, shape: torch.Size, batch: torch.Tensor) -> Graph:
        start = time.perf_counter()
        with alone():  # what other threads ask of CUDA meanwhile ends the recording
            graph = self._capture(self._network, batch)
        self.build_s += time.perf_counter() - start
        return graph


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
        self._graphed = GraphedNetwork(self._network, CudaCapture())
        self._turn = threading.Lock()

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), float32, for a batch (B, 3, H, W)."""
        with self._turn, torch.inference_mode():
            batch = batch.to(self._dtype, memory_format=self._layout)
            self._network = self._graphed.for_batch(batch)
            self.build_s = self._graphed.build_s
            return super().forward(batch)

    @property
    def options(self) -> dict[str, str]:
        """Those of eager execution, and the largest number of shapes that have graphs."""
        return {**super().options, "graphs": str(MAX_SHAPES)}


open_session = GraphSession
