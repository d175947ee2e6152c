"""What ONNX, OpenVINO and TFLite files say about themselves, so that a model file need not; no torch."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from segcore.core.errors import ModelError
from segcore.core.model_spec import ModelSpec
from segcore.inputs.self_description.assumptions import describe as describe
from segcore.inputs.self_description.assumptions import main_output as main_output
from segcore.inputs.self_description.assumptions import photo_input as photo_input
from segcore.inputs.self_description.assumptions import unused as unused
from segcore.inputs.self_description.header import FileKind
from segcore.inputs.self_description.header import ModelHeader as ModelHeader
from segcore.inputs.self_description.header import TensorHeader as TensorHeader
from segcore.inputs.self_description.litert_file import read_litert
from segcore.inputs.self_description.onnx_file import read_onnx
from segcore.inputs.self_description.openvino_file import read_openvino

FILE_KINDS: tuple[FileKind, ...] = get_args(FileKind)
"""Sources that are a file which a runtime executes, without torch."""
_READERS = {"onnx": read_onnx, "openvino": read_openvino, "litert": read_litert}


def read_header(spec: ModelSpec) -> ModelHeader:
    """Return what the file of a model says about itself; ModelError or NotInstalledError if it cannot be read."""
    path = Path(spec.source.location)
    if not path.is_file():
        where = f" ({spec.file}: source)" if spec.file else ""
        raise ModelError(f"there is no file {path}{where}; wanted a model of kind {spec.source.kind}")
    return _READERS[spec.source.kind](path)
