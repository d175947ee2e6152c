"""Networks of transformers, from a local directory."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch

from segcore.core.errors import ModelError, NotInstalledError
from segcore.core.model_spec import ModelSpec
from segcore.core.quiet import quiet
from segcore.core.text import first_line
from segcore.inference.models.checkpoint import RANDOM_SEED
from segcore.inference.models.sources import Opened, describe, load_weights
from segcore.inference.process_state import alone, seeded
from segcore.inputs.download import FetchSettings
from segcore.inputs.hugging_face import CONFIG


def open_network(spec: ModelSpec, weights: str, settings: FetchSettings | None) -> Opened:
    """Return the network in a directory, its record, and the spec with what its configuration says."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise NotInstalledError(
            f"{spec.source.location} needs the package transformers; pip install 'segcore[transformers]'"
        ) from error
    directory = Path(spec.source.location)
    if not (directory / CONFIG).is_file():
        raise ModelError(f"{spec.file or 'model'}: transformers: there is no {directory / CONFIG}")
    spec = describe(spec)
    auto = transformers.AutoModelForSemanticSegmentation
    try:
        with alone(), quiet(), contextlib.redirect_stderr(io.StringIO()):  # a progress bar for each shard
            if weights != "pretrained":
                config = transformers.AutoConfig.from_pretrained(directory, local_files_only=True)
                with seeded(RANDOM_SEED):
                    module = auto.from_config(config)  # type: ignore[no-untyped-call]  # transformers'
            else:
                module, found = auto.from_pretrained(
                    directory, local_files_only=True, output_loading_info=True, dtype=torch.float32
                )
                _check(found, directory)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = (first_line(error) or type(error).__name__)[:300]
        raise ModelError(f"transformers cannot open {directory}: {reason}") from error
    path = None if weights in ("pretrained", "random") else Path(weights)
    return module, load_weights(module, spec, weights, path, directory.name), spec


def _check(found: dict[str, object], directory: Path) -> None:
    """Refuse a directory whose weights are not all there: transformers would invent them."""
    for what in ("missing_keys", "mismatched_keys"):
        if keys := list(found.get(what) or ()):  # type: ignore[call-overload]  # a list or set
            raise ModelError(f"{directory}: {len(keys)} weights are missing or have another shape ({keys[0]}, ...)")
