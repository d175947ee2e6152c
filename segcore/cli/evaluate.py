"""``segcore evaluate``: accuracy over a dataset, as a table and as a run file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segcore.cli.options import calibration_option, fetch_settings, json_option, offline_option
from segcore.core.errors import EXIT_BAD_INPUT, DatasetError

if TYPE_CHECKING:
    from segcore.core.records import BenchmarkRecord, DatasetRecord, Run, WorstRecord
    from segcore.evaluation.datasets import Engine, Evaluation
    from segcore.inference.pipeline import Segmenter

DIRECTORY = Path("reports/evaluations")


@click.command()
@click.option("--dataset", "layout", required=True, help="voc, coco or folder.")
@click.option("--root", required=True, type=click.Path(path_type=Path), help="Directory of the dataset.")
@click.option("--split", help="Split (default: val); for a folder, a subdirectory.")
@click.option("--model", default="embedded", show_default=True, help="Model name; see `segcore models`.")
@click.option("--weights", default="pretrained", show_default=True, help="'pretrained', 'random' or a checkpoint.")
@click.option("--size", default=520, show_default=True, type=click.IntRange(1), help="Shorter side at model scale.")
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    default=("voc-original",),
    show_default=True,
    help="voc-original, torchvision-references or per-image; may be given several times.",
)
@click.option("--batch", default=1, show_default=True, type=click.IntRange(1), help="Photos of one shape at a time.")
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1), help="Threads that decode.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--runtime", default="torch", show_default=True, help="How the model is executed.")
@click.option("--precision", default="fp32", show_default=True, help="Of the arithmetic.")
@calibration_option
@click.option("--limit", type=click.IntRange(1), help="Only the first so many images.")
@click.option("--worst", default=10, show_default=True, type=click.IntRange(0), help="Worst images to show.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help=f"Run file (default: in {DIRECTORY}/).")
@click.option("--resume", is_flag=True, help="Go on with an interrupted evaluation of the same --out.")
@click.option("--engine", default="local", show_default=True, type=click.Choice(["local", "ray"]), help="Who works.")
@click.option("--address", help="Ray cluster; one is started on this machine when left away.")
@click.option("--actors", type=click.IntRange(1), help="Ray actors (default: as many as there is room for).")
@click.option("--cpus", default=1, show_default=True, type=click.IntRange(1), help="Processors of each Ray actor.")
@click.option("--gpus", default=0.0, show_default=True, type=click.FloatRange(0), help="GPUs of each Ray actor.")
@json_option
@offline_option
def evaluate(
    layout: str,
    root: Path,
    split: str | None,
    model: str,
    weights: str,
    size: int,
    protocols: tuple[str, ...],
    batch: int,
    workers: int,
    device: str,
    runtime: str,
    precision: str,
    calibration: tuple[str, ...],
    limit: int | None,
    worst: int,
    out: Path | None,
    resume: bool,
    engine: str,
    address: str | None,
    actors: int | None,
    cpus: int,
    gpus: float,
    as_json: bool,
    offline: bool,
) -> None:
    """Score a model on a dataset: mIoU and more, each under a named protocol, with 95 % confidence intervals.

    Writes a run file (for `segcore gate`, `report` and `compare`), beside it a journal that --resume goes on from, and
    pictures of the worst images. A pair that cannot be read is named at the end, the rest is scored, and the exit code
    is 2.
    """
    from segcore.evaluation.datasets import ScoringOptions
    from segcore.evaluation.datasets import evaluate as run_evaluation
    from segcore.evaluation.pictures import save_worst
    from segcore.evaluation.protocols import choose
    from segcore.inference.pipeline import Segmenter
    from segcore.inference.preprocess import calibration_photos
    from segcore.inputs.datasets import open_dataset
    from segcore.results.store import save_run

    choose(protocols, size)  # before the minutes that a download may take
    started = datetime.now(UTC).isoformat(timespec="seconds")
    dataset = open_dataset(layout, root, split).first(limit)
    make = partial(
        Segmenter,
        model,
        weights=weights,
        device=device,
        size=size,
        runtime=runtime,
        precision=precision,
        calibration=calibration_photos(calibration, [precision]),
        settings=fetch_settings(offline),
    )
    segmenter = make()
    out = out or DIRECTORY / f"{dataset.name}-{model}-{size}.json"
    with _progress(len(dataset)) as progress:
        evaluation = run_evaluation(
            segmenter,
            dataset,
            protocols=protocols,
            options=ScoringOptions(batch, workers, worst, out.with_suffix(".journal.jsonl"), resume),
            engine=_ray(make, actors, cpus, gpus, address) if engine == "ray" else None,
            progress=progress,
        )
    if not evaluation.images:
        raise DatasetError(
            f"none of {len(dataset)} images could be scored; the first: {next(iter(evaluation.failed.values()))}"
        )
    pictures = save_worst(segmenter, dataset, evaluation.results[0].worst, out.with_suffix(".worst"))
    run = run_of(evaluation, segmenter, out, started, pictures)
    save_run(run)
    if as_json:
        click.echo("[" + ",\n".join(result.model_dump_json(indent=1) for result in evaluation.results) + "]")
    else:
        _print(evaluation, segmenter, out, here=engine == "local")
    for reason in evaluation.failed.values():
        click.echo(f"segcore: {reason}", err=True)
    if evaluation.failed:
        click.echo(f"segcore: {len(evaluation.failed)} of {len(dataset)} images could not be scored", err=True)
        raise click.exceptions.Exit(EXIT_BAD_INPUT)


def _ray(make: Any, actors: int | None, cpus: int, gpus: float, address: str | None) -> Engine:
    from segcore.evaluation.ray_engine import RayEngine

    return RayEngine(make, actors=actors, cpus=cpus, gpus=gpus, address=address)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield what `evaluate` calls after each image: a bar on the terminal with the running mIoU and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("mIoU {task.fields[miou]:.3f}"), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, miou=float("nan"))
        seen = False

        def update(done: int, miou: float) -> None:
            nonlocal seen
            if not seen and done > 1:  # resumed: those images say nothing of the speed
                progress.reset(task, completed=done - 1, miou=miou)
            seen = True
            progress.update(task, completed=done, miou=miou)

        yield update


def run_of(
    evaluation: Evaluation, segmenter: Segmenter, path: Path, started: str, worst: tuple[WorstRecord, ...]
) -> Run:
    """Return the run that is stored for an evaluation: one item per protocol.

    Args:
        evaluation: what was found.
        segmenter: what ran.
        path: of the run file to be written.
        started: UTC, ISO 8601.
        worst: the worst images, with pictures relative to the directory ``NAME.worst`` beside the run file.
    """
    from segcore.core.records import Benchmark, OutcomeRecord, Run, RunRecord
    from segcore.measurement import machine

    placed = tuple(
        w.model_copy(update={"picture": f"{path.with_suffix('.worst').name}/{w.picture}"}) for w in worst if w.picture
    )
    infos = [
        _item(evaluation, result.model_copy(update={"worst": placed}), segmenter, order)
        for order, result in enumerate(evaluation.results)
    ]
    seconds = evaluation.forward_s / evaluation.images
    passed = [OutcomeRecord(item=info.key, kind="dataset", outcome="passed", key=info.key) for info in infos]
    failed = [
        OutcomeRecord(item=f"{evaluation.results[0].name}: {name}", kind="dataset", outcome="error", reason=reason)
        for name, reason in evaluation.failed.items()
    ]
    return Run(
        path=path,
        record=RunRecord(
            name=path.stem,
            started=started,
            duration_s=round(evaluation.wall_s, 3),
            complete=True,
            command=("segcore", *sys.argv[1:]),
            machine=machine.fingerprint(),
            versions=machine.package_versions(),
            git=machine.git_commit(),
            outcomes=(*passed, *failed),
        ),
        benchmarks=tuple(Benchmark(name=info.key, samples=(seconds,), info=info) for info in infos),
    )


def _item(evaluation: Evaluation, result: DatasetRecord, segmenter: Segmenter, order: int) -> BenchmarkRecord:
    from segcore.core.labels import VOC_CLASSES
    from segcore.core.records import AccuracyRecord
    from segcore.evaluation.protocols import PROTOCOLS
    from segcore.inference.recording import record_of

    classes = [name for name in evaluation.fractions if name != VOC_CLASSES[0]]
    asked = result.images + len(result.failed)
    accuracy = AccuracyRecord(
        dominant=classes[0] if classes else VOC_CLASSES[0],
        fractions=evaluation.fractions,
        iou={name: value for name in VOC_CLASSES if (value := result.scores.get(f"iou {name}")) is not None},
        miou=result.scores.get("miou"),
        pixel_accuracy=result.scores.get("pixel_accuracy"),
        metric=f"{result.protocol} on {asked} images of {result.name} (names {result.sha256[:12]}): "
        f"{PROTOCOLS[result.protocol].description}",
    )
    return record_of(
        segmenter,
        kind="dataset",
        case=f"{result.name}.{result.protocol}",
        input_shape=(1, 3, segmenter.size, segmenter.size),  # at least: photos differ in their longer side
        accuracy=accuracy,
        dataset=result,
        order=order,
    )


def _print(evaluation: Evaluation, segmenter: Segmenter, out: Path, here: bool) -> None:
    console = Console()
    for result in evaluation.results:
        console.print(_table(result, segmenter))
    if segmenter.weights.kind == "random":
        console.print("The weights are random: these figures mean nothing.", style="yellow")
    worst = evaluation.results[0].worst[:3]
    if worst:
        shown = ", ".join(f"{record.name} ({record.miou:.3f})" for record in worst)
        console.print(Text(f"worst: {shown}; pictures in {out.with_suffix('.worst')}/"))
    aside = f", {evaluation.resumed} of the images by an earlier run" if evaluation.resumed else ""
    if here and not evaluation.resumed:
        aside = f", {evaluation.forward_s / evaluation.wall_s:.0%} of it in the forward pass"
    console.print(Text(f"{evaluation.images} images in {evaluation.wall_s:.1f} s{aside}; run file: {out}"))


def _table(result: DatasetRecord, segmenter: Segmenter) -> Table:
    from segcore.evaluation.metrics import MEANS
    from segcore.report.wording import score_words

    title = f"{segmenter.model_name} at {segmenter.size} on {result.images} images of {result.name}, {result.protocol}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    table.add_column("score")
    headings = ("here", "95 % interval", *(("published", "difference") if result.published else ()))
    for heading in headings:
        table.add_column(heading, justify="right")
    for name in result.scores:
        low, high = result.intervals[name]
        cells = [f"{result.scores[name]:.4f}", f"{low:.3f} to {high:.3f}"]
        if name in result.published:
            published = result.published[name]
            cells += [f"{published:.4f}", f"{result.scores[name] - published:+.4f}"]
        table.add_row(Text(score_words(name), style="bold" if name in MEANS else ""), *cells)
    return table
