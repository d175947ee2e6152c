"""``segcore segment``: photos in, masks, overlays and a table out."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import Progress
from rich.text import Text

from segcore.cli.options import calibration_option, fetch_settings, listing, offline_option
from segcore.core.errors import EXIT_BAD_INPUT, ImageError, UsageError

if TYPE_CHECKING:
    from segcore.inference.pipeline import Segmenter
    from segcore.measurement.profiling import Profile

TOP = 15
"""Operators of a profile that are printed; the trace has all."""


@dataclass(frozen=True)
class Segmented:
    """What became of one photo."""

    photo: str
    error: str | None = None
    width: int = 0
    height: int = 0
    dominant: str = ""
    fractions: dict[str, float] | None = None
    mask: str | None = None
    overlay: str | None = None
    seconds: float = 0.0


@click.command()
@click.argument("photos", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", default="fcn_resnet101", show_default=True, help="Model name; see `segcore models`.")
@click.option("--weights", default="pretrained", show_default=True, help="'pretrained', 'random' or a checkpoint.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option(
    "--runtime", default="torch", show_default=True, help="How the model is executed; see `segcore runtimes`."
)
@click.option("--precision", default="fp32", show_default=True, help="fp32, bf16, fp16, int8.")
@calibration_option
@click.option("--size", default=640, show_default=True, type=click.IntRange(1), help="Shorter side at model scale.")
@click.option(
    "--out", default="segmented", show_default=True, type=click.Path(path_type=Path, file_okay=False), help="Directory."
)
@click.option("--overlay/--no-overlay", default=True, show_default=True, help="Also write an overlay with a legend.")
@click.option(
    "--profile",
    "trace",
    is_flag=False,
    flag_value="",
    metavar="[TRACE.json]",
    help="Also profile the first photo: stages, operators, and a trace for Perfetto (default: in --out).",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@offline_option
def segment(
    photos: tuple[Path, ...],
    model: str,
    weights: str,
    device: str,
    runtime: str,
    precision: str,
    calibration: tuple[str, ...],
    size: int,
    out: Path,
    overlay: bool,
    trace: str | None,
    as_json: bool,
    offline: bool,
) -> None:
    """Segment PHOTOS into the 21 PASCAL VOC classes.

    Writes NAME.mask.png, an indexed PNG in the photo's own size with the VOC palette, and NAME.overlay.png. A photo
    that cannot be read is reported, the others go on, and the exit code is 2.
    """
    from segcore.core.files import write_file
    from segcore.inference.pipeline import Segmenter
    from segcore.inference.preprocess import calibration_photos
    from segcore.measurement.profiling import profile

    if trace and not trace.endswith(".json"):
        raise UsageError(
            f"--profile {trace}: wanted a name that ends in .json for the trace, or --profile behind PHOTOS"
        )
    how = {"device": device, "runtime": runtime, "precision": precision}
    segmenter = Segmenter(
        model,
        weights=weights,
        size=size,
        settings=fetch_settings(offline),
        calibration=calibration_photos(calibration, [precision]),
        **how,
    )
    names = _output_names(photos)
    results = []
    stderr = Console(stderr=True)
    with Progress(console=stderr, transient=True, disable=len(photos) < 2 or not stderr.is_terminal) as progress:
        for photo, name in progress.track(list(zip(photos, names, strict=True)), description="segmenting"):
            results.append(_segment_one(segmenter, photo, out / name, overlay))
    readable = next((result.photo for result in results if not result.error), None)
    found = None
    if trace is not None and readable is not None:
        found = profile(segmenter, readable)
        trace = trace or str(out / f"{Path(readable).stem}.trace.json")
        if found.trace is None:
            trace = None
        else:
            write_file(Path(trace), found.trace)
    if as_json:
        about = {
            "model": model,
            "weights": vars(segmenter.weights),
            **how,
            "device": segmenter.device.name,
            "size": size,
        }
        if found:
            operators = [vars(cost) for cost in found.operators]
            about["profile"] = {"stage_ms": found.stage_ms, "operators": operators, "trace": trace}
        click.echo(json.dumps({**about, "photos": [vars(result) for result in results]}, indent=2))
    else:
        _print_table(results, weights, out)
        if found:
            _print_profile(found, f"Trace: {trace}" if trace else f"{runtime} writes no trace.")
    for result in results:
        if result.error:
            click.echo(f"segcore: {result.error}", err=True)
    if any(result.error for result in results):
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _segment_one(segmenter: Segmenter, photo: Path, target: Path, overlay: bool) -> Segmented:
    from segcore.core.files import write_file
    from segcore.core.image_files import save_indexed_png
    from segcore.report.legend import with_legend

    try:
        result = segmenter(photo)
    except ImageError as error:
        return Segmented(str(photo), error=str(error))
    target.parent.mkdir(parents=True, exist_ok=True)
    mask = target.with_name(f"{target.name}.mask.png")
    save_indexed_png(result.class_map, mask)
    overlay_path = None
    if overlay:
        overlay_path = target.with_name(f"{target.name}.overlay.png")
        buffer = io.BytesIO()
        with_legend(result.overlay(), result.fractions).save(buffer, format="PNG")
        write_file(overlay_path, buffer.getvalue())
    height, width = result.class_map.shape
    return Segmented(
        photo=str(photo),
        width=width,
        height=height,
        dominant=result.dominant,
        fractions=result.fractions,
        mask=str(mask),
        overlay=str(overlay_path) if overlay_path else None,
        seconds=sum(result.timings.values()),
    )


def _print_profile(found: Profile, trace: str) -> None:
    console = Console()
    whole = sum(found.stage_ms.values())
    stages = listing(found.title)
    for column in ("ms", "share"):
        stages.add_column(column, justify="right")
    for stage, milliseconds in found.stage_ms.items():
        stages.add_row(stage, f"{milliseconds:.1f}", f"{milliseconds / whole:.1%}")
    operators = listing("operator", "kind")
    for column in ("calls", "ms", "share"):
        operators.add_column(column, justify="right")
    for cost in found.operators[:TOP]:
        figures = (str(cost.calls), f"{cost.total_ms:.1f}", f"{cost.share:.1%}")
        operators.add_row(Text(cost.operator), Text(cost.kind), *figures)
    for table in (stages, operators):
        console.print()
        console.print(table)
    left = found.operators[TOP:]
    if left:
        console.print(f"and {len(left)} more, {sum(cost.share for cost in left):.1%}", highlight=False)
    console.print(Text(f"{found.calls} calls under the profiler, which slows them down; operators: all calls. {trace}"))


def _output_names(photos: tuple[Path, ...]) -> list[str]:
    """Name outputs after the photos' stems; photos of one stem get -2, -3, ... so that none overwrites another."""
    names: list[str] = []
    for photo in photos:
        name, number = photo.stem, 1
        while name in names:
            number += 1
            name = f"{photo.stem}-{number}"
        names.append(name)
    return names


def _print_table(results: list[Segmented], weights: str, out: Path) -> None:
    console = Console()
    table = listing("photo", "dominant", "classes")
    table.add_column("ms", justify="right")
    for result in results:
        if result.fractions is None:
            table.add_row(Text(Path(result.photo).name), Text("unreadable", style="red"), "", "")
            continue
        shares = ", ".join(f"{name} {share:.1%}" for name, share in result.fractions.items())
        table.add_row(Text(Path(result.photo).name), result.dominant, shares, f"{result.seconds * 1e3:.0f}")
    console.print(table)
    if weights == "random":
        console.print("The weights are random: these classes mean nothing.", style="yellow")
    written = sum(result.error is None for result in results)
    console.print(Text(f"{written} of {len(results)} photos written to {out}/"))
