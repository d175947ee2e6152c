"""Speed beside the plain recipe, in turns in one process: medians of the rounds' ratios, and their quartiles.

The last two columns of `end-to-end` hold the forward pass against the fastest product of
`segcore.measurement.calibration` in the same precision, measured in the same rounds.

    python bench/performance/speed.py outside --model embedded
    python bench/performance/speed.py end-to-end --model fcn_resnet101 --weights random --backend openvino:int8

Without PHOTO a JPEG of 1546 x 1213 pixels is made from a photo that ships with scikit-image.
"""

from __future__ import annotations

import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click
import numpy as np
import recipe
from PIL import Image

from segcore import Segmenter
from segcore.evaluation.backends import Backend, interleave
from segcore.inference import allocator, models
from segcore.inference.devices import Device
from segcore.inputs.images import resource_path
from segcore.measurement.calibration import calibrate
from segcore.report.table import Row, Table, to_markdown

CPU = Device("cpu")
RECIPE = ("recipe", "fp32")
SPEED = ("ms", "speedup", "quartiles", "of least times")
FORMATS: dict[str, Callable[[float], str]] = {
    "ms": "{:.1f}".format,
    "speedup": "{:.2f}".format,
    "of least times": "{:.2f}".format,
    "pixels equal, %": "{:.2f}".format,
    "GMAC/s": "{:.0f}".format,
    "peak, GMAC/s": "{:.0f}".format,
}


def photo_file(directory: Path) -> Path:
    """Write the photo that is measured where none is named."""
    path = directory / "photo.jpg"
    Image.open(resource_path("skimage:astronaut.png")).convert("RGB").resize((1546, 1213)).save(path, quality=90)
    return path


def speed_row(backend: Backend, seconds: dict[Backend, tuple[float, ...]]) -> Row:
    """Return a backend's milliseconds, and how many times as fast as the recipe it is, with quartiles."""
    ratios = [base / mine for base, mine in zip(seconds[RECIPE], seconds[backend], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    least = min(seconds[RECIPE]) / min(seconds[backend])
    quartiles = f"{low:.2f} to {high:.2f}" if backend != RECIPE else ""
    return (" ".join(backend), 1e3 * statistics.median(seconds[backend]), middle, quartiles, least)


@click.command()
@click.argument("what", type=click.Choice(["outside", "end-to-end"]))
@click.argument("photo", required=False, type=click.Path(path_type=Path, exists=True))
@click.option("--model", default="embedded", show_default=True)
@click.option("--weights", default="pretrained", show_default=True)
@click.option("--size", default=640, show_default=True)
@click.option(
    "--backend", "backends", multiple=True, default=["torch:fp32"], show_default=True, help="RUNTIME:PRECISION."
)
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(2))
def main(
    what: str, photo: Path | None, model: str, weights: str, size: int, backends: Sequence[str], rounds: int
) -> None:
    """Time segcore beside the recipe."""
    allocator.keep_freed_memory()
    loaded = models.load(model, weights)
    with tempfile.TemporaryDirectory() as directory:
        path = photo or photo_file(Path(directory))
        if what == "outside":
            outside(loaded, path, size, rounds)
        else:
            end_to_end(
                loaded, path, size, [(backend.split(":")[0], backend.split(":")[1]) for backend in backends], rounds
            )


def outside(model: models.LoadedModel, photo: Path, size: int, rounds: int) -> None:
    """Compare everything outside the forward pass; the masks have to be equal."""
    segmenter = Segmenter(model.module, device=CPU, size=size)
    first = segmenter.run([photo])[0]
    assert first.logits is not None  # results of `run` hold them
    logits = first.logits[None].clone()
    np.testing.assert_array_equal(first.model_color_mask, recipe.outside(photo, size, logits))
    stages: list[dict[str, float]] = []

    def ours() -> None:
        stages.append(segmenter.run([photo])[0].timings)

    theirs = interleave(
        {RECIPE: partial(recipe.outside, photo, size, logits), ("segcore", "fp32"): ours}, rounds, again_s=0.0
    )
    kept = tuple(sum(seconds for name, seconds in stage.items() if name != "forward") for stage in stages)
    own = ("segcore", "fp32")
    seconds = {RECIPE: theirs[RECIPE], own: kept}
    parts = [(name, 1e3 * statistics.median(stage[name] for stage in stages)) for name in stages[0]]
    rows: list[Row] = [speed_row(RECIPE, seconds), speed_row(own, seconds)]
    rows += [(f"of that, {name}", value, None, "", None) for name, value in parts if name != "forward"]
    click.echo(to_markdown(Table(("outside the forward pass", *SPEED), tuple(rows), formats=FORMATS)))


def end_to_end(model: models.LoadedModel, photo: Path, size: int, backends: Sequence[Backend], rounds: int) -> None:
    """Compare photo file to colour mask, and say what share of the peak of its precision the forward pass reaches."""
    segmenters = {
        backend: Segmenter(model.module, device=CPU, size=size, runtime=backend[0], precision=backend[1])
        for backend in backends
    }
    module = recipe.network(model)
    expected = recipe.end_to_end(module, photo, size)
    forward: dict[Backend, list[float]] = {backend: [] for backend in backends}
    peaks: dict[str, list[float]] = {precision: [] for _, precision in backends}

    def plain() -> None:
        with allocator.default_settings():
            recipe.end_to_end(module, photo, size)

    arms: dict[Backend, Callable[[], object]] = {RECIPE: plain}
    equals: dict[Backend, float] = {}
    for backend, segmenter in segmenters.items():
        result = segmenter.run([photo])[0]
        segmenter.settle(partial(segmenter.run, [photo]))
        equal = float((result.model_color_mask == expected).all(axis=-1).mean())
        equals[backend] = equal

        def arm(backend: Backend = backend, segmenter: Segmenter = segmenter) -> None:
            forward[backend].append(segmenter.run([photo])[0].timings["forward"])

        arms[backend] = arm

    def calibrated(precision: str) -> None:
        if record := calibrate(CPU, precision):
            peaks[precision].append(record.peak_gmacs_per_s)

    arms |= {("calibration", precision): partial(calibrated, precision) for precision in peaks}
    seconds = interleave(arms, rounds)
    _, _, height, width = next(iter(segmenters.values())).run([photo])[0].input_shape
    cost = models.gmacs(model.name, height, width)
    rows: list[Row] = [(*speed_row(RECIPE, seconds), None, None, None, "")]
    for backend, times in forward.items():
        rate, found = cost / statistics.median(times), peaks[backend[1]]
        peak = statistics.median(found) if found else math.nan
        share = "disturbed" if rate > peak else f"{100 * rate / peak:.0f} %"
        rows.append((*speed_row(backend, seconds), 100 * equals[backend], rate, peak, share))
    columns = (f"{model.name}, {height} x {width}", *SPEED, "pixels equal, %", "GMAC/s", "peak, GMAC/s", "of peak")
    click.echo(to_markdown(Table(columns, tuple(rows), right=("of peak",), formats=FORMATS)))


if __name__ == "__main__":
    main()
