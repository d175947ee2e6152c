"""``segcore fetch``: downloads ahead of time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import click

from segcore.cli import completion
from segcore.cli.completion import completes
from segcore.cli.options import PATH, fetch_settings, json_option, offline_option


@click.command()
@click.option(
    "--model",
    "model_names",
    multiple=True,
    shell_complete=completes(completion.models),
    help="Pretrained weights of this model (repeatable).",
)
@click.option("--models", "model_files", default="models", type=PATH, help="Directory of model files.")
@click.option("--cases", "case_path", type=PATH, help="Photos and masks of these cases.")
@click.option("--all", "everything", is_flag=True, help="Weights of fcn_resnet101, and the photos of cases/.")
@json_option
@offline_option
def fetch(
    model_names: tuple[str, ...],
    model_files: Path,
    case_path: Path | None,
    everything: bool,
    as_json: bool,
    offline: bool,
) -> None:
    """Download weights and reference photos into the cache. Files already there are verified, not fetched again."""
    from segcore.cli.output import exit_if_any, show_json
    from segcore.core.errors import DownloadError
    from segcore.inputs.cases import load_cases, resolve_image, resolve_mask

    settings = fetch_settings(offline)
    if everything:
        model_names = tuple(dict.fromkeys([*model_names, "fcn_resnet101"]))
        case_path = case_path or Path("cases")
    if not model_names and case_path is None:
        raise click.UsageError("nothing to fetch: give --model NAME, --cases DIR or --all")
    downloads: list[tuple[str, Callable[[], Path | None]]] = []
    if model_names:
        from segcore.inference.models.sources import find_model, weights_of  # loads torch, which takes seconds
        from segcore.inputs.model_files import open_model_files

        files = open_model_files(model_files)
        specs = [find_model(name, files) for name in model_names]
        downloads += [(spec.name, partial(weights_of, spec, settings)) for spec in specs]
    for case in load_cases(case_path) if case_path else ():
        downloads.append((case.name, partial(resolve_image, case, settings)))
        downloads.append((f"{case.name} mask", partial(resolve_mask, case, settings)))
    fetched, errors = [], []
    for label, download in downloads:
        try:
            path = download()
        except DownloadError as error:
            errors.append(f"{label}: {error}")
            continue
        if path is None:  # there is no mask
            continue
        fetched.append({"name": label, "path": path, "size_bytes": path.stat().st_size if path.is_file() else None})
        if not as_json:
            click.echo(f"{label}: {path}")
    if as_json:
        show_json({"files": fetched, "errors": errors})
    exit_if_any(errors)
