"""Networks in files of their own: programs of torch.export, and TorchScript."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from segcore.core.errors import ModelError
from segcore.core.files import sha256_file
from segcore.core.model_spec import Description, ModelSpec, Resize
from segcore.core.quiet import quiet
from segcore.core.text import first_line
from segcore.inference.models.checkpoint import file_record
from segcore.inference.models.sources import Opened, file_of
from segcore.inference.process_state import alone
from segcore.inputs.download import FetchSettings

SCRIPT = "is TorchScript, which torch.compile and torch.export refuse"


class FileNetwork(nn.Module):
    """A network as it was written to a file, for some number of photos at a time, or for any if `batch` is None.

    It has no modes, and the file is its identity.
    """

    why_only_torch: str
    """Why runtimes other than torch do not take it; empty if they may."""

    def __init__(self, network: nn.Module, path: Path, batch: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.identity = sha256_file(path)
        self.why_only_torch = SCRIPT if isinstance(network, torch.jit.ScriptModule) else ""
        if batch is not None:
            self.why_only_torch = (
                f"was exported for batches of {batch} alone; export it with a free batch for other runtimes"
            )
        self._batch = batch

    def forward(self, x: torch.Tensor) -> Any:
        """Return what the network returns; photo by photo if it takes only one."""
        if self._batch is None or len(x) == self._batch:
            return self.network(x)
        if self._batch != 1:
            raise ModelError(f"the file was exported for batches of {self._batch}, found {len(x)}")
        found = [self.network(photo) for photo in torch.split(x, 1)]
        if isinstance(found[0], torch.Tensor):
            return torch.cat(found)
        keys = found[0] if isinstance(found[0], dict) else range(len(found[0]))
        return {str(key): torch.cat([each[key] for each in found]) for key in keys}

    def train(self, mode: bool = True) -> Self:
        """Return the same: a file is in the mode in which it was written, and exported programs refuse to change."""
        self.training = mode
        return self


def open_network(spec: ModelSpec, weights: str, settings: FetchSettings | None) -> Opened:
    """Return the network in a file, its record, and the spec with the size that it was exported for."""
    path = file_of(spec, weights)
    import torchvision  # noqa: F401  # its operators, of which networks may be made

    try:
        with alone(), quiet():  # torch warns that TorchScript is deprecated
            if spec.source.kind == "torchscript":
                return FileNetwork(_torchscript(path), path), file_record(path), spec
            program = torch.export.load(path)
            module = program.module()
    except Exception as error:  # torch's readers raise anything for damaged bytes
        reason = (first_line(error) or type(error).__name__)[:300]
        writer = {"torchscript": "torch.jit.save", "exported": "torch.export.save"}[spec.source.kind]
        raise ModelError(f"cannot read {path}: {reason}; wanted a file written by {writer}") from error
    shape = _input_shape(program, path)
    spec = spec.completed(_described(shape))
    batch = shape[0] if isinstance(shape[0], int) else None
    return FileNetwork(module, path, batch), file_record(path), spec


def _torchscript(path: Path) -> nn.Module:
    network: nn.Module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]  # torch's
    for parameter in network.parameters():  # else copies of them would be parts of a graph
        parameter.requires_grad_(False)
    return network


def _input_shape(program: torch.export.ExportedProgram, path: Path) -> tuple[int | None, ...]:
    """Return the shape of the only input, with None for lengths that are free."""
    names = program.graph_signature.user_inputs
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    if len(inputs) != 1 or inputs[0].dim() != 4:
        found = ", ".join(str(tuple(value.shape)) for value in inputs) or "none"
        raise ModelError(f"{path} takes inputs {found}, wanted one of four dimensions")
    return tuple(length if isinstance(length, int) else None for length in inputs[0].shape)


def _described(shape: tuple[int | None, ...]) -> Description:
    """Return what the shape of the input says: a size, if height and width are constants."""
    given: dict[str, Any] = {}
    is_nhwc = shape[3] in (1, 3) and shape[1] not in (1, 3)
    height, width = shape[1:3] if is_nhwc else shape[2:]
    if height is not None and width is not None:
        given["resize"] = Resize("fixed", (height, width))
    if is_nhwc:
        given["layout"] = "nhwc"
    return Description(input=given)
