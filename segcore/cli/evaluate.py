"""``segcore evaluate``: scores of a model on a dataset, as a table and as a run file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from segcore.cli import completion
from segcore.cli.options import PATH, POSITIVE, DropLimits, ModelOptions, json_option, option, option_group
from segcore.core.errors import DatasetError, UsageError

if TYPE_CHECKING:
    from segcore.core.records import Run
    from segcore.evaluation.datasets import Engine, Evaluation
    from segcore.inference.pipeline import Segmenter
    from segcore.inputs.datasets import Dataset

DIRECTORY = Path("reports/evaluations")


@dataclass(frozen=True)
class DatasetOptions:
    """The images to score."""

    layout: str = option(flag="--dataset", required=True, help="Layout: voc, coco, cityscapes or folder.")
    root: Path = option(required=True, type=PATH, help="Directory of the dataset.")  # noqa: RUF009  # a field
    split: str | None = option(help="Split (default: val); for a folder, a subdirectory.")
    limit: int | None = option(type=POSITIVE, help="Score only the first LIMIT images.")
    labels: str | None = option(help="Classes of the masks: a known set or a file (default: those of the layout).")
    masks: str = option(default="indices", help="What masks hold: indices, colours (those of --labels) or binary.")
    map_file: Path | None = option(  # noqa: RUF009  # a field
        flag="--map", type=PATH, help="YAML file: what the dataset's classes count as for a model with others."
    )

    def open(self) -> Dataset:
        """Open the dataset."""
        from segcore.inputs.datasets import open_dataset

        found = open_dataset(
            self.layout, self.root, self.split, labels=self.labels, masks=self.masks, label_map=self.map_file
        )
        return found.first(self.limit)


@dataclass(frozen=True)
class EngineOptions:
    """What scores the images: this process, or actors of a Ray cluster."""

    engine: str = option(default="local", type=click.Choice(["local", "ray"]), help="Execution engine.")
    address: str | None = option(help="Address of the Ray cluster (default: start one on this machine).")
    actors: int | None = option(type=POSITIVE, help="Ray actors (default: as many as fit).")
    cpus: int = option(default=1, type=POSITIVE, help="Processors per Ray actor.")
    gpus: float = option(default=0.0, type=click.FloatRange(0), help="GPUs per Ray actor.")

    def open(self, make: Callable[[], Segmenter]) -> Engine | None:
        """Return the engine; None for this process."""
        if self.engine == "local":
            return None
        from segcore.evaluation.ray_engine import RayEngine

        return RayEngine(make, actors=self.actors, cpus=self.cpus, gpus=self.gpus, address=self.address)


@click.command()
@option_group(DatasetOptions, "source")
@option_group(ModelOptions, model="embedded", size=520)
@click.option(
    "--protocol",
    "protocols",
    multiple=True,
    default=("voc-original",),
    help="voc-original, torchvision-references or per-image (repeatable).",
)
@click.option("--batch", default=1, type=POSITIVE, help="Images of one shape that go through the model together.")
@click.option("--workers", default=2, type=POSITIVE, help="Threads that decode images.")
@click.option("--worst", default=10, type=click.IntRange(0), help="Number of worst images to save.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help=f"Run file (default: in {DIRECTORY}/).")
@click.option("--resume", is_flag=True, help="Continue an interrupted evaluation with the same --out.")
@option_group(EngineOptions, "cluster")
@click.option(
    "--against",
    "baseline",
    metavar="RUN",
    shell_complete=completion.RUN,
    help="Judge against this run image by image; stop once decided.",
)
@option_group(DropLimits, "drops")
@json_option
def evaluate(
    source: DatasetOptions,
    options: ModelOptions,
    protocols: tuple[str, ...],
    out: Path | None,
    cluster: EngineOptions,
    baseline: str | None,
    drops: DropLimits,
    as_json: bool,
    **scoring: Any,
) -> None:
    """Score a model on a dataset: mIoU and other metrics by protocol, with 95 % confidence intervals.

    Writes a run file (for `segcore gate`, `report` and `compare`) and, beside it, a journal that --resume continues
    from and pictures of the worst images. Images that cannot be read are reported at the end, the others are scored,
    and the exit code is 2.

    With --against, images are scored in random order until each score is judged, and the exit codes are those of
    `segcore gate`.
    """
    from segcore.cli.against import against
    from segcore.cli.gate import publish
    from segcore.cli.output import exit_if_any, show_json
    from segcore.core.files import is_replaced
    from segcore.evaluation.datasets import ScoringOptions
    from segcore.evaluation.datasets import evaluate as run_evaluation
    from segcore.evaluation.protocols import choose
    from segcore.inputs.datasets import fit
    from segcore.results.store import resolve_run

    choose(protocols, options.size)  # fails before a long download
    if drops != DropLimits() and baseline is None:
        raise UsageError("--max-miou-drop and --max-iou-drop judge against a run: add --against RUN")
    started = datetime.now(UTC).isoformat(timespec="seconds")
    dataset = source.open()
    make = options.segmenter_factory()
    segmenter = make()
    dataset = fit(dataset, segmenter.labels)
    out = out or DIRECTORY / f"{dataset.name}-{segmenter.model_name}-{segmenter.size}.json"
    judged = None
    if baseline:
        judged = against(resolve_run(baseline, DIRECTORY), out, dataset, protocols, segmenter, drops.limits())
    saved: list[tuple[Run, list[str]]] = []
    with _progress(len(dataset)) as progress:
        evaluation = run_evaluation(
            segmenter,
            dataset,
            protocols=protocols,
            options=ScoringOptions(journal=out.with_suffix(".journal.jsonl") if is_replaced(out) else None, **scoring),
            engine=cluster.open(make),
            progress=progress,
            save=lambda evaluation: saved.append(_save(evaluation, segmenter, dataset, out, started)),
            enough=judged.enough if judged else None,
        )
    (run, problems), *_ = saved
    if as_json and not judged:
        show_json({"results": [result.model_dump(mode="json", exclude={"counts"}) for result in evaluation.results]})
    elif not as_json:
        _print(evaluation, run, in_process=cluster.engine == "local")
    failures = list(evaluation.failed.values())
    if failures:
        problems = [*problems, *failures, f"{len(failures)} of {len(dataset)} images could not be scored"]
    verdict = judged.result(run) if judged else None
    if verdict:
        publish(verdict, as_json)
    exit_if_any(problems)
    if verdict:
        click.get_current_context().exit(verdict.exit_code)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int, float], None]]:
    """Yield a callback for each image that draws a bar with the mIoU so far and the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    from segcore.cli.output import progress_bar

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("mIoU {task.fields[miou]:.3f}"), TimeRemainingColumn())
    with progress_bar(*columns) as progress:
        task = progress.add_task("", total=total, start=False, miou=float("nan"))

        def update(done: int, miou: float) -> None:
            if not progress.tasks[0].started:  # images of a resumed journal must not count as speed
                progress.update(task, completed=done - 1)
                progress.start_task(task)
            progress.update(task, completed=done, miou=miou)

        yield update


def _save(
    evaluation: Evaluation, segmenter: Segmenter, dataset: Dataset, path: Path, started: str
) -> tuple[Run, list[str]]:
    """Write the run file and, unless it is a pipe or a device, pictures of the worst images beside it.

    Returns the run, and why some pictures could not be written.
    """
    from segcore.core.files import is_replaced
    from segcore.core.records import Benchmark, LabelsRecord, OutcomeRecord, Run, RunRecord
    from segcore.evaluation.datasets import records_of
    from segcore.evaluation.pictures import save_worst
    from segcore.measurement import machine
    from segcore.results.store import save_run

    if not evaluation.images:
        reason = next(iter(evaluation.failed.values()))
        raise DatasetError(f"none of {len(dataset)} images could be scored; the first: {reason}")
    worst = evaluation.results[0].worst if is_replaced(path) else ()
    worst, problems = save_worst(segmenter, dataset, worst, path.with_suffix(".worst"))
    infos = records_of(evaluation, segmenter, worst)
    seconds = evaluation.forward_s / evaluation.images
    passed = [OutcomeRecord(item=info.key, kind="dataset", outcome="passed", key=info.key) for info in infos]
    failed = [
        OutcomeRecord(item=f"{dataset.name}: {name}", kind="dataset", outcome="error", reason=reason)
        for name, reason in evaluation.failed.items()
    ]
    run = Run(
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
            labels=(LabelsRecord.of(segmenter.labels),),
            int8=(segmenter.int8_record,) if segmenter.int8_record else (),
        ),
        benchmarks=tuple(Benchmark(name=info.key, samples=(seconds,), info=info) for info in infos),
    )
    save_run(run)
    return run, problems


def _print(evaluation: Evaluation, run: Run, in_process: bool) -> None:
    from segcore.cli.output import show
    from segcore.report.tables import dataset_tables

    show(*(replace(table, notes=()) for table in dataset_tables(run, None)))  # failures go to standard error
    first = run.benchmarks[0].info
    if first.weights.kind == "random":
        show("The weights are random: these scores mean nothing.")
    if first.dataset and first.dataset.worst:
        worst = ", ".join(f"{record.name} ({record.miou:.3f})" for record in first.dataset.worst[:3])
        show(f"worst: {worst}; pictures in {run.path.with_suffix('.worst')}/")
    aside = ""
    if evaluation.resumed:
        aside = f", {evaluation.resumed} of the images scored by an earlier run"
    elif in_process:
        aside = f", {evaluation.forward_s / evaluation.wall_s:.0%} of it in the forward pass"
    show(f"{evaluation.images} images in {evaluation.wall_s:.1f} s{aside}; run file: {run.path}")
