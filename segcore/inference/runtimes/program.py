"""Programs of model files: each photo is handed to a program of any language, which hands back its class map.

The arithmetic is the program's own: precision fp32 says nothing of it, and there is nothing to profile.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import torch
from torch import nn

from segcore.core.errors import ModelError
from segcore.core.model_spec import ModelSpec
from segcore.inference.devices import Device
from segcore.inference.programs import Program, ProgramSpec
from segcore.inference.runtimes.session import BuildRequest


def refusal(device: Device, precision: str) -> str | None:
    """Return why programs are not run for that device, None if they are: segcore's own work is on the CPU."""
    return None if device.torch_device.type == "cpu" else "a program decides itself where it runs: --device cpu"


class ProgramModel(nn.Module):
    """A program in the place of a network: this runtime alone runs it.

    Raises:
        ModelError: it does not say what the classes are.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        if spec.labels is None:
            raise ModelError(f"{spec.file or spec.name}: a program does not say what its classes are: add `labels:`")
        source = spec.source
        command = (source.location, *source.arguments)
        self.program = ProgramSpec(command, spec.root, source.serve, source.timeout_s, source.photos)
        self.classes = len(spec.labels)


class ProgramSession:
    """A program that is started for each photo, or one that serves; photos of all threads go one after the other."""

    build_s = 0.0
    artifact: Path | None = None

    def __init__(self, model: ProgramModel) -> None:
        self._last = threading.local()
        self._spec = model.program
        self._program = Program(model.program, model.classes)
        self.close = self._program.close
        """End the program; also called when the session goes."""

    @property
    def options(self) -> dict[str, str]:
        """How the program is run."""
        return {"start": "once" if self._spec.serve else "for each photo", "photos": self._spec.photos}

    @property
    def own_seconds(self) -> float | None:
        """What the program says that the last batch of this thread took it; None if it says nothing."""
        seconds: float | None = getattr(self._last, "own_seconds", None)
        return seconds

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return class maps (B, H, W) for 8-bit RGB photos (B, 3, H, W), one after the other.

        Raises:
            ProgramError: the program failed on one of them.
        """
        photos = batch.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        answers = [self._program.segment(photo) for photo in photos]
        own = [answer.own_seconds for answer in answers if answer.own_seconds is not None]
        self._last.own_seconds = sum(own) if len(own) == len(answers) else None
        return torch.from_numpy(np.stack([answer.class_map for answer in answers]))


def open_session(request: BuildRequest) -> ProgramSession:
    """Return a program, ready for photos; it is started with the first.

    Raises:
        ProgramError: this system has no process groups.
    """
    assert isinstance(request.network, ProgramModel)  # see why_not
    return ProgramSession(request.network)
