"""OpenVINO on the CPU."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence

import numpy as np
import openvino
import torch
from openvino import properties

from segcore.inference.devices import Device
from segcore.inference.runtimes.export import onnx_artifact
from segcore.inference.runtimes.job import Job, OperatorSpan

PLUGIN = "CPU"
HINTS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}
"""Arithmetic of what is not quantised."""


@functools.cache
def _core() -> openvino.Core:
    """One for the process: each sets a signal stack, and when a second one goes that of the first is left dangling.

    The next signal, Ctrl-C for one, would then be a segmentation fault (seen with OpenVINO 2026.4 on Linux).
    """
    return openvino.Core()


def refusal(device: Device, precision: str) -> str | None:
    """Return why OpenVINO does not run in that precision on that device, None where it does."""
    if device.torch_device.type != "cpu":
        return "segcore runs OpenVINO on the CPU only"
    capabilities = _core().get_property(PLUGIN, properties.device.capabilities())
    if precision.upper() not in capabilities:
        return f"OpenVINO finds {', '.join(sorted(capabilities))} on this CPU"
    return None


class OpenVinoSession:
    """A compiled model; one for all shapes."""

    def __init__(self, job: Job) -> None:
        exported = onnx_artifact(job)
        self.build_s = exported.build_s
        self._options = {
            "performance_hint": "LATENCY",
            "inference_precision_hint": HINTS[job.precision],
        }
        self._settings: dict[str, object] = {
            "INFERENCE_NUM_THREADS": job.threads,
            "PERFORMANCE_HINT": self._options["performance_hint"],
            "INFERENCE_PRECISION_HINT": self._options["inference_precision_hint"],
        }
        self._path = exported.path
        self._model = self._compile(self._settings)
        # It takes no more than there are cores.
        self._threads: int = self._model.get_property(properties.inference_num_threads())
        self._options["threads"] = str(self._threads)

    def _compile(self, settings: dict[str, object]) -> openvino.CompiledModel:
        return _core().compile_model(_core().read_model(self._path), PLUGIN, settings)

    @property
    def options(self) -> dict[str, str]:
        """What the model was compiled with."""
        return self._options

    @functools.cached_property
    def _streams(self) -> list[openvino.InferRequest]:
        """The model compiled once more, at the first batch: every thread then takes photos of its own."""
        model = self._compile({**self._settings, "NUM_STREAMS": self._threads})
        return [model.create_infer_request() for _ in range(self._threads)]

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, h, w), float32, for a batch (B, 3, H, W)."""
        array = np.ascontiguousarray(batch.numpy())
        if len(array) == 1 or self._threads == 1:
            return torch.from_numpy(np.asarray(self._model(array, share_inputs=True)[0], dtype=np.float32))
        logits: list[np.ndarray] = []

        def collect(request: openvino.InferRequest) -> None:
            request.wait()
            logits.append(np.array(request.get_output_tensor().data, dtype=np.float32))

        running: deque[openvino.InferRequest] = deque()
        for place in range(len(array)):
            request = self._streams[place % self._threads]
            if len(running) == self._threads:
                collect(running.popleft())
            request.start_async([array[place : place + 1]], share_inputs=True)
            running.append(request)
        for request in running:
            collect(request)
        return torch.from_numpy(np.concatenate(logits))

    def profiled(self) -> ProfiledOpenVino:
        """Return the same network compiled with OpenVINO's counters."""
        return ProfiledOpenVino(self)


class ProfiledOpenVino(OpenVinoSession):
    """Another compiled model, which counts; it knows how long each node took, but not when it began."""

    def __init__(self, plain: OpenVinoSession) -> None:
        self.__dict__.update(vars(plain))
        self._request = self._compile({**self._settings, "PERF_COUNT": True}).create_infer_request()
        self._passes: list[tuple[OperatorSpan, ...]] = []

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, h, w), float32, for a batch (B, 3, H, W)."""
        found = self._request.infer([np.ascontiguousarray(batch.numpy())], share_inputs=True)
        self._passes.append(spans(self._request.get_profiling_info()))
        return torch.from_numpy(np.array(found[0], dtype=np.float32))

    def passes(self) -> list[tuple[OperatorSpan, ...]]:
        """Return the operators of every forward pass so far."""
        return self._passes


def spans(nodes: Sequence[openvino.ProfilingInfo]) -> tuple[OperatorSpan, ...]:
    """Return the nodes that were executed, one after the other as they are listed, which is in order of execution."""
    found, start = [], 0.0
    for node in nodes:
        if node.status == openvino.ProfilingInfo.Status.EXECUTED:
            seconds = node.real_time.total_seconds()
            found.append(OperatorSpan(node.node_name, f"{node.node_type} {node.exec_type}", start, seconds, seconds))
            start += seconds
    return tuple(found)


def open_session(job: Job) -> OpenVinoSession:
    """Return the network ready to run."""
    return OpenVinoSession(job)
