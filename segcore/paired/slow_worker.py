"""A worker with slower calls, for the self-audit: ``python -P slow_worker.py SHARE DESCRIPTOR``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from segcore.paired.worker import WorkerPlugin, main


class SlowWorkerPlugin(WorkerPlugin):
    """The worker's plugin with a slowdown."""

    def serve(self, call: Callable[[], object], setup: Callable[[], object] | None = None) -> None:
        """Measure the slower call on request."""
        super().serve(partial(slow_call, call, float(sys.argv[1])), setup)


def slow_call(call: Callable[[], object], share: float) -> None:
    """Call, then multiply matrices for a share of the call's own time."""
    start = time.perf_counter()
    call()
    multiply_for(share * (time.perf_counter() - start))


def multiply_for(seconds: float) -> None:
    """Multiply matrices until `seconds` have passed."""
    end = time.perf_counter() + seconds
    matrix = np.full((64, 64), 1 / 64, dtype=np.float32)
    while time.perf_counter() < end:
        matrix = matrix @ matrix


if __name__ == "__main__":
    main(SlowWorkerPlugin)
