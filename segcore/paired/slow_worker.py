"""A worker whose model is slower by a given share: ``python -P slow_worker.py 0.1``, for the gate's self-audit."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from segcore.paired.worker import Channel, WorkerPlugin, main


class Slowdown:
    """Extra arithmetic in the forward pass that makes a call slower by a share of its own time."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.call_s = 0.0
        """Duration of the last call without the extra work."""
        self._extra_s = 0.0

    def install(self) -> None:
        """Slow down the forward pass of every session opened from now on."""
        import segcore.inference.pipeline
        import segcore.inference.runtimes

        open_session = segcore.inference.runtimes.open_session

        def open_slow_session(*args: Any, **options: Any) -> Any:
            session = open_session(*args, **options)
            pytest.MonkeyPatch().setattr(session, "forward", self._slow(session.forward))
            return session

        pytest.MonkeyPatch().setattr(segcore.inference.pipeline, "open_session", open_slow_session)

    def _slow(self, forward: Callable[[Any], Any]) -> Callable[[Any], Any]:
        import torch

        def slow_forward(batch: Any) -> Any:
            start = time.perf_counter()
            logits = forward(batch)
            if logits.is_cuda:
                torch.cuda.synchronize()
            end = time.perf_counter()
            extra_s = self.share * (self.call_s or end - start)
            matrix = torch.full((64, 64), 1 / 64)
            while time.perf_counter() - end < extra_s:
                matrix = matrix @ matrix
            self._extra_s += time.perf_counter() - end
            return logits

        return slow_forward

    def observe(self, call: Callable[[], object]) -> None:
        """Call, and keep `call_s` up to date."""
        self._extra_s = 0.0
        start = time.perf_counter()
        call()
        self.call_s = time.perf_counter() - start - self._extra_s


class SlowWorkerPlugin(WorkerPlugin):
    """The worker's plugin with a slowdown."""

    def __init__(self, channel: Channel, start: dict[str, Any]) -> None:
        super().__init__(channel, start)
        self._slowdown = Slowdown(float(sys.argv[1]))

    def pytest_collection_finish(self) -> None:
        """Install the slowdown, now that the bench has been imported."""
        self._slowdown.install()

    def serve(self, call: Callable[[], object]) -> None:
        """Measure the slower call on request."""
        super().serve(lambda: self._slowdown.observe(call))


if __name__ == "__main__":
    main(SlowWorkerPlugin)
