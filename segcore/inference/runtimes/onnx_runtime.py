"""onnxruntime: its own kernels on the CPU, cuDNN on CUDA, CoreML on Apple's."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch

from segcore.inference.devices import Device
from segcore.inference.runtimes.export import INPUT, onnx_artifact
from segcore.inference.runtimes.job import Job, OperatorSpan

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}
KERNEL = "_kernel_time"
"""What the names of a node's events end in, where they are its arithmetic."""
PRECISIONS = {"cpu": {"fp32", "int8"}, "cuda": {"fp32", "fp16", "int8"}, "mps": {"fp32"}}


def refusal(device: Device, precision: str) -> str | None:
    """Return why onnxruntime does not run in that precision on that device, None where it does."""
    kind = device.torch_device.type
    if PROVIDERS[kind] not in ort.get_available_providers():
        add = "; pip install onnxruntime-gpu in place of onnxruntime" if kind == "cuda" else ""
        return f"this build of onnxruntime has no {PROVIDERS[kind]}{add}"
    if precision not in PRECISIONS[kind]:
        return f"its {PROVIDERS[kind]} has {', '.join(sorted(PRECISIONS[kind]))}"
    return None


class OrtSession:
    """An ONNX file in onnxruntime; arrays go in and out through the host's memory."""

    def __init__(self, job: Job, provider: str, provider_options: dict[str, str] | None = None) -> None:
        exported = onnx_artifact(job)
        self.build_s = exported.build_s
        self._device = job.device
        self._threads = job.threads
        self._provider = provider
        self._provider_options = provider_options or {}
        self._path = exported.path
        self._session = self._open()
        self._dtype = np.float16 if self._session.get_inputs()[0].type == "tensor(float16)" else np.float32

    def _open(self, profile_prefix: str = "") -> ort.InferenceSession:
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = self._threads
        settings.log_severity_level = 3  # errors; it warns of every operator that a provider leaves to the CPU
        settings.enable_profiling = bool(profile_prefix)
        settings.profile_file_prefix = profile_prefix
        providers = [(self._provider, self._provider_options)]
        return ort.InferenceSession(str(self._path), settings, providers=providers)

    @property
    def options(self) -> dict[str, str]:
        """Threads, provider and its settings."""
        chosen = {name: value for name, value in self._provider_options.items() if not name.endswith("_path")}
        threads = self._session.get_session_options().intra_op_num_threads
        return {"threads": str(threads), "provider": self._provider, **chosen}

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return logits (B, 21, h, w), float32, for a batch (B, 3, H, W)."""
        array = np.ascontiguousarray(batch.cpu().numpy(), dtype=self._dtype)
        logits = np.asarray(self._session.run(None, {INPUT: array})[0], dtype=np.float32)
        return torch.from_numpy(logits).to(self._device.torch_device)

    def profiled(self) -> ProfiledOrt:
        """Return the same network with onnxruntime's profiler on."""
        return ProfiledOrt(self)


class ProfiledOrt(OrtSession):
    """Another session on the same file; onnxruntime writes what it saw to a file of its own when it is over."""

    def __init__(self, plain: OrtSession) -> None:
        self.__dict__.update(vars(plain))
        self._directory = tempfile.TemporaryDirectory(prefix="segcore-")
        self._session = self._open(str(Path(self._directory.name) / "profile"))

    def passes(self) -> list[tuple[OperatorSpan, ...]]:
        """Return the operators of every forward pass so far, and end the profile."""
        with self._directory:
            events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        return spans(events)


def spans(events: Sequence[dict[str, Any]]) -> list[tuple[OperatorSpan, ...]]:
    """Return what lies within each ``model_run`` of onnxruntime's events (Chrome's format, microseconds)."""
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(KERNEL)]
    return [
        tuple(
            OperatorSpan(
                node["name"].removesuffix(KERNEL),
                node["args"].get("op_name", ""),
                (node["ts"] - run["ts"]) / 1e6,
                node["dur"] / 1e6,
                node["dur"] / 1e6,
            )
            for node in nodes
            if run["ts"] <= node["ts"] <= run["ts"] + run["dur"]
        )
        for run in events
        if run.get("name") == "model_run"
    ]


def open_session(job: Job) -> OrtSession:
    """Return the network ready to run."""
    return OrtSession(job, PROVIDERS[job.device.torch_device.type])
