"""LiteRT (TensorFlow Lite) on the CPU: runs .tflite files as they are."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter

from segcore.inference.devices import Device
from segcore.inference.process_state import alone
from segcore.inference.runtimes.export import model_file
from segcore.inference.runtimes.file_model import Array, failures
from segcore.inference.runtimes.session import BuildRequest


def refusal(device: Device, precision: str) -> str | None:
    """Return why LiteRT does not run in that precision on that device, None if it does."""
    return None if device.torch_device.type == "cpu" else "segcore runs LiteRT on the CPU only"


@contextlib.contextmanager
def _without_notes() -> Iterator[None]:
    """Drop what LiteRT writes to standard error in the body: that it uses XNNPACK; its errors are exceptions."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with Path(os.devnull).open("wb") as nowhere:
        sys.stderr.flush()
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class LiteRtSession:
    """An interpreter, which runs one batch at a time, whichever thread asks.

    Inputs of another shape than the last make it plan its memory again.
    """

    def __init__(self, request: BuildRequest) -> None:
        model, self._boundary = model_file(request)
        self.build_s, self.artifact = model.build_s, model.path
        self._threads = request.threads
        self._turn = threading.Lock()
        with failures("litert", self.artifact), alone(), _without_notes():
            self._interpreter = Interpreter(model_path=str(self.artifact), num_threads=self._threads)
            self._interpreter.allocate_tensors()
        self._input: int = self._interpreter.get_input_details()[0]["index"]
        self._output: int = self._interpreter.get_output_details()[self._boundary.index]["index"]

    @property
    def options(self) -> dict[str, str]:
        """Threads, and what the arithmetic is left to."""
        return {"threads": str(self._threads), "delegate": "xnnpack"}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the output for a batch (B, C, H, W): scores or a class map; see `Boundary.leave`."""
        with failures("litert", self.artifact, batch):
            return self._boundary.run(batch, self._call)

    def _call(self, array: Array) -> Array:
        with self._turn:
            details = self._interpreter.get_input_details()[0]
            if tuple(details["shape"]) != array.shape:
                self._interpreter.resize_tensor_input(self._input, array.shape)
                self._interpreter.allocate_tensors()
            self._interpreter.set_tensor(self._input, array)
            self._interpreter.invoke()
            return np.asarray(self._interpreter.get_tensor(self._output))  # a copy


open_session = LiteRtSession
