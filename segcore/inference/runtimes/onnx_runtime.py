"""onnxruntime: its own kernels on the CPU, cuDNN on CUDA, CoreML on Apple's devices."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from segcore.core.errors import DeviceError
from segcore.inference.devices import Device
from segcore.inference.runtimes.artifacts import Artifact
from segcore.inference.runtimes.export import INPUT, OUTPUT, model_file
from segcore.inference.runtimes.file_model import Array, Boundary, failures
from segcore.inference.runtimes.session import BuildRequest, OperatorTime, RuntimeProfile

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
PRECISIONS = {"cpu": {"fp32", "int8"}, "cuda": {"fp32", "fp16", "int8"}, "mps": {"fp32"}}
ON_CUDA = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
"""By default fp32 is rounded to TF32, and each convolution searches exhaustively for an algorithm at each new shape."""
KERNEL = "_kernel_time"
"""Suffix of the events that time a node's arithmetic."""


def refusal(device: Device, precision: str) -> str | None:
    """Return why onnxruntime does not run in that precision on that device, None if it does."""
    kind = device.torch_device.type
    if PROVIDERS[kind] not in ort.get_available_providers():
        add = "; pip install onnxruntime-gpu in place of onnxruntime" if kind == "cuda" else ""
        return f"this build of onnxruntime has no {PROVIDERS[kind]}{add}"
    if precision not in PRECISIONS[kind]:
        return f"its {PROVIDERS[kind]} has {', '.join(sorted(PRECISIONS[kind]))}"
    return None


@dataclass(frozen=True)
class Setup:
    """What an onnxruntime session is opened with."""

    model: Artifact
    boundary: Boundary
    device: Device
    threads: int
    provider: str
    provider_options: Mapping[str, str]

    def open(self, profile_prefix: str = "") -> ort.InferenceSession:
        """Return a new session, with onnxruntime's profiler on if a prefix for its file is given."""
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.log_severity_level = 3  # errors; it warns of every operator that a provider leaves to the CPU
        settings.enable_profiling = bool(profile_prefix)
        settings.profile_file_prefix = profile_prefix
        providers = [(self.provider, dict(self.provider_options))]
        session = ort.InferenceSession(str(self.model.path), settings, providers=providers)
        if self.provider not in session.get_providers():  # onnxruntime goes on with the CPU
            raise DeviceError(
                f"onnxruntime could not start its {self.provider} and fell back to "
                f"{', '.join(session.get_providers())}: its own message is above; install what this build of it needs"
            )
        return session


class OrtSession:
    """An ONNX file in onnxruntime; on CUDA a network of torch's reads and writes the GPU's memory where it is."""

    def __init__(self, setup: Setup, profile_prefix: str = "") -> None:
        self.build_s, self.artifact = setup.model.build_s, setup.model.path
        self._setup = setup
        with failures("onnxruntime", self.artifact):
            self._session = setup.open(profile_prefix)
        self._in_place = setup.device.torch_device.type == "cuda" and setup.boundary.spec.source.kind == "module"
        self._shapes: dict[torch.Size, tuple[int, ...]] = {}

    @property
    def options(self) -> dict[str, str]:
        """Threads, provider and its settings."""
        chosen = {name: value for name, value in self._setup.provider_options.items() if not name.endswith("_path")}
        threads = self._session.get_session_options().intra_op_num_threads
        return {"threads": str(threads), "provider": self._setup.provider, **chosen}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), float32, for a batch (B, 3, H, W); of a file, see `Boundary.leave`."""
        if self._in_place:
            return self.bound(batch)
        with failures("onnxruntime", self.artifact, batch):
            return self._setup.boundary.run(batch, self._call).to(self._setup.device.torch_device)

    def bound(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits as `forward` does, on the device of the batch, without a copy through the host's memory.

        The first batch of a shape goes through it, because only its output tells the shape of the logits.
        """
        device, array_type = batch.device, np.dtype(self._setup.boundary.input.dtype).type
        dtype = torch.from_numpy(np.empty(0, array_type)).dtype
        source, where = batch.to(dtype).contiguous(), (device.type, device.index or 0)
        binding, known = self._session.io_binding(), self._shapes.get(batch.shape)
        binding.bind_input(INPUT, *where, array_type, tuple(source.shape), source.data_ptr())
        if known is None:
            binding.bind_output(OUTPUT)
        else:
            target = torch.empty(known, dtype=dtype, device=device)
            binding.bind_output(OUTPUT, *where, array_type, known, target.data_ptr())
        self._setup.device.synchronize()  # onnxruntime has a stream of its own
        self._session.run_with_iobinding(binding)
        if known is None:
            target = torch.from_numpy(binding.copy_outputs_to_cpu()[0]).to(device)
            self._shapes[batch.shape] = tuple(target.shape)
        return target.float()

    def _call(self, array: Array) -> Array:
        boundary = self._setup.boundary
        return np.asarray(self._session.run([boundary.output.name], {boundary.input.name: array})[0])

    def on_file(self, path: Path) -> OrtSession:
        """Return a session with the same settings on another file."""
        return OrtSession(replace(self._setup, model=Artifact(path, 0.0)))

    def profiled(self) -> ProfiledOrt:
        """Return a second session on the same file, with onnxruntime's profiler on."""
        return ProfiledOrt(self._setup)


class ProfiledOrt(OrtSession):
    """A session whose profile onnxruntime writes to a file when it ends."""

    def __init__(self, setup: Setup) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="segcore-")
        super().__init__(setup, str(Path(self._directory.name) / "profile"))

    def finish(self) -> RuntimeProfile:
        """Stop profiling and return the profile, with onnxruntime's own trace."""
        with self._directory:
            trace = Path(self._session.end_profiling()).read_bytes()
        return RuntimeProfile(operators(json.loads(trace)), trace)


def operators(events: Sequence[dict[str, Any]]) -> tuple[tuple[OperatorTime, ...], ...]:
    """Return the nodes within each ``model_run`` of onnxruntime's events (Chrome's format, microseconds)."""
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(KERNEL)]
    return tuple(
        tuple(
            OperatorTime(node["name"].removesuffix(KERNEL), node["args"].get("op_name", ""), node["dur"] / 1e6)
            for node in nodes
            if run["ts"] <= node["ts"] <= run["ts"] + run["dur"]
        )
        for run in events
        if run.get("name") == "model_run"
    )


def open_session(
    request: BuildRequest, provider: str | None = None, provider_options: Mapping[str, str] | None = None
) -> OrtSession:
    """Return the network, ready to run, by default in the provider for the request's device."""
    device = request.device
    if provider_options is None:
        index = str(device.torch_device.index or 0)
        provider_options = {"device_id": index, **ON_CUDA} if device.torch_device.type == "cuda" else {}
    provider = provider or PROVIDERS[device.torch_device.type]
    return OrtSession(Setup(*model_file(request), device, request.threads, provider, provider_options))
