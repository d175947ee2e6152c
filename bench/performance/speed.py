"""Speed beside the plain recipe, in turns in one process: medians of the rounds' ratios, and their quartiles.

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

CPU = Device("cpu")
RECIPE = ("recipe", "fp32")


def photo_file(directory: Path) -> Path:
    """Write the photo that is measured where none is named."""
    path = directory / "photo.jpg"
    Image.open(resource_path("skimage:astronaut.png")).convert("RGB").resize((1546, 1213)).save(path, quality=90)
    return path


def report(seconds: dict[Backend, tuple[float, ...]]) -> None:
    """Print the ratio of the recipe's time to each other's."""
    for backend, own in seconds.items():
        ratios = [base / mine for base, mine in zip(seconds[RECIPE], own, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        best = min(seconds[RECIPE]) / min(own)
        click.echo(
            f"{' '.join(backend):22} {statistics.median(own) * 1e3:9.1f} ms   {middle:5.2f} times as fast "
            f"(quartiles {low:.2f} to {high:.2f}; least times {min(own) * 1e3:.1f} ms, {best:.2f})"
        )


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

    theirs = interleave({RECIPE: partial(recipe.outside, photo, size, logits), ("segcore", "fp32"): ours}, rounds)
    kept = tuple(sum(seconds for name, seconds in stage.items() if name != "forward") for stage in stages)
    report({RECIPE: theirs[RECIPE], ("segcore", "fp32"): kept})
    for name in stages[0]:
        click.echo(f"  {name:12} {statistics.median(stage[name] for stage in stages) * 1e3:8.2f} ms")
    click.echo("masks equal to the recipe's to the bit")


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
    for backend, segmenter in segmenters.items():
        result = segmenter.run([photo])[0]
        equal = float((result.model_color_mask == expected).all(axis=-1).mean())
        click.echo(f"{' '.join(backend):22} {equal:.4%} of the pixels as the recipe has them")

        def arm(backend: Backend = backend, segmenter: Segmenter = segmenter) -> None:
            forward[backend].append(segmenter.run([photo])[0].timings["forward"])

        arms[backend] = arm

    def calibrated(precision: str) -> None:
        if record := calibrate(CPU, precision):
            peaks[precision].append(record.peak_gmacs_per_s)

    arms |= {("calibration", precision): partial(calibrated, precision) for precision in peaks}
    seconds = interleave(arms, rounds)
    report({backend: times for backend, times in seconds.items() if backend[0] != "calibration"})
    _, _, height, width = next(iter(segmenters.values())).run([photo])[0].input_shape
    cost = models.gmacs(model.name, height, width)
    click.echo(f"the network: {cost:.1f} GMAC at {width}x{height}")
    for backend, times in forward.items():
        rate, found = cost / statistics.median(times), peaks[backend[1]]
        peak = statistics.median(found) if found else math.nan
        share = "disturbed" if rate > peak else f"{rate / peak:.2f} of it"
        click.echo(f"{' '.join(backend):22} forward {rate:6.0f} GMAC/s; peak in {backend[1]} {peak:.0f}, {share}")


if __name__ == "__main__":
    main()
