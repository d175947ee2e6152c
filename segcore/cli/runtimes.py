"""``segcore runtimes`` and ``best``: backends to execute a model found here, and the fastest that keeps its masks."""

from __future__ import annotations

import json
import statistics
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from segcore.cli.options import calibration_option, fetch_settings, json_option, listing, offline_option

if TYPE_CHECKING:
    from segcore.evaluation.backends import Candidate


@click.command()
@click.option("--device", default="auto", show_default=True, help="Device that they would run on.")
@json_option
def runtimes(device: str, as_json: bool) -> None:
    """List every runtime with its precisions on a device, and why the rest is not here."""
    from segcore.inference.devices import open_device
    from segcore.inference.runtimes import RUNTIMES, why_not

    chosen = open_device(device)
    found = {
        name: {precision: why_not(name, chosen, precision) for precision in runtime.precisions}
        for name, runtime in RUNTIMES.items()
    }
    if as_json:
        click.echo(json.dumps({"device": chosen.name, "runtimes": found}, indent=2))
        return
    table = listing("runtime", f"on {chosen.name}", "what it is")
    reasons: dict[str, str] = {}
    for name, precisions in found.items():
        here = [precision for precision, reason in precisions.items() if reason is None]
        mark = Text(" ".join(here), style="green") if here else Text("no", style="dim")
        table.add_row(name, mark, Text(RUNTIMES[name].summary))
        if here:
            reasons |= {f"{name} {precision}": reason for precision, reason in precisions.items() if reason}
        else:
            reasons[name] = next(reason for reason in precisions.values() if reason)
    console = Console()
    console.print(table)
    for what, reason in reasons.items():
        console.print(Text(f"not here: {what}: {reason}", style="dim"))


@click.command()
@click.argument("photos", nargs=-1)
@click.option("--model", default="fcn_resnet101", show_default=True, help="A name of `segcore models`.")
@click.option("--weights", default="pretrained", show_default=True, help="pretrained, random or a checkpoint.")
@click.option("--device", default="auto", show_default=True, help="A name of `segcore devices`.")
@click.option("--size", default=640, show_default=True, type=click.IntRange(1), help="Shorter side at model scale.")
@click.option("--runtime", "runtimes", multiple=True, help="Only this one beside the reference (repeatable).")
@click.option("--precision", "precisions", multiple=True, help="Only this one beside the reference (repeatable).")
@click.option("--rounds", default=7, show_default=True, type=click.IntRange(1), help="Rounds of timing.")
@click.option(
    "--max-miou-drop",
    default=0.01,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="How far the mIoU may fall, the masks of torch in fp32 being the truth.",
)
@calibration_option
@json_option
@offline_option
def best(
    photos: tuple[str, ...],
    model: str,
    weights: str,
    device: str,
    size: int,
    runtimes: tuple[str, ...],
    precisions: tuple[str, ...],
    rounds: int,
    max_miou_drop: float,
    calibration: tuple[str, ...],
    as_json: bool,
    offline: bool,
) -> None:
    """Find the fastest backend to run a model here that keeps its masks.

    Runs every runtime and precision in turns, one process, photo file to colour mask, on the first of PHOTOS, and holds
    the logits of all of them against those of torch in fp32. Without PHOTOS, and without --calibration, photos that
    ship with scikit-image are used.
    """
    from segcore.evaluation.backends import available_backends, benchmark_backends, fastest
    from segcore.inference import models
    from segcore.inference.devices import open_device
    from segcore.inference.pipeline import Segmenter
    from segcore.inference.preprocess import CALIBRATION_PHOTOS, calibration_photos

    chosen = open_device(device)
    backends = available_backends(chosen, runtimes, precisions)
    calibrated_on = calibration_photos(calibration)
    loaded = models.load(model, weights, fetch_settings(offline))
    with Console(stderr=True).status("loading") as status:
        found = benchmark_backends(
            lambda runtime, precision: Segmenter(
                loaded.module,
                device=chosen,
                size=size,
                runtime=runtime,
                precision=precision,
                calibration=calibrated_on,
            ),
            backends,
            photos or CALIBRATION_PHOTOS,
            rounds,
            status.update,
        )
    winner = fastest(found, max_miou_drop)
    about = {"model": model, "weights": vars(loaded.weights), "device": chosen.name, "size": size}
    if as_json:
        rows = [{**_row(candidate), "keeps_masks": candidate.keeps_masks(max_miou_drop)} for candidate in found]
        backend = {"runtime": winner.runtime, "precision": winner.precision}
        click.echo(json.dumps({**about, "max_miou_drop": max_miou_drop, "best": backend, "candidates": rows}, indent=2))
        return
    _print_contest(found, winner, max_miou_drop)
    if weights == "random":
        Console().print("The weights are random: speed holds, parity says little about trained ones.", style="yellow")


def _row(candidate: Candidate) -> dict[str, object]:
    parity = candidate.parity
    return {
        "runtime": candidate.runtime,
        "precision": candidate.precision,
        "options": candidate.options,
        "build_s": candidate.build_s,
        "seconds": candidate.seconds,
        "speedups": candidate.speedups,
        "speedup": candidate.speedup,
        "equal_share": parity.equal_share,
        "unlike_share": parity.unlike_share,
        "miou_drop": parity.miou_drop,
        "largest_error": parity.largest_error,
        "largest_logit": parity.largest_logit,
    }


def _print_contest(found: tuple[Candidate, ...], winner: Candidate, max_miou_drop: float) -> None:
    table = listing("runtime", "precision")
    for column in ("built", "ms", "x fast", "quartiles", "mIoU drop", "unlike", "error"):
        table.add_column(column, justify="right")
    for each in found:
        low, _, high = statistics.quantiles(each.speedups, n=4) if len(each.speedups) > 1 else (each.speedup,) * 3
        parity = each.parity
        style = "green" if each is winner else None if each.keeps_masks(max_miou_drop) else "red"
        table.add_row(
            each.runtime,
            each.precision,
            f"{each.build_s:.1f} s" if each.build_s else "cached",
            f"{each.median_s * 1e3:.0f}",
            f"{each.speedup:.2f}",
            f"{low:.2f}-{high:.2f}",
            f"{parity.miou_drop:.4f}",
            f"{parity.unlike_share:.3%}",
            f"{parity.relative_error:.2%}",
            style=style,
        )
    console = Console()
    console.print(table)
    console.print(
        "x fast: torch fp32's time over its own, median of the rounds. unlike: pixels of another class although\n"
        "torch fp32 was sure. error: largest of a logit, as a share of the largest logit.\n"
        f"Best with a drop of at most {max_miou_drop:g}: --segcore-runtime {winner.runtime} "
        f"--segcore-precision {winner.precision}, or\n"
        f'Segmenter(..., runtime="{winner.runtime}", precision="{winner.precision}")',
        highlight=False,
    )
