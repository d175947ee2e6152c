"""``segcore best``: the fastest backend that keeps the masks."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from segcore.cli.options import POSITIVE, ModelOptions, fetch_settings, json_option, option_group

if TYPE_CHECKING:
    from segcore.evaluation.backends import Candidate
    from segcore.report.table import Row, Table, Tone

FORMATS: dict[str, Callable[[float], str]] = {
    "runtime": str,
    "precision": str,
    "build, s": "{:.1f}".format,
    "ms": "{:.0f}".format,
    "speedup": "{:.2f}".format,
    "quartiles": str,
    "memory, MB": "{:.0f}".format,
    "mIoU drop": "{:.4f}".format,
    "changed": "{:.3%}".format,
    "logit error": "{:.2%}".format,
}
"""Columns of the table, with the format of their numbers."""


@click.command()
@click.argument("photos", nargs=-1)
@option_group(ModelOptions, without=("runtime", "precision"))
@click.option("--runtime", "runtimes", multiple=True, help="Try only this runtime beside the reference (repeatable).")
@click.option("--precision", "precisions", multiple=True, help="Try only this precision (repeatable).")
@click.option("--rounds", default=7, type=POSITIVE, help="Rounds of timing.")
@click.option(
    "--max-miou-drop",
    default=0.01,
    type=click.FloatRange(0, 1),
    help="Largest loss of mIoU allowed, measured against the masks of torch in fp32.",
)
@json_option
def best(
    photos: tuple[str, ...],
    options: ModelOptions,
    runtimes: tuple[str, ...],
    precisions: tuple[str, ...],
    rounds: int,
    max_miou_drop: float,
    as_json: bool,
) -> None:
    """Find the fastest runtime and precision that keeps a model's masks on this machine.

    Runs every backend in turns, in one process, from photo file to colour mask, on the first of PHOTOS. Compares the
    logits on all PHOTOS with those of torch in fp32. Without PHOTOS, photos that ship with scikit-image are used.
    """
    from segcore.cli.output import show, show_json
    from segcore.core.streams import progress_console
    from segcore.evaluation.backends import available_backends, benchmark_backends, fastest
    from segcore.inference import models
    from segcore.inference.devices import open_device
    from segcore.inference.pipeline import Segmenter
    from segcore.inference.preprocess import CALIBRATION_PHOTOS, calibration_photos

    device = open_device(options.device)
    spec = options.spec()
    backends = available_backends(device, runtimes, precisions, spec.source.kind)
    calibration = calibration_photos(options.calibration)
    loaded = models.load(spec, options.weights, fetch_settings(options.offline))
    make = partial(Segmenter, loaded, device=device, size=options.size, calibration=calibration)
    with progress_console().status("loading") as status:
        found = benchmark_backends(
            lambda runtime, precision: make(runtime=runtime, precision=precision),
            backends,
            photos or CALIBRATION_PHOTOS,
            rounds,
            status.update,
            device,
        )
    winner = fastest(found, max_miou_drop)
    if as_json:
        about = {"model": loaded.name, "weights": vars(loaded.weights), "device": device.name, "size": options.size}
        show_json({**about, **_as_json(found, winner, max_miou_drop)})
        return
    show(
        _table(found, winner, max_miou_drop),
        f"Best with a drop of at most {max_miou_drop:g}: "
        f"--segcore-runtime {winner.runtime} --segcore-precision {winner.precision}, or\n"
        f'Segmenter(..., runtime="{winner.runtime}", precision="{winner.precision}")',
    )
    if loaded.weights.kind == "random":
        show("The weights are random: the speed holds for any weights, the comparison of masks does not.")


def _as_json(found: tuple[Candidate, ...], winner: Candidate, max_miou_drop: float) -> dict[str, Any]:
    own = ("runtime", "precision", "options", "build_s", "memory_bytes", "seconds", "speedups", "speedup")
    of_parity = ("equal_share", "unlike_share", "miou_drop", "largest_error", "largest_logit")
    candidates = [
        {name: getattr(candidate, name) for name in own}
        | {name: getattr(candidate.parity, name) for name in of_parity}
        | {"keeps_masks": candidate.keeps_masks(max_miou_drop)}
        for candidate in found
    ]
    best_backend = {"runtime": winner.runtime, "precision": winner.precision}
    return {"max_miou_drop": max_miou_drop, "best": best_backend, "candidates": candidates}


def _table(found: tuple[Candidate, ...], winner: Candidate, max_miou_drop: float) -> Table:
    from segcore.report.table import Cell, Table

    rows: list[Row] = []
    for each in found:
        tone: Tone = "good" if each is winner else "" if each.keeps_masks(max_miou_drop) else "bad"
        backend = (Cell(each.runtime, tone), Cell(each.precision, tone))
        low, _, high = statistics.quantiles(each.speedups, n=4) if len(each.speedups) > 1 else (each.speedup,) * 3
        parity = (each.parity.miou_drop, each.parity.unlike_share, each.parity.relative_error)
        memory = None if each.memory_bytes is None else each.memory_bytes / 1e6
        speed = (1e3 * each.median_s, each.speedup, f"{low:.2f}-{high:.2f}")
        rows.append((*backend, each.build_s, *speed, memory, *parity))
    return Table(tuple(FORMATS), tuple(rows), notes=_notes(found[0]), right=("quartiles",), formats=FORMATS)


def _notes(reference: Candidate) -> tuple[str, ...]:
    name = f"{reference.runtime} {reference.precision}"
    has_logits = reference.parity.largest_logit is not None
    sure = f" where {name} was sure of its own" if has_logits else f": {name} returns no logits that say how sure it is"
    error = ("logit error: largest difference of a logit, as a share of the largest logit.",) if has_logits else ()
    return (
        "build: export, quantisation and compiling; what is in the cache is not built again.",
        "memory: what the backend adds to the process, at its peak in one call.",
        f"speedup: time of {name} over the backend's own, median of the rounds.",
        f"changed: pixels of another class{sure}.",
        *error,
    )
