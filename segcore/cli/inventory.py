"""``segcore devices``, ``models``, ``fetch`` and ``cases``: what there is, and getting what there is not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from segcore.cli.options import fetch_settings, json_option, listing, offline_option
from segcore.core.errors import EXIT_BAD_INPUT, DeviceError, DownloadError

if TYPE_CHECKING:
    from segcore.inputs.cases import Case

GMACS_SHAPE = (520, 520)
"""Height and width at which costs are listed: those of torchvision's own tables."""


def _megabytes(size: int | None) -> str:
    return f"{size / 1e6:.1f} MB" if size else ""


@click.command()
@json_option
def devices(as_json: bool) -> None:
    """List CUDA, MPS and CPU as found, with what was found out about each, and whether its energy can be counted."""
    from segcore.inference.devices import detect_device, find_devices

    found = find_devices()
    energy = {info.name: _energy(info.name) for info in found if info.available}
    best = str(detect_device())
    if as_json:
        rows = [{**vars(info), **energy.get(info.name, {})} for info in found]
        click.echo(json.dumps({"auto": best, "devices": rows}, indent=2))
        return
    table = listing("device", "here", "detail", "memory")
    for info in found:
        mark = Text("yes", style="green") if info.available else Text("no", style="dim")
        table.add_row(info.name, mark, Text(info.detail), _megabytes(info.memory_bytes))
    console = Console()
    console.print(table)
    console.print(f"auto is {best}", highlight=False)
    for name, status in energy.items():
        counted = status["energy_counter"] or f"not counted: {status['why_no_energy']}"
        console.print(Text(f"energy of {name}: {counted}", style="" if status["energy_counter"] else "dim"))


def _energy(device: str) -> dict[str, str | None]:
    """Name of the energy counter of a device, or why there is none."""
    from segcore.measurement.energy import open_counter

    try:
        return {"energy_counter": open_counter(device).name, "why_no_energy": None}
    except DeviceError as error:
        return {"energy_counter": None, "why_no_energy": str(error)}


@click.command()
@json_option
@offline_option
def models(as_json: bool, offline: bool) -> None:
    """List every model: parameters, multiply-accumulates of one 520x520 photo, weights, and whether they are here."""
    from segcore.inference import models as registry

    settings = fetch_settings(offline)
    found = [(registry.weights_status(name, settings), name) for name in registry.model_names()]
    if as_json:
        rows = [
            {
                "model": name,
                "parameters": registry.parameter_count(name),
                "gmacs": registry.gmacs(name, *GMACS_SHAPE),
                "weights": status.name,
                "size_bytes": status.size_bytes,
                "path": str(status.path) if status.path else None,
                "url": status.url,
                "published": status.published,
            }
            for status, name in found
        ]
        click.echo(json.dumps({"gmacs_shape": GMACS_SHAPE, "models": rows}, indent=2))
        return
    table = listing("model")
    for column in ("params", "GMACs", "weights"):
        table.add_column(column, justify="right")
    table.add_column("here")
    for status, name in found:
        parameters, cost = registry.parameter_count(name), registry.gmacs(name, *GMACS_SHAPE)
        mark = Text("yes", style="green") if status.path else Text("no", style="yellow")
        table.add_row(name, f"{parameters / 1e6:.1f} M", f"{cost:.1f}", _megabytes(status.size_bytes), mark)
    console = Console()
    console.print(table)
    console.print(f"GMACs of one {GMACS_SHAPE[0]}x{GMACS_SHAPE[1]} photo, without auxiliary head.", highlight=False)
    if any(status.path is None for status, _ in found):
        console.print("`segcore fetch --model NAME` downloads what is not here.", highlight=False)


@click.command()
@click.option("--model", "model_names", multiple=True, help="Pretrained weights of this model (repeatable).")
@click.option("--cases", "case_path", type=click.Path(path_type=Path), help="Photos and masks of these cases.")
@click.option("--all", "everything", is_flag=True, help="fcn_resnet101 and the photos of cases/.")
@offline_option
def fetch(model_names: tuple[str, ...], case_path: Path | None, everything: bool, offline: bool) -> None:
    """Download weights and reference photos into the cache; what is there and right is not fetched again."""
    from segcore.inference import models as registry
    from segcore.inputs.cases import load_cases, resolve_image, resolve_mask

    settings = fetch_settings(offline)
    if everything:
        model_names = tuple(dict.fromkeys([*model_names, "fcn_resnet101"]))
        case_path = case_path or Path("cases")
    if not model_names and case_path is None:
        raise click.UsageError("nothing to fetch: name --model NAME, --cases DIR or --all")
    jobs: list[tuple[str, Callable[[], Path | None]]] = [
        (registry.check_name(name), partial(registry.fetch_weights, name, settings)) for name in model_names
    ]
    for case in load_cases(case_path) if case_path else ():
        jobs.append((case.name, partial(resolve_image, case, settings)))
        jobs.append((f"{case.name} mask", partial(resolve_mask, case, settings)))
    failed = 0
    for label, job in jobs:
        try:
            path = job()
        except DownloadError as error:
            failed += 1
            click.echo(f"segcore: {label}: {error}", err=True)
        else:
            if path is not None:
                click.echo(f"{label}: {path}")
    if failed:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


@click.command()
@click.argument("path", default="cases", type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Only validate; exit code 2 when anything is wrong.")
@click.option("--schema", is_flag=True, help="Print the JSON Schema that editors complete cases with.")
@json_option
def cases(path: Path, check: bool, schema: bool, as_json: bool) -> None:
    """List the cases of PATH (a file or a directory), or report everything that is wrong with them."""
    from segcore.inputs.cases import check_cases, json_schema

    if schema:
        click.echo(json.dumps(json_schema(), indent=2))
        return
    found, problems = check_cases(path)
    if as_json:
        listed = [case.model_dump(mode="json", exclude_defaults=True) for case in found]
        wrong = [{**vars(problem), "file": str(problem.file)} for problem in problems]
        click.echo(json.dumps({"cases": listed, "problems": wrong}, indent=2))
    else:
        for problem in problems:
            click.echo(str(problem), err=True)
        if check and not problems:
            click.echo(f"{len(found)} cases, nothing wrong")
        elif not check:
            _print_cases(found)
    if problems:
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _print_cases(found: Sequence[Case]) -> None:
    table = listing("case", "photo", "expected", "sizes", "tags")
    for case in found:
        expected = case.expect.dominant or ", ".join(case.expect.classes)
        sizes = ", ".join(map(str, case.sizes))
        source = case.image.resource or case.image.path or (case.image.url or "").rpartition("/")[2]
        row = [case.name, source, f"skipped: {case.skip_reason}" if case.skip_reason else expected, sizes]
        table.add_row(*map(Text, [*row, ", ".join(case.tags)]))
    Console().print(table)
