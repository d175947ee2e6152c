"""onnxruntime: its own kernels on the CPU, cuDNN on CUDA, CoreML on Apple's devices."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from segcore.core.errors import DeviceError
from segcore.inference.devices import Device
from segcore.inference.runtimes.export import INPUT, OUTPUT, onnx_artifact
from segcore.inference.runtimes.file_model import Array, Boundary, FileRequest, cannot_run, failures
from segcore.inference.runtimes.int8 import file_source
from segcore.inference.runtimes.session import BuildRequest, OperatorTime, RuntimeProfile

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
PRECISIONS = {"cpu": {"fp32", "int8"}, "cuda": {"fp32", "fp16", "int8"}, "mps": {"fp32"}}
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

    model: Path
    build_s: float
    device: Device
    threads: int
    provider: str
    provider_options: dict[str, str] = field(default_factory=dict)
    boundary: Boundary | None = None
    """Of a file that was not exported here."""

    def open(self, profile_prefix: str = "") -> ort.InferenceSession:
        """Return a new session, with onnxruntime's profiler on if a prefix for its file is given."""
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self.threads
        settings.log_severity_level = 3  # errors; it warns of every operator that a provider leaves to the CPU
        settings.enable_profiling = bool(profile_prefix)
        settings.profile_file_prefix = profile_prefix
        session = ort.InferenceSession(str(self.model), settings, providers=[(self.provider, self.provider_options)])
        if self.provider not in session.get_providers():  # onnxruntime goes on with the CPU
            raise DeviceError(
                f"onnxruntime could not start its {self.provider} and fell back to "
                f"{', '.join(session.get_providers())}: its own message is above; install what this build of it needs"
            )
        return session


class OrtSession:
    """An ONNX file in onnxruntime; on CUDA a network of torch's reads and writes the GPU's memory where it is."""

    def __init__(self, setup: Setup, profile_prefix: str = "") -> None:
        self.build_s = setup.build_s
        self.artifact = setup.model
        self._setup = setup
        self._session = setup.open(profile_prefix)
        self._boundary = setup.boundary
        self._dtype = np.float16 if self._session.get_inputs()[0].type == "tensor(float16)" else np.float32
        self._shapes: dict[torch.Size, tuple[int, ...]] = {}

    @property
    def options(self) -> dict[str, str]:
        """Threads, provider and its settings."""
        chosen = {name: value for name, value in self._setup.provider_options.items() if not name.endswith("_path")}
        threads = self._session.get_session_options().intra_op_num_threads
        return {"threads": str(threads), "provider": self._setup.provider, **chosen}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, classes, h, w), float32, for a batch (B, 3, H, W); of a file, see `Boundary.leave`."""
        if self._boundary:
            with failures("onnxruntime", self._setup.model, batch):
                return self._boundary.run(batch, self._call).to(self._setup.device.torch_device)
        if self._setup.device.torch_device.type == "cuda":
            return self.bound(batch)
        array = np.ascontiguousarray(batch.cpu().numpy(), dtype=self._dtype)
        logits = np.asarray(self._session.run(None, {INPUT: array})[0], dtype=np.float32)
        return torch.from_numpy(logits).to(self._setup.device.torch_device)

    def bound(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the logits as `forward` does, on the device of the batch, without a copy through the host's memory.

        The first batch of a shape goes through it, because only its output tells the shape of the logits.
        """
        device, dtype = batch.device, torch.from_numpy(np.empty(0, self._dtype)).dtype
        source, where = batch.to(dtype).contiguous(), (device.type, device.index or 0)
        binding, known = self._session.io_binding(), self._shapes.get(batch.shape)
        binding.bind_input(INPUT, *where, self._dtype, tuple(source.shape), source.data_ptr())
        if known is None:
            binding.bind_output(OUTPUT)
        else:
            target = torch.empty(known, dtype=dtype, device=device)
            binding.bind_output(OUTPUT, *where, self._dtype, known, target.data_ptr())
        self._setup.device.synchronize()  # onnxruntime has a stream of its own
        self._session.run_with_iobinding(binding)
        if known is None:
            target = torch.from_numpy(binding.copy_outputs_to_cpu()[0]).to(device)
            self._shapes[batch.shape] = tuple(target.shape)
        return target.float()

    def _call(self, array: Array) -> Array:
        assert self._boundary
        return np.asarray(self._session.run([self._boundary.output.name], {self._boundary.input.name: array})[0])

    def on_file(self, path: Path) -> OrtSession:
        """Return a session with the same settings on another file."""
        return OrtSession(replace(self._setup, model=path))

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
    request: BuildRequest, provider: str | None = None, provider_options: dict[str, str] | None = None
) -> OrtSession:
    """Return the network, ready to run, by default in the provider for the request's device."""
    exported = onnx_artifact(request)
    device, threads = request.device, request.threads
    provider = provider or PROVIDERS[device.torch_device.type]
    options = cuda_options(device) if provider_options is None else provider_options
    return OrtSession(Setup(exported.path, exported.build_s, device, threads, provider, options))


def cuda_options(device: Device) -> dict[str, str]:
    """Return which GPU the provider uses, and that fp32 is not rounded to TF32; nothing on other devices."""
    if device.torch_device.type != "cuda":
        return {}
    return {"device_id": str(device.torch_device.index or 0), "use_tf32": "0"}


def open_file(request: FileRequest) -> OrtSession:
    """Return a file, ready to run, in the provider for the request's device.

    Raises:
        ModelError: onnxruntime cannot run it.
    """
    device, path, build_s = request.device, request.model.path, 0.0
    if request.precision == "int8":
        built = file_source(request.model, request.cache_dir, request.calibration).artifact()
        path, build_s = built.path, built.build_s
    provider = PROVIDERS[device.torch_device.type]
    setup = Setup(path, build_s, device, request.threads, provider, cuda_options(device), request.boundary)
    try:
        return OrtSession(setup)
    except DeviceError:
        raise
    except Exception as error:  # onnxruntime's errors have no other common base
        raise cannot_run("onnxruntime", path, error) from error
