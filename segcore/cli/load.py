"""``segcore load``: a model under the load scenarios of MLPerf Inference."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from segcore.cli.options import fetch_settings, json_option, offline_option
from segcore.core.errors import EXIT_INTERRUPTED, UsageError

if TYPE_CHECKING:
    from segcore.inference.pipeline import Segmenter
    from segcore.measurement.conditions import SystemState
    from segcore.measurement.load.driver import Driver, Run
    from segcore.measurement.load.schedule import Plan
    from segcore.measurement.load.search import Search

PHOTO = "skimage:chelsea.png"
"""Where no image is named: what slow models are timed on in the shipped cases."""
SCENARIOS = ("offline", "single-stream", "multi-stream", "server")
EXITS = {"valid": 0, "invalid": 1, "undecided": 3}
"""By the verdict on the limit."""
SHOWN = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
MAX_QUERIES = 10_000_000
"""Of the server scenario, whose arrivals are all drawn before it begins."""
QUIET_SECONDS = 2.0
"""From then on a bar is shown."""


calibration_option = click.option("--calibration", multiple=True, metavar="PHOTOS", help="Photos to calibrate int8 on.")


def listing(*columns: str) -> Table:
    """Return an empty table without lines."""
    return Table(*columns, box=None, pad_edge=False, header_style="bold")


@click.command()
@click.argument("images", nargs=-1)
@click.option("--scenario", required=True, type=click.Choice(SCENARIOS), help="How queries come.")
@click.option("--model", default="fcn_resnet101", show_default=True, help="A name of `segcore models`.")
@click.option("--weights", default="pretrained", show_default=True, help="pretrained, random or a checkpoint.")
@click.option("--device", default="auto", show_default=True, help="A name of `segcore devices`.")
@click.option("--runtime", default="torch", show_default=True, help="A name of `segcore runtimes`.")
@click.option("--precision", default="fp32", show_default=True, help="fp32, bf16, fp16, int8.")
@calibration_option
@click.option("--size", default=640, show_default=True, type=click.IntRange(1), help="Shorter side at model scale.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="server: queries per second.")
@click.option(
    "--max-p99-ms",
    type=click.FloatRange(0, min_open=True),
    help="server: limit of the 99th percentile; without --rate, the highest rate that keeps it is searched.",
)
@click.option("--streams", type=click.IntRange(1), help="multi-stream: photos in a query.  [default: 8]")
@click.option("--batch", type=click.IntRange(1), help="offline: photos that are run together.  [default: 8]")
@click.option("--queries", type=click.IntRange(1), help="Length of a run (offline: in photos).")
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="Length of a run, seconds.")
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0), help="Of arrivals and of photos.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Write the JSON into a file.")
@json_option
@offline_option
def load(
    images: tuple[str, ...],
    scenario: Any,
    model: str,
    weights: str,
    device: str,
    runtime: str,
    precision: str,
    calibration: tuple[str, ...],
    size: int,
    rate: float | None,
    max_p99_ms: float | None,
    streams: int | None,
    batch: int | None,
    queries: int | None,
    duration: float | None,
    seed: int,
    out: Path | None,
    as_json: bool,
    offline: bool,
) -> None:
    """Put a model under load as MLPerf Inference does: photo file to colour mask, IMAGES drawn at random.

    \b
    offline        all photos are there at once: throughput
    single-stream  the next query comes when the last is done: 90th percentile
    multi-stream   the same, a query being several photos: 99th percentile
    server         queries come at random (Poisson) at a rate; latency counts
                   from when a query was due: 99th percentile

    A percentile is shown where the queries prove it at 99 % confidence (MLPerf's early stopping rule); a run without
    --queries and --duration has as many as that takes, for ten seconds at least. With --max-p99-ms the exit code is 0
    where the limit is kept, 1 where it is broken, and 3 where the queries were too few to tell.
    """  # noqa: D301  # click keeps the lines of a paragraph that begins with this character
    from segcore.core.files import write_file
    from segcore.inference.pipeline import MAX_BATCH, Segmenter
    from segcore.inference.preprocess import calibration_photos
    from segcore.inputs.images import find_photos
    from segcore.measurement.conditions import read_state
    from segcore.measurement.load.driver import Driver
    from segcore.measurement.load.schedule import plan_run
    from segcore.measurement.timing import PipelineCall

    _check(scenario, {"--rate": rate, "--max-p99-ms": max_p99_ms}, streams, batch, queries, duration)
    samples = {"offline": batch or MAX_BATCH, "multi-stream": streams or MAX_BATCH}.get(scenario, 1)
    limit_s = None if max_p99_ms is None else max_p99_ms / 1e3
    plan = plan_run(scenario, samples, queries=queries, seconds=duration, rate=rate, seed=seed, limit_s=limit_s)
    if rate is not None and plan.queries > MAX_QUERIES:
        raise UsageError(f"a run of {plan.queries:,} queries: wanted {MAX_QUERIES:,} at most; lower --rate or length")
    photos = find_photos(images) if images else (PHOTO,)
    search, interrupted = None, False
    with Console(stderr=True).status("loading"):
        segmenter = Segmenter(
            model,
            weights=weights,
            device=device,
            runtime=runtime,
            precision=precision,
            size=size,
            settings=fetch_settings(offline),
            calibration=calibration_photos(calibration, [precision]),
        )
        for photo in photos:
            segmenter.run([photo])
        PipelineCall(segmenter, photos[:1] * samples, size).warm_up()
    with _bar() as watch:
        driver = Driver(_server(segmenter, photos, seed), watch, _tell)
        started, before = datetime.now(UTC).isoformat(timespec="seconds"), read_state()
        try:
            if scenario == "server" and rate is None:
                search = driver.search(plan)
            else:
                driver.run(plan)
        except KeyboardInterrupt:
            interrupted = True
    result = _result(driver, plan)
    spoken = {**_about(driver, plan, segmenter, photos, started, before), "result": _figures(result, search)}
    if as_json:
        click.echo(json.dumps(spoken))
    else:
        _print(spoken, driver, result, search)
    if out is not None:
        write_file(out, (json.dumps(spoken) + "\n").encode())
    if interrupted:
        click.echo("segcore: interrupted", err=True)
        raise click.exceptions.Exit(EXIT_INTERRUPTED)
    verdict = search.verdict if search is not None else driver.runs[-1].verdict
    raise click.exceptions.Exit(EXITS[verdict] if verdict else 0)


def _check(
    scenario: str,
    rates: dict[str, float | None],
    streams: int | None,
    batch: int | None,
    queries: int | None,
    duration: float | None,
) -> None:
    """Refuse options that say nothing in a scenario, or contradict each other."""
    from segcore.measurement.load.early_stopping import queries_needed
    from segcore.measurement.load.schedule import PERCENTILES

    homes = {**dict.fromkeys(rates, "server"), "--streams": "multi-stream", "--batch": "offline"}
    for option, value in {**rates, "--duration": duration}.items():
        if value is not None and not math.isfinite(value):
            raise UsageError(f"{option} {value}: wanted a finite number")
    for option, value in {**rates, "--streams": streams, "--batch": batch}.items():
        if value is not None and homes[option] != scenario:
            raise UsageError(f"{option} is for --scenario {homes[option]}, not {scenario}; leave it out")
    if scenario == "server" and not any(rates.values()):
        raise UsageError("--scenario server wants --rate (queries per second), --max-p99-ms (to search it), or both")
    searching = scenario == "server" and rates["--rate"] is None
    if searching and queries is not None and queries < (least := queries_needed(0, PERCENTILES["server"])):
        raise UsageError(f"--queries {queries} cannot show that a p99 keeps a limit: it takes {least}; leave it out")
    if queries is not None and duration is not None:
        raise UsageError("--queries and --duration both say how long a run is; choose one")


def _server(segmenter: Segmenter, photos: tuple[str, ...], seed: int) -> Callable[[int], object]:
    """Return what executes a query of so many photos, drawn at random with replacement as LoadGen does."""
    import numpy as np

    draw = np.random.default_rng((seed, 2))
    return lambda samples: segmenter.run([photos[i] for i in draw.integers(len(photos), size=samples)])


def _tell(run: Run) -> None:
    """Say what came of a run of a search, which may go on for minutes."""
    from segcore.report.wording import number

    late = f"{run.over} of {_count(len(run.queries), 'query')} late"
    click.echo(f"{number(run.plan.rate or 0)} queries/s: {run.verdict}, {late}, {run.elapsed_s:.0f} s", err=True)


@contextmanager
def _bar() -> Iterator[Callable[[Plan, float], None]]:
    """Yield what shows on a terminal how much of a run is done: between queries, not more than twice a second."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(20), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, auto_refresh=False)
    task = progress.add_task("", total=1.0)
    shown: Plan | None = None
    due = time.monotonic() + QUIET_SECONDS

    def watch(plan: Plan, share: float) -> None:
        nonlocal shown, due
        now = time.monotonic()
        if not console.is_terminal or now < due:
            return
        if plan is not shown:
            progress.reset(task, description=f"{plan.rate:.3g} queries/s" if plan.rate else plan.scenario)
        shown, due = plan, now + 0.5
        progress.start()
        progress.update(task, completed=share, refresh=True)

    try:
        yield watch
    finally:
        if progress.live.is_started:
            progress.stop()


def _result(driver: Driver, plan: Plan) -> Run | None:
    """Return the run whose figures are the result: of a search, the one at the highest rate that kept the limit."""
    if plan.scenario != "server" or plan.rate is not None:
        return driver.runs[-1]
    valid = [run for run in driver.runs if run.verdict == "valid"]
    return max(valid, key=lambda run: run.plan.rate or 0.0, default=None)


def _figures(run: Run | None, search: Search | None) -> dict[str, Any]:
    """Return the figures of the result; percentiles are None where the queries are too few for them."""
    from segcore.measurement.load.early_stopping import percentile_bound, queries_needed

    found: dict[str, Any] = {}
    if search is not None:
        found |= {"verdict": search.verdict, "queries_alone": search.alone}
        found |= {"highest_valid_rate": search.highest_valid, "lowest_failed_rate": search.lowest_failed}
    if run is None:
        return found
    found = {"verdict": run.verdict, "samples_per_s": run.samples_per_s} | found
    if run.plan.scenario != "offline":
        found["percentiles_s"] = {name: percentile_bound(run.latencies_s, p) for name, p in SHOWN.items()}
        missing = {name: queries_needed(1, p) - len(run.queries) for name, p in SHOWN.items()}
        found["queries_missing"] = {name: max(0, more) for name, more in missing.items()}
    return found


def _about(
    driver: Driver, plan: Plan, segmenter: Segmenter, photos: tuple[str, ...], started: str, before: SystemState
) -> dict[str, Any]:
    """Return what was run and where, with every run and the raw times of its queries."""
    from segcore.inference.preprocess import PREPROCESS
    from segcore.measurement import machine
    from segcore.measurement.conditions import describe, read_state, run_warnings
    from segcore.measurement.load.driver import Query

    after = read_state()
    runs = [
        {"plan": vars(run.plan), "complete": run.complete, "verdict": run.verdict}
        | {name: [getattr(query, name) for query in run.queries] for name in Query._fields}
        for run in driver.runs
    ]
    return {
        "scenario": plan.scenario,
        "seed": plan.seed,
        "photos": photos,
        "model": segmenter.model_name,
        "weights": vars(segmenter.weights),
        "runtime": segmenter.runtime,
        "precision": segmenter.precision,
        "runtime_options": segmenter.runtime_options,
        "device": segmenter.device.name,
        "size": segmenter.size,
        "preprocess": PREPROCESS,
        "timed": "photo file to colour mask at model scale",
        "command": ["segcore", *sys.argv[1:]],
        "started": started,
        "machine": machine.fingerprint().model_dump(),
        "versions": machine.package_versions(),
        "conditions": describe(before, after),
        "warnings": [warning.text for warning in run_warnings(before, after)],
        "runs": runs,
    }


def _print(spoken: dict[str, Any], driver: Driver, run: Run | None, search: Search | None) -> None:
    """Show what ran, of a search every rate that was tried, and the throughput and percentiles of the result."""
    from segcore.measurement.load.early_stopping import queries_needed
    from segcore.measurement.load.schedule import PERCENTILES
    from segcore.report.wording import milliseconds, number

    console = Console(highlight=False)
    what = "{scenario}: {model} at {size}, {runtime} {precision} on {device}".format(**spoken)
    console.print(Text(what, "bold"))
    tried = [each for each in driver.runs if each.verdict is not None]
    if tried:
        table = listing()
        for heading in ("queries/s", "busy", "late", "of", f"p99 in {number((tried[0].plan.limit_s or 0) * 1e3)} ms"):
            table.add_column(heading, justify="right")
        for each in tried:
            counts = number(each.plan.rate or 0), f"{each.load:.0%}", str(each.over), str(len(each.queries))
            table.add_row(*counts, each.verdict, style="green" if each is run else None)
        console.print(table)
    if search is not None:
        console.print(Text(_sentence(search)))
    if run is not None and run.queries:
        done = f"{_count(len(run.queries), 'query')}, {_count(sum(query.samples for query in run.queries), 'photo')}"
        early = run.complete and len(run.queries) < run.plan.queries
        ended = " (it ended when the limit was broken)" if early else ""
        console.print(Text(f"{done} in {run.elapsed_s:.1f} s: {number(run.samples_per_s)} photos/s{ended}"))
        figures = spoken["result"]
        for name, bound in figures.get("percentiles_s", {}).items():
            missing = f"needs {_count(figures['queries_missing'][name], 'more query')}"
            console.print(Text(f"{name}  {missing if bound is None else f'at most {milliseconds(bound)}'}"))
        if run.verdict == "undecided":
            more = queries_needed(run.over, PERCENTILES[run.plan.scenario]) - len(run.queries)
            console.print(Text(f"{_count(more, 'more query')} in time would show that the limit is kept."))
        if "percentiles_s" in figures:
            console.print("Percentiles are bounds at 99 % confidence.", style="dim")
    if spoken["weights"]["kind"] == "random":
        console.print("The weights are random: speed holds, masks mean nothing.", style="yellow")
    for warning in spoken["warnings"]:
        console.print(Text(warning, "yellow"))


def _count(number: int, noun: str) -> str:
    """Return ``1 query`` or ``2 queries``."""
    several = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{number:,} {noun if number == 1 else several}"


def _sentence(search: Search) -> str:
    """Return what a search has found."""
    from segcore.report.wording import number

    if search.highest_valid is None:
        if search.alone == "invalid":
            return "No rate keeps the limit: queries that never wait break it already."
        return f"No rate was shown to keep the limit, down to {number(search.lowest_failed or 0)} queries/s."
    failed = f"; {number(search.lowest_failed)} was not shown to keep it" if search.lowest_failed else ""
    return f"Highest rate shown to keep the limit: {number(search.highest_valid)} queries/s{failed}."
