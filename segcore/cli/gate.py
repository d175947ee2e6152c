"""``segcore gate``, ``compare`` and ``history``: verdicts and tables from run files, or from two arms run in turns."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segcore.cli.options import FiniteFloat, json_option
from segcore.core.errors import RecordError, UsageError
from segcore.results.naming import DEFAULT_DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from segcore.core.records import Run
    from segcore.judgement.gate.verdict import GateResult

storage_option = click.option(
    "--storage", default=DEFAULT_DIRECTORY, show_default=True, type=click.Path(path_type=Path), help="Of runs."
)
DEFAULT_ARGS = "bench -k latency"


@click.command()
@click.argument("baseline", required=False)
@click.argument("current", required=False)
@click.option(
    "--against", metavar="REV", help="Run this git revision and the present state in turns, and compare them."
)
@click.option("--base-python", metavar="PYTHON", help="In turns: interpreter of the base arm [this one].")
@click.option("--base-args", metavar="ARGS", help="In turns: more pytest arguments of the base arm.")
@click.option("--head-args", metavar="ARGS", help="In turns: more pytest arguments of the head arm.")
@click.option(
    "--args", default=DEFAULT_ARGS, show_default=True, help="In turns: pytest arguments of both, bench first."
)
@click.option("--budget", type=FiniteFloat(min=1), metavar="SECONDS", help="In turns: time for all [300 an item].")
@click.option("--self-audit", is_flag=True, help="How often this gate errs on this machine, by running it on itself.")
@click.option("--gates", type=click.IntRange(min=1), default=3, show_default=True, help="Of the audit, per slowdown.")
@click.option("--max-slowdown", type=FiniteFloat(min=0), help="Of items whose case says nothing [0.05].")
@click.option("--process-noise", type=FiniteFloat(min=0), help="Known sd between processes, 0.02 for 2 %.")
@storage_option
@json_option
def gate(
    baseline: str | None,
    current: str | None,
    against: str | None,
    base_python: str | None,
    base_args: str | None,
    head_args: str | None,
    args: str,
    budget: float | None,
    self_audit: bool,
    gates: int,
    max_slowdown: float | None,
    process_noise: float | None,
    storage: Path,
    as_json: bool,
) -> None:
    """Judge CURRENT against BASELINE: is it still right, and still fast?

    Each is a run file, the name a run was saved under, `latest`, or a directory of several processes' runs. With
    --against (or --base-python, --base-args, --head-args) both arms are run here in turns instead, in fresh
    processes, until every item is decided.

    Exit codes: 0 pass, 1 regressed or missing, 2 bad input, 3 inconclusive or incomparable.
    """
    from segcore.core.limits import Limits

    in_turns = any(option is not None for option in (against, base_python, base_args, head_args))
    if sum((baseline is not None, in_turns, self_audit)) != 1 or (baseline is not None and current is None):
        raise UsageError("give BASELINE and CURRENT, or --against REV (or another option of the arms), or --self-audit")
    limits = Limits() if max_slowdown is None else Limits(max_slowdown={"p50": max_slowdown})
    limit = limits.slowdowns[0.5]
    if self_audit:
        _audit(_words("--args", args), limit, budget, gates, as_json)
        return
    if in_turns:
        more = (_words("--base-args", base_args or ""), _words("--head-args", head_args or ""))
        result = _in_turns(against, base_python, _words("--args", args), more, limit, budget)
    else:
        from segcore.judgement.gate.files import judge_runs, load_runs

        old, new = load_runs(str(baseline), storage), load_runs(str(current), storage)
        both = {run.path.resolve() for run in old} & {run.path.resolve() for run in new}
        if both:
            raise UsageError(f"BASELINE and CURRENT are both {both.pop()}: a run always equals itself")
        result = judge_runs(old, new, limits, storage, process_noise)
    publish(result, as_json)
    click.get_current_context().exit(result.exit_code)


def publish(result: GateResult, as_json: bool) -> None:
    """Print a result; in GitHub Actions also annotate the run and add to the summary of the step."""
    from segcore.report import gate_text
    from segcore.report.github import annotate

    if as_json:
        click.echo(json.dumps(gate_text.as_json(result), indent=2, allow_nan=False))
    else:
        click.echo(gate_text.render(result, color=sys.stdout.isatty()), nl=False)
    annotate(result, err=as_json)


def _in_turns(
    against: str | None,
    base_python: str | None,
    args: list[str],
    more: tuple[list[str], list[str]],
    limit: float,
    budget: float | None,
) -> GateResult:
    """Run both arms in turns."""
    from segcore.paired.arms import Arm, repository_of, untracked, worktrees
    from segcore.paired.session import Settings, as_gate, run_paired

    _check_bench(args)
    cwd = Path.cwd().resolve()
    with _terminated_like_interrupted(), ExitStack() as stack:
        names = (shlex.join(more[0]), shlex.join(more[1])) if any(more) else (base_python or "base", sys.executable)
        base = Arm("base", (*args, *more[0]), cwd, python=base_python or sys.executable)
        head = Arm("head", (*args, *more[1]), cwd)
        if against is not None:
            repository = repository_of(cwd).resolve()
            old, new = stack.enter_context(worktrees(repository, against))
            place = new / cwd.relative_to(repository)
            base = replace(base, cwd=place, code=old, forbidden=(repository, new))
            head = replace(head, cwd=place, code=new, forbidden=(repository, old))
            names = (against, "the present state")
            click.echo(f"gate: {against} and the present state are checked out, and started in turns", err=True)
            unknown = untracked(repository)
            if unknown:
                files = f"{len(unknown)} files unknown to git ({', '.join(unknown[:3])}{', ...' * (len(unknown) > 3)})"
                click.echo(f"gate: {files} are in neither arm; `git add` what is to be measured", err=True)
        result = run_paired(base, head, Settings(limit, budget), lambda line: click.echo(f"gate: {line}", err=True))
    return as_gate(result, *names)


def _audit(args: list[str], limit: float, budget: float | None, gates: int, as_json: bool) -> None:
    from segcore.paired.audit import LEVELS, audit, describe
    from segcore.paired.session import BUDGET_S, Settings

    _check_bench(args)
    each = "" if budget else " for each item"
    minutes = len(LEVELS) * gates * (budget or BUDGET_S) / 60
    click.echo(f"gate: {len(LEVELS) * gates} gates, at most {minutes:.0f} minutes{each}", err=True)
    with _terminated_like_interrupted():
        result = audit(args, Settings(limit, budget), gates, lambda line: click.echo(f"gate: {line}", err=True))
    click.echo(json.dumps(asdict(result), indent=2) if as_json else describe(result))


def _words(option: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}; quote as in a shell") from None


def _check_bench(args: list[str]) -> None:
    if not args or args[0].startswith("-"):
        raise UsageError(f"--args {shlex.join(args)!r}: wanted the bench first, for example 'bench -k latency'")


@contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """Let SIGTERM, which is how CI cancels a job, clean up worktrees and processes as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option("--reference", metavar="COLUMN", help="Ratios refer to this run or column [the first].")
@click.option("--csv", "form", flag_value="csv", help="Print CSV, one line per cell.")
@click.option("--markdown", "form", flag_value="markdown", help="Print a markdown table.")
@click.option("--json", "form", flag_value="json", help="Print JSON.")
@storage_option
def compare(runs: tuple[str, ...], reference: str | None, form: str | None, storage: Path) -> None:
    """Put devices and machines side by side: latency, throughput and efficiency of RUNs from anywhere."""
    from segcore.judgement.compare import compare as compare_runs
    from segcore.report import compare_text
    from segcore.results.store import load_run, resolve_run

    table = compare_runs([load_run(resolve_run(run, storage)) for run in runs], reference)
    click.echo(compare_text.FORMS[form or "table"](table), nl=False)


@click.command()
@click.argument("name", required=False)
@storage_option
@json_option
def history(name: str | None, storage: Path, as_json: bool) -> None:
    """Show the runs of a store over time, item by item, with change points; NAME picks runs or items."""
    from segcore.judgement.history import history as series_of
    from segcore.report import compare_text
    from segcore.results.store import find_runs

    found = series_of(_readable(find_runs(storage)), name)
    if not found:
        what = f" named {name!r}, nor items of that name" if name else ""
        raise RecordError(f"{storage}: no runs{what}; record one: pytest bench/ --benchmark-save")
    click.echo(compare_text.history_json(found) if as_json else compare_text.history_table(found), nl=False)


def _readable(paths: tuple[Path, ...]) -> list[Run]:
    """Load runs; those that cannot be read are named on stderr, for one bad artifact must not hide the others."""
    from segcore.results.store import load_run

    runs = []
    for path in paths:
        try:
            runs.append(load_run(path))
        except RecordError as error:
            click.echo(f"segcore: left out: {error}", err=True)
    return runs
