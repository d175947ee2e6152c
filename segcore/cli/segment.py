"""``segcore segment``: masks and overlays of photos."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcore.cli.options import ModelOptions, json_option, option_group
from segcore.core.errors import ImageError, OutputError, UsageError

if TYPE_CHECKING:
    from segcore.inference.pipeline import Segmenter
    from segcore.measurement.profiling import Profile
    from segcore.report.table import Table

TOP = 15
"""Operators of a profile that are printed; the trace has all of them."""
MOST_FILES = 8
"""Names of written files that are printed; `--json` has all of them."""
MAX_STEM = 235
"""Bytes of a photo's name in those of its files, which have at most 255 in all."""


@dataclass(frozen=True)
class PhotoResult:
    """What was found in one photo and where it was written, or why it could not be read or written."""

    photo: str
    error: str | None = None
    width: int = 0
    height: int = 0
    dominant: str = ""
    fractions: dict[str, float] | None = None
    mask: str | None = None
    overlay: str | None = None
    seconds: float = 0.0
    includes_warm_up: bool = False
    """Whether the time is that of the first call, which prepares memory and kernels as well."""


@click.command()
@click.argument("photos", nargs=-1, required=True)
@option_group(ModelOptions)
@click.option("--out", default="segmented", type=click.Path(path_type=Path, file_okay=False), help="Output directory.")
@click.option("--overlay/--no-overlay", default=True, help="Also write an overlay with a legend.")
@click.option(
    "--profile",
    "trace",
    is_flag=False,
    flag_value="",
    metavar="[TRACE.json]",
    help="Also profile the first photo: stages, operators, and a trace for Perfetto (default: in --out).",
)
@json_option
def segment(
    photos: tuple[str, ...], options: ModelOptions, out: Path, overlay: bool, trace: str | None, as_json: bool
) -> None:
    """Segment PHOTOS into the classes of the model: for built-in models the 21 of PASCAL VOC.

    PHOTOS are files, directories (the photos directly inside) or patterns such as 'photos/**/*.jpg'. Writes
    NAME.mask.png, an indexed PNG in the photo's own size with the VOC palette, and NAME.overlay.png, in which a class
    is outlined if it looks like the photo. A photo that cannot be read, or whose mask cannot be written, is reported,
    the others are processed, and the exit code is 2.
    """
    from segcore.cli.output import exit_if_any, show, show_json
    from segcore.core.files import write_file
    from segcore.core.text import listed
    from segcore.measurement.profiling import profile

    if trace and not trace.endswith(".json"):
        raise UsageError(f"--profile {trace}: wanted a name ending in .json, or --profile after PHOTOS")
    segmenter = options.segmenter_factory()()
    results = _segment_all(segmenter, photos, out, overlay)
    readable = next((result.photo for result in results if result.fractions), None)
    profiled, trace_file = None, None
    if trace is not None and readable is not None:
        profiled = profile(segmenter, readable)
        if profiled.trace is not None:
            trace_file = trace or str(out / f"{Path(readable).stem}.trace.json")
            write_file(Path(trace_file), profiled.trace)
    if as_json:
        show_json(_as_json(results, segmenter, profiled, trace_file))
    else:
        written = sum(result.error is None for result in results)
        show(_table(results), f"{written} of {len(results)} photos written to {out}/")
        if files := [Path(path).name for each in results for path in (each.mask, each.overlay) if path]:
            show(f"files: {listed(files, MOST_FILES)}")
        if segmenter.weights.kind == "random":
            show("The weights are random: the classes mean nothing.")
        if profiled:
            show("", *_profile_tables(profiled), f"Trace: {trace_file or 'this runtime writes none'}")
    exit_if_any([result.error for result in results if result.error])


def _segment_all(segmenter: Segmenter, locations: Sequence[str], out: Path, overlay: bool) -> list[PhotoResult]:
    """Segment photos one by one, with a progress bar for several; a stem that occurs again gets -2, -3, ..."""
    from segcore.cli.output import progress_bar
    from segcore.core.files import shortened

    results: list[PhotoResult] = []
    names: set[str] = set()
    photos = _expanded(locations)
    warm = single = len(photos) == 1
    with progress_bar(disable=single) as progress:
        for photo, problem in progress.track(photos.items(), description="segmenting"):
            if problem:
                results.append(PhotoResult(photo, error=problem))
                continue
            stem = shortened(Path(photo).stem, MAX_STEM)
            numbered = (f"{stem}-{number}" for number in itertools.count(2))
            name = next(name for name in itertools.chain([stem], numbered) if name not in names)
            names.add(name)
            warm = warm or _warm_up(segmenter, Path(photo))
            results.append(_segment_photo(segmenter, photo, out / name, overlay, includes_warm_up=single))
    return results


def _expanded(locations: Sequence[str]) -> dict[str, str]:
    """Return the photos in directories and patterns, each once, with why a directory has none; else nothing."""
    from segcore.inputs.images import find_photos

    found: dict[str, str] = {}
    for location in locations:
        try:
            found |= dict.fromkeys(find_photos([location]), "")
        except ImageError as error:  # what is not there is reported when it is opened
            found[location] = str(error) if os.path.isdir(location) else ""  # noqa: PTH112
    return found


def _warm_up(segmenter: Segmenter, photo: Path) -> bool:
    """Segment a photo without taking its time; return whether that was possible, or is too little to matter."""
    try:
        if not _why_long(photo, segmenter):
            segmenter(photo)
    except ImageError:
        return False
    return True


def _segment_photo(
    segmenter: Segmenter, photo: str, stem: Path, overlay: bool, *, includes_warm_up: bool
) -> PhotoResult:
    from segcore.cli.output import print_errors
    from segcore.core.image_files import save_png

    try:
        if why := _why_long(Path(photo), segmenter):
            print_errors([f"{photo}: {why}: this may take minutes; a smaller --size is faster"])
        result = segmenter(Path(photo))
    except ImageError as error:
        return PhotoResult(photo, error=str(error))
    problem, written = None, dict[str, str]()
    try:
        mask, picture = result.save(stem, overlay=False)
        written["mask"] = str(mask)
        if overlay:
            save_png(result.picture(), picture)
            written["overlay"] = str(picture)
    except OutputError as error:
        problem = str(error)
    height, width = result.class_map.shape
    return PhotoResult(
        photo,
        problem,
        width,
        height,
        result.dominant,
        result.fractions,
        seconds=sum(result.timings.values()),
        includes_warm_up=includes_warm_up,
        **written,
    )


def _why_long(photo: Path, segmenter: Segmenter) -> str:
    """Return why a photo will take long, nothing if it will not."""
    from segcore.core.image_files import open_image
    from segcore.inference.geometry import frame_of
    from segcore.inference.preprocess import LARGE_PIXELS

    size = segmenter.size
    with open_image(photo) as image:
        height, width = frame_of(segmenter.spec.input, image.height, image.width, size).input
    if height * width <= LARGE_PIXELS:
        return ""
    return f"{width}x{height} pixels at model scale, {height * width / size**2:.0f} times those of a square photo"


def _as_json(
    results: Sequence[PhotoResult], segmenter: Segmenter, profiled: Profile | None, trace: str | None
) -> dict[str, Any]:
    about = {
        "model": segmenter.model_name,
        "weights": vars(segmenter.weights),
        "device": segmenter.device.name,
        "runtime": segmenter.runtime,
        "precision": segmenter.precision,
        "size": segmenter.size,
    }
    if profiled:
        operators = [vars(cost) for cost in profiled.operators]
        about["profile"] = {"stage_ms": profiled.stage_ms, "operators": operators, "trace": trace}
    return {**about, "photos": [vars(result) for result in results]}


def _table(results: Sequence[PhotoResult]) -> Table:
    from segcore.report.table import Cell, Row, Table

    rows: list[Row] = []
    for result in results:
        name = Path(result.photo).name or result.photo
        if result.fractions is None:
            rows.append((name, Cell("unreadable", "bad"), "", ""))
        else:
            shares = ", ".join(f"{label} {share:.1%}" for label, share in result.fractions.items())
            rows.append((name, result.dominant, shares, 1e3 * result.seconds))
    notes = ("ms: with the warm-up of a first call.",) if any(result.includes_warm_up for result in results) else ()
    return Table(("photo", "dominant", "classes", "ms"), tuple(rows), notes=notes, formats={"ms": "{:.0f}".format})


def _profile_tables(profile: Profile) -> tuple[Table, Table]:
    from segcore.report.table import Table

    formats = {"ms": "{:.1f}".format, "share": "{:.1%}".format}
    total = sum(profile.stage_ms.values())
    stages = tuple((name, ms, ms / total) for name, ms in profile.stage_ms.items())
    top, rest = profile.operators[:TOP], profile.operators[TOP:]
    operators = tuple((cost.operator, cost.kind, cost.calls, cost.total_ms, cost.share) for cost in top)
    notes = [f"and {len(rest)} more, {sum(cost.share for cost in rest):.1%}"] if rest else []
    notes.append(f"{profile.calls} calls, slowed down by the profiler. Operators: sums over all calls.")
    return (
        Table(("stage", "ms", "share"), stages, title=profile.title, formats=formats),
        Table(("operator", "kind", "calls", "ms", "share"), operators, notes=tuple(notes), formats=formats),
    )
