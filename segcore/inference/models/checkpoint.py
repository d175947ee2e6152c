"""Checkpoints: read without running code from them, and refused if they do not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import torch
from safetensors.torch import load_file
from torch import nn

from segcore.core.errors import ModelError
from segcore.core.labels import NUM_CLASSES

State = Mapping[str, torch.Tensor]

AUXILIARY_HEAD = "aux_classifier."
"""Prefix of the head that torchvision uses in training alone."""
_MAX_NAMED = 3


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.safetensors`` file or of one written by ``torch.save`` (``weights_only``).

    A state dict nested under ``model``, ``state_dict`` or ``model_state_dict`` is found, and the prefix ``module.`` of
    ``DataParallel`` is removed.

    Raises:
        ModelError: the file is missing, unreadable, holds code, or holds no state dict.
    """
    if not path.is_file():
        raise ModelError(f"no checkpoint at {path}: expected 'pretrained', 'random' or the path of a weights file")
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises anything for damaged bytes, IndexError included
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"cannot read the checkpoint {path}: {reason}; "
            "expected a .safetensors file, or a state dict saved by torch.save"
        ) from error
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(v) for v in content.values()):
        raise ModelError(f"{path} holds no state dict: found {_describe(content)}, expected names with tensors")
    return {str(name).removeprefix("module."): tensor for name, tensor in cast(State, content).items()}


def _describe(content: object) -> str:
    if isinstance(content, dict):
        return f"a dict with the keys {_some(content)}" if content else "an empty dict"
    return type(content).__name__


def load_into(module: nn.Module, path: Path, model_name: str) -> None:
    """Load a checkpoint into a network in place; tensors of an auxiliary head are left out.

    Raises:
        ModelError: keys, shapes or the number of classes do not fit; the message lists the differences.
    """
    state = {name: t for name, t in read_state(path).items() if not name.startswith(AUXILIARY_HEAD)}
    problems = differences(module.state_dict(), state)
    if problems:
        raise ModelError(f"the checkpoint {path} does not fit {model_name}: {'; '.join(problems)}")
    module.load_state_dict(state)


def differences(wanted: State, found: State) -> list[str]:
    """Describe how two state dicts differ in keys and shapes; empty if they fit."""
    problems = []
    if missing := sorted(set(wanted) - set(found)):
        problems.append(f"{len(missing)} of {len(wanted)} tensors are missing ({_some(missing)})")
    if extra := sorted(set(found) - set(wanted)):
        problems.append(f"{len(extra)} are not the model's ({_some(extra)})")
    shapes = [n for n in wanted if n in found and wanted[n].shape != found[n].shape]
    for name in shapes[:_MAX_NAMED]:
        here, there = tuple(wanted[name].shape), tuple(found[name].shape)
        if here[1:] == there[1:] and here[0] == NUM_CLASSES:
            problems.append(f"{name} has {there[0]} classes, wanted {NUM_CLASSES}")
        else:
            problems.append(f"{name} has shape {there}, wanted {here}")
    if len(shapes) > _MAX_NAMED:
        problems.append(f"{len(shapes) - _MAX_NAMED} more shapes differ")
    return problems


def _some(names: Iterable[object]) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:_MAX_NAMED]) + (", ..." if len(listed) > _MAX_NAMED else "")


def state_sha256(module: nn.Module) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of a network's state, in the order of its keys."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
