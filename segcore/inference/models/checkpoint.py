"""Checkpoints: read without running code from them, and refused if they do not fit.

The sizes that a file declares are checked before any of it is read.
"""

from __future__ import annotations

import hashlib
import math
import stat
import zipfile
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

import torch
from safetensors.torch import load_file
from torch import nn

from segcore.core.errors import ModelError
from segcore.core.files import sha256_file
from segcore.core.labels import VOC, LabelSet
from segcore.core.quiet import quiet
from segcore.core.records import WeightsRecord
from segcore.core.text import first_line, listed

State = Mapping[str, torch.Tensor]

RANDOM_SEED = 0
AUXILIARY_HEAD = "aux_classifier."
"""Prefix of the head that torchvision uses in training alone."""
_MAX_NAMED = 3
_MAX_OVERHEAD = 8
"""Bytes of a checkpoint for each of the network in float32: it may be in float64, and hold an optimiser's state."""
_MAX_OTHER = 64 << 20
"""Bytes that it may have besides, such as an auxiliary head."""
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2)
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_MAX_PICKLE = 2 << 20
"""Bytes of names, shapes and other data that are not tensors; those of a large network are some 100 kB."""


class _Pickles:
    """A file of the format before torch 1.6, whose pickles may be at most so long.

    Torch reads them with ``read`` and ``readline``, and the tensors, as there is no ``fileno``, with ``readinto``.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._left = _MAX_PICKLE
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto  # type: ignore[attr-defined]

    def read(self, size: int = -1) -> bytes:
        return self._counted(self._file.read(min(size, self._left + 1) if size >= 0 else self._left + 1))

    def readline(self) -> bytes:
        return self._counted(self._file.readline(self._left + 1))

    def _counted(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError(f"more than {_MAX_PICKLE >> 20} MiB of it are not tensors")
        return data


def read_state(path: Path, most: int) -> dict[str, torch.Tensor]:
    """Return the tensors of a ``.safetensors`` file or of one written by ``torch.save`` (``weights_only``).

    A state dict nested under ``model``, ``state_dict`` or ``model_state_dict`` is found, and the prefix ``module.`` of
    ``DataParallel`` is removed. `most` are the bytes that the file may have, and declare to have once it is unpacked.

    Raises:
        ModelError: the file is missing, too large, unreadable, holds code, or holds no state dict.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"no checkpoint at {path} ({reason}): expected 'pretrained', 'random' or the path of a weights file"
        ) from error
    try:
        _check_size(status.st_size, most)
        with path.open("rb") as file:
            content = _load_safetensors(path, file) if path.suffix == ".safetensors" else _load_pickled(file, most)
    except Exception as error:  # torch's reader raises anything for damaged bytes, IndexError included
        reason = first_line(error) or type(error).__name__
        raise ModelError(
            f"cannot read the checkpoint {path}: {reason}; "
            "expected a .safetensors file, or a state dict saved by torch.save"
        ) from error
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(torch.is_tensor(v) for v in content.values()):
        found = type(content).__name__
        if isinstance(content, dict):
            found = f"a dict with the keys {_some(content)}" if content else "an empty dict"
        raise ModelError(f"{path} holds no state dict: found {found}, expected names with tensors")
    state = {str(name).removeprefix("module."): tensor for name, tensor in cast(State, content).items()}
    if len(state) < len(content):
        names = [str(name) for name in content]
        twice = [name for name in names if f"module.{name}" in names] or names
        raise ModelError(f"{path} holds tensors twice, with and without the prefix 'module.': {_some(twice)}")
    return state


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise ValueError(f"it has {size / 1e6:,.0f} MB, at most {most / 1e6:,.0f} MB can belong to this model")


def _load_safetensors(path: Path, file: IO[bytes]) -> object:
    if int.from_bytes(file.read(8), "little") > _MAX_PICKLE:
        raise ValueError(f"its header is longer than {_MAX_PICKLE >> 20} MiB")
    return load_file(path)


def _load_pickled(file: IO[bytes], most: int) -> object:
    is_zip = file.read(4) == b"PK\3\4"
    if is_zip:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
        _check_size(sum(entry.file_size for entry in entries), most)
        if sum(entry.file_size for entry in entries if entry.filename.endswith(".pkl")) > _MAX_PICKLE:
            raise ValueError(f"more than {_MAX_PICKLE >> 20} MiB of it are not tensors")
    file.seek(0)
    with quiet():  # torch warns of sparse and quantized tensors, which are refused by name
        return cast(object, torch.load(file if is_zip else cast(Any, _Pickles(file)), "cpu", weights_only=True))


def load_into(module: nn.Module, path: Path, model_name: str, labels: LabelSet = VOC) -> WeightsRecord:
    """Load a checkpoint into a network in place and return its record; tensors of an auxiliary head are left out.

    Raises:
        ModelError: keys, shapes, types or the number of classes do not fit, or a value is NaN or infinite; the message
            lists the differences.
    """
    wanted = module.state_dict()
    most = _MAX_OVERHEAD * sum(tensor.nbytes for tensor in wanted.values()) + _MAX_OTHER
    state = {name: t for name, t in read_state(path, most).items() if not name.startswith(AUXILIARY_HEAD)}
    problems = differences(wanted, state, labels)
    if not problems:
        module.load_state_dict(state)
        problems = not_finite(module.state_dict().items())
    if problems:
        raise ModelError(f"the checkpoint {path} does not fit {model_name}: {'; '.join(problems)}")
    return file_record(path)


def file_record(path: Path) -> WeightsRecord:
    """Return the record of weights that are in a file."""
    return WeightsRecord(kind="checkpoint", name=path.name, sha256=sha256_file(path))


def random_record(module: nn.Module) -> WeightsRecord:
    """Return the record of weights that were made with `RANDOM_SEED`."""
    return WeightsRecord(kind="random", name=f"seed {RANDOM_SEED}", sha256=state_sha256(module))


def check_weights(network: nn.Module, dtype: torch.dtype) -> None:
    """Check that every parameter of a network is a number in the type that it runs in; a buffer may be infinite.

    Raises:
        ModelError: a parameter is NaN, infinite, complex or on the device meta, or a buffer is NaN.
    """
    parameters = [(name, parameter.detach()) for name, parameter in network.named_parameters()]
    buffers = [(name, t) for name, t in network.named_buffers() if t.is_floating_point() and not t.is_meta]
    problems = [f"{name} is complex or on the device meta" for name, t in parameters if t.is_complex() or t.is_meta]
    if not problems:
        floats = ((name, t.to(dtype)) for name, t in parameters if t.is_floating_point())
        problems = not_finite(chain(floats, ((name, t) for name, t in buffers if t.isnan().any())))
    if problems:
        found = "; ".join(problems[:_MAX_NAMED])
        raise ModelError(f"{type(network).__name__} cannot run: {found}; wanted finite numbers of {dtype}")


def not_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """Describe which floating-point tensors hold NaN or infinity; empty if none does."""
    # The sum of finite numbers may overflow, but one that is finite has no other terms; it takes half the time.
    names = [
        name
        for name, t in tensors
        if t.is_floating_point() and not math.isfinite(t.sum(dtype=torch.float32)) and not t.isfinite().all()
    ]
    return [f"{len(names)} tensors hold NaN or infinity ({_some(names)})"] if names else []


def differences(wanted: State, found: State, labels: LabelSet = VOC) -> list[str]:
    """Describe how two state dicts differ in keys, types, classes and shapes; empty if they fit."""
    problems = []
    if missing := sorted(set(wanted) - set(found)):
        problems.append(f"{len(missing)} of {len(wanted)} tensors are missing ({_some(missing)})")
    if extra := sorted(set(found) - set(wanted)):
        problems.append(f"{len(extra)} are not the model's ({_some(extra)})")
    kinds = {n: kind for n in wanted if n in found and (kind := _other_kind(wanted[n], found[n]))}
    if kinds:
        listed = [f"{name} is {kind}, wanted {wanted[name].dtype}" for name, kind in kinds.items()]
        problems.append(_some(listed).replace("torch.", ""))
    shapes = [n for n in wanted if n in found and n not in kinds and wanted[n].shape != found[n].shape]
    for name in shapes[:_MAX_NAMED]:
        here, there = tuple(wanted[name].shape), tuple(found[name].shape)
        if here[1:] == there[1:] and here[0] == len(labels):
            problems.append(f"{name} has {there[0]} classes, wanted {len(labels)}")
        else:
            problems.append(f"{name} has shape {there}, wanted {here}")
    if len(shapes) > _MAX_NAMED:
        problems.append(f"{len(shapes) - _MAX_NAMED} more shapes differ")
    return problems


def _other_kind(wanted: torch.Tensor, found: torch.Tensor) -> str:
    """Describe a tensor that cannot be converted without loss of meaning; empty if it can."""
    if found.is_nested or found.layout != torch.strided or found.is_quantized:
        return "nested" if found.is_nested else "quantized" if found.is_quantized else str(found.layout)
    if found.device.type == "meta":
        return "on the device meta, without values"
    counts = not wanted.is_floating_point() and found.dtype in _INTEGERS  # such as num_batches_tracked
    return "" if counts or found.dtype in _FLOATS else str(found.dtype)


def _some(names: Iterable[object]) -> str:
    return listed(names, _MAX_NAMED)


def state_sha256(module: nn.Module) -> str:
    """Return the sha256 over names, dtypes, shapes and bytes of a network's state, in the order of its keys."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor_bytes(tensor))
    return digest.hexdigest()


def tensor_bytes(tensor: torch.Tensor) -> memoryview:
    """Return the bytes of a tensor, in the order of its elements."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
