"""OpenVINO on the CPU."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino
import torch
from openvino import properties

from segcore.inference.devices import Device
from segcore.inference.recurring import USES, Recurring
from segcore.inference.runtimes.artifacts import Artifact
from segcore.inference.runtimes.export import model_file
from segcore.inference.runtimes.file_model import Array, Boundary, failures
from segcore.inference.runtimes.int8_openvino import read
from segcore.inference.runtimes.session import BuildRequest, OperatorTime, RuntimeProfile

PLUGIN = "CPU"
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""Arithmetic of whatever is not quantised."""
MAX_SHAPES = 8
MAX_SHAPES_BYTES = 128 << 20
"""Of the files of the models that are compiled for one shape. Small ones gain 5 to 10 % from that, FCN-ResNet101, with
208 MB, at most 2 %."""


@functools.cache
def _core() -> openvino.Core:
    """Return the one core of the process.

    Each core sets a signal stack, and when a second one is deleted that of the first is left dangling: the next signal,
    such as Ctrl-C, is then a segmentation fault (seen with OpenVINO 2026.4 on Linux).
    """
    return openvino.Core()


def refusal(device: Device, precision: str) -> str | None:
    """Return why OpenVINO does not run in that precision on that device, None if it does."""
    if device.torch_device.type != "cpu":
        return "segcore runs OpenVINO on the CPU only"
    capabilities = _core().get_property(PLUGIN, properties.device.capabilities())
    if precision.upper() not in capabilities:
        return f"OpenVINO finds {', '.join(sorted(capabilities))} on this CPU"
    return None


class OpenVinoSession:
    """A model compiled for all shapes, and for each that recurs, which runs one batch at a time, whichever thread asks.

    A batch has all threads to itself, so that taking turns costs nothing; a request of OpenVINO's cannot be shared. For
    `uses`, see `Recurring`; with 0, only the model for all shapes is compiled.
    """

    def __init__(self, model: Artifact, boundary: Boundary, settings: dict[str, str | int], uses: int = USES) -> None:
        self.build_s, self.artifact = model.build_s, model.path
        self._settings = settings
        self._boundary = boundary
        self._turn = threading.Lock()
        with failures("openvino", model.path):
            compiled = self._compile()
        # OpenVINO takes no more threads than there are cores.
        self._threads: int = compiled.get_property(properties.inference_num_threads())
        self._request = compiled.create_infer_request()
        dynamic = uses and any(entry.get_partial_shape().is_dynamic for entry in compiled.inputs)
        most = most_shapes(model.path) if dynamic else 0
        self._fixed: Recurring[tuple[tuple[int, ...], int], openvino.AsyncInferQueue]
        self._fixed = Recurring(most, self._queue_for, uses)

    def _compile(self, shape: Sequence[int] | None = None, **more: object) -> openvino.CompiledModel:
        """Return the model compiled for one shape, or for all; the time is added to `build_s`."""
        start = time.perf_counter()
        model = read(_core(), self.artifact)
        if shape:
            model.reshape(list(shape))
        compiled = _core().compile_model(model, PLUGIN, {**self._settings, **more})
        self.build_s += time.perf_counter() - start
        return compiled

    def _queue_for(self, key: tuple[tuple[int, ...], int]) -> openvino.AsyncInferQueue | None:
        """Return a request for each of several streams of the model compiled for a shape; None if it cannot be."""
        shape, streams = key
        try:
            model = self._compile(shape, NUM_STREAMS=streams)
        except RuntimeError:  # the one for all shapes goes on
            return None
        return openvino.AsyncInferQueue(model, streams)

    @property
    def settled(self) -> bool:
        """Whether the next batch of the last one's shape runs on the same compiled model."""
        return self._fixed.settled

    @property
    def options(self) -> dict[str, str]:
        """The settings that the model was compiled with, and its threads."""
        hints = ("PERFORMANCE_HINT", "INFERENCE_PRECISION_HINT")
        return {**{name.lower(): str(self._settings[name]) for name in hints}, "threads": str(self._threads)}

    @functools.cached_property
    def _streams(self) -> openvino.AsyncInferQueue:
        """The model compiled once more, at the first batch, with one photo per thread at a time."""
        return openvino.AsyncInferQueue(self._compile(NUM_STREAMS=self._threads), self._threads)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), float32, for a batch (B, 3, H, W); of a file, see `Boundary.leave`."""
        with failures("openvino", self.artifact, batch):
            array = self._boundary.enter(batch)
            with self._turn:
                output = self._run(array)
            return self._boundary.leave(output)

    def _run(self, array: Array) -> Array:
        if len(array) == 1 or (self._threads == 1 and not self._boundary.one_by_one):
            return self._infer(array)[0]
        shape = (1, *array.shape[1:])
        return self._in_streams(array, self._fixed.get((shape, self._threads)) or self._streams)

    def _infer(self, array: Array) -> tuple[Array, openvino.InferRequest]:
        queue = self._fixed.get((array.shape, 1))
        request = self._request if queue is None else queue[0]
        found = request.infer([array], share_inputs=True)
        return np.asarray(found[self._boundary.index]), request

    def _in_streams(self, array: Array, queue: openvino.AsyncInferQueue) -> Array:
        """Run the photos of a batch beside each other."""
        logits: dict[int, np.ndarray] = {}

        def collect(request: openvino.InferRequest, index: int) -> None:
            logits[index] = np.array(request.get_output_tensor(self._boundary.index).data)

        queue.set_callback(collect)
        for index in range(len(array)):
            queue.start_async([array[index : index + 1]], index, share_inputs=True)
        queue.wait_all()
        return np.concatenate([logits[index] for index in range(len(array))])

    def on_file(self, path: Path) -> OpenVinoSession:
        """Return a session on another file, which runs too few photos to pay for compiling it for their shapes."""
        return OpenVinoSession(Artifact(path, 0.0), self._boundary, self._settings, uses=0)

    def profiled(self) -> ProfiledOpenVino:
        """Return the same network compiled with OpenVINO's counters on."""
        return ProfiledOpenVino(Artifact(self.artifact, 0.0), self._boundary, self._settings)


class ProfiledOpenVino(OpenVinoSession):
    """A session that reads OpenVINO's counters: how long each node took, but not when it began, hence no trace."""

    def __init__(self, model: Artifact, boundary: Boundary, settings: dict[str, str | int]) -> None:
        super().__init__(model, boundary, {**settings, "PERF_COUNT": True}, uses=1)
        self._passes: list[tuple[OperatorTime, ...]] = []

    def _run(self, array: Array) -> Array:
        found = []
        for part in np.split(array, len(array)) if self._boundary.one_by_one else [array]:
            output, request = self._infer(part)
            self._passes.append(operators(request.get_profiling_info()))
            found.append(output)
        return np.concatenate(found)

    def finish(self) -> RuntimeProfile:
        """Return the profile."""
        return RuntimeProfile(tuple(self._passes), None)


def most_shapes(path: Path) -> int:
    """Return for how many shapes a model is compiled, each of which may take as much memory as its file."""
    files = [file for file in (path, path.with_suffix(".bin")) if file.is_file()]
    return min(MAX_SHAPES, MAX_SHAPES_BYTES // sum(file.stat().st_size for file in files))


def operators(nodes: Sequence[openvino.ProfilingInfo]) -> tuple[OperatorTime, ...]:
    """Return the nodes that were executed."""
    return tuple(
        OperatorTime(node.node_name, f"{node.node_type} {node.exec_type}", node.real_time.total_seconds())
        for node in nodes
        if node.status == openvino.ProfilingInfo.Status.EXECUTED
    )


def open_session(request: BuildRequest) -> OpenVinoSession:
    """Return the network, or a file in a format that OpenVINO reads, ready to run."""
    settings: dict[str, str | int] = {
        "INFERENCE_NUM_THREADS": request.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": HINTS[request.precision],
    }
    return OpenVinoSession(*model_file(request), settings)
