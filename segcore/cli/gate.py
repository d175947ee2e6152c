"""``segcore gate``: judge run files, or two arms measured in turns."""

from __future__ import annotations

import math
import shlex
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from segcore.cli import StdoutError, completion
from segcore.cli.options import (
    POSITIVE,
    DropLimits,
    Export,
    FiniteFloat,
    check_exports,
    export_option,
    json_option,
    option,
    option_group,
    storage_option,
    write_exports,
)
from segcore.core.errors import EXIT_BAD_INPUT, ArmError, UsageError
from segcore.core.text import listed

if TYPE_CHECKING:
    from segcore.core.limits import Limits
    from segcore.core.records import Run
    from segcore.judgement.gate.verdict import GateResult
    from segcore.paired.arms import Arm

USAGE = "give BASELINE and CURRENT, or --against REV (or another option of the arms), or --self-audit"


@dataclass(frozen=True)
class Turns:
    """Options of two arms that are measured in turns."""

    against: str | None = option(metavar="REV", help="Measure this git revision and the working tree in turns.")
    base_python: str | None = option(metavar="PYTHON", help="In turns: interpreter of the base arm [this one].")
    base_args: str | None = option(metavar="ARGS", help="In turns: more pytest arguments for the base arm.")
    head_args: str | None = option(metavar="ARGS", help="In turns: more pytest arguments for the head arm.")
    args: str = option(default="bench -k latency", help="In turns: pytest arguments for both arms, bench first.")
    budget: float | None = option(
        type=FiniteFloat(min=1), metavar="SECONDS", help="In turns: total time [300 per item; to settle, 600]."
    )

    @property
    def requested(self) -> bool:
        """Return whether any option names an arm."""
        return any(option is not None for option in (self.against, self.base_python, self.base_args, self.head_args))


@click.command()
@click.argument("baseline", required=False, shell_complete=completion.RUN)
@click.argument("current", required=False, shell_complete=completion.RUN)
@option_group(Turns, "turns")
@click.option("--settle", is_flag=True, help="Measure what BASELINE and CURRENT leave undecided in turns, here.")
@click.option("--self-audit", is_flag=True, help="Measure how often the gate is wrong on this machine.")
@click.option("--gates", type=POSITIVE, default=3, help="Gates per slowdown in the self-audit.")
@click.option(
    "--max-slowdown", type=FiniteFloat(min=0), help="Limit for items whose case has none [0.1; in turns 0.05]."
)
@option_group(DropLimits, "drops")
@click.option(
    "--max-drift",
    type=FiniteFloat(min=0, max=1),
    help="Limit on the share of changed pixels; if given, between different weights too [0.01].",
)
@click.option("--process-noise", type=FiniteFloat(min=0), help="Standard deviation between processes, 0.02 for 2 %.")
@click.option(
    "--accept-changed-limits", is_flag=True, help="Judge by the limits, checks and cases of CURRENT, also if looser."
)
@click.option("--require-all", is_flag=True, help="What CURRENT says that its command line left out is missing.")
@export_option("junit", "gitlab", "markdown")
@storage_option
@json_option
def gate(
    baseline: str | None,
    current: str | None,
    turns: Turns,
    settle: bool,
    self_audit: bool,
    gates: int,
    max_slowdown: float | None,
    drops: DropLimits,
    max_drift: float | None,
    process_noise: float | None,
    accept_changed_limits: bool,
    require_all: bool,
    exports: tuple[Export, ...],
    storage: Path,
    as_json: bool,
) -> None:
    """Judge CURRENT against BASELINE: is it still right, and still fast?

    Each is a run file, the name a run was saved under, `latest`, or a directory of runs of several processes. With
    --against (or --base-python, --base-args, --head-args), two arms are measured here in turns instead, in fresh
    processes, until every item is decided. --settle does that for the items that the two files leave undecided, at
    the commits that they name.

    Exit codes: 0 pass, 1 regressed or missing, 2 bad input, 3 inconclusive or incomparable.
    """
    from segcore.cli.output import print_errors
    from segcore.judgement.gate.files import RUN_LIMITS, gate_options, judge_runs, load_baseline, load_runs
    from segcore.report import gate as gate_report
    from segcore.report.exports import export_gate

    if settle and baseline is None:
        raise UsageError("--settle needs BASELINE and CURRENT")
    if sum((baseline is not None, turns.requested, self_audit)) != 1 or (baseline is not None and current is None):
        raise UsageError(USAGE)
    stdout_taken = check_exports(exports, as_json)
    runs: tuple[Run, ...] = ()
    given = {"max_slowdown": None if max_slowdown is None else {"p50": max_slowdown}, "max_drift": max_drift}
    limits = drops.limits(**{name: value for name, value in given.items() if value is not None})
    if self_audit:
        _audit(turns, limits.slowdowns[0.5], gates, as_json)
        return
    if turns.requested:
        result = _in_turns(turns, limits.slowdowns[0.5])
    elif plain := _plain(str(baseline), str(current), storage, limits.over(RUN_LIMITS), process_noise):
        if settle:
            raise UsageError(
                "--settle needs runs of segcore's items; these are pytest-benchmark's own: use --against REV"
            )
        result = plain
    else:
        old, new = load_baseline(str(baseline), storage), load_runs(str(current), storage)
        runs = (*old, *new)
        limits = limits.over(RUN_LIMITS)
        flags = {"accept_changed_limits": accept_changed_limits, "require_all": require_all}
        result = judge_runs(old, new, limits, storage, process_noise, **flags)
        if settle:
            from segcore.measurement.machine import fingerprint
            from segcore.paired.settle import SettleOptions
            from segcore.paired.settle import settle as settle_open

            words = gate_options(limits, process_noise, **flags)
            options = SettleOptions(limits, turns.budget, accept_changed_limits, words)
            result = settle_open(result, old, new, fingerprint(), options, _log)
    publish(result, as_json, quiet=stdout_taken)
    _, failed = write_exports(
        exports, lambda name: gate_report.markdown(result) if name == "markdown" else export_gate(name, result, runs)
    )
    print_errors(failed)
    click.get_current_context().exit(EXIT_BAD_INPUT if failed and result.exit_code != 1 else result.exit_code)


def _plain(
    baseline: str, current: str, storage: Path, limits: Limits, process_noise: float | None
) -> GateResult | None:
    """Return the verdicts on two runs of pytest-benchmark itself; None if one of them is segcore's."""
    from segcore.judgement.gate.plain import judge_plain
    from segcore.judgement.statistics import ProcessNoise
    from segcore.results.plain import load_plain
    from segcore.results.store import find_run

    paths = [find_run(reference, storage) for reference in (baseline, current)]
    runs = [load_plain(path) for path in paths if path is not None]
    if len(runs) < 2 or runs[0] is None or runs[1] is None:
        return None
    known = None if process_noise is None else ProcessNoise(process_noise, math.inf, "as given")
    return judge_plain(runs[0], runs[1], limits, known)


def publish(result: GateResult, as_json: bool, *, quiet: bool = False) -> None:
    """Print a result unless `quiet`; in GitHub Actions, also annotate the run and append to the step summary.

    If standard output cannot be written, the exit code still is the verdict's.
    """
    from segcore.cli.output import show_json
    from segcore.report import gate as report
    from segcore.report.table import open_console

    def show() -> None:
        if as_json:
            show_json(report.as_json(result), "gate")
        elif not quiet:
            report.print_result(result, open_console())

    for step in (show, partial(report.annotate, result, err=as_json or quiet)):
        try:
            step()
        except StdoutError as error:
            error.show()


def _in_turns(turns: Turns, limit: float) -> GateResult:
    from segcore.paired.session import PairedOptions, as_gate, budget_needed, run_paired, run_revisions

    with ExitStack() as stack:
        base, head, names = _arms(turns, stack)
        limits, notes = _base_limits(base, head, limit)
        run = run_paired if head.code is None else run_revisions
        result = run(base, head, PairedOptions(limit, turns.budget, base_limits=limits), _log)
    budget_s = budget_needed(result)
    gate = as_gate(result, *names)
    commands = (_again(turns, limit, budget_s),) if budget_s else ()
    return replace(gate, notes=(*gate.notes, *notes), commands=commands)


def _base_limits(base: Arm, head: Arm, limit: float) -> tuple[dict[str, float], tuple[str, ...]]:
    """Return the limits of the base's own cases if they may differ from the head's, and notes on what differs."""
    from segcore.paired.arms import bench_note
    from segcore.paired.session import own_limits

    note = bench_note(base, head)
    if not note:
        return {}, ()
    try:
        return own_limits(base, head, limit), (f"{note}; the limits of the base hold as well",)
    except ArmError as error:
        return {}, (f"{note}; the limits of the base are unknown: {error}",)


def _again(turns: Turns, limit: float, budget_s: float) -> str:
    """Return the command that measures the same arms for longer."""
    given = {name: value for name, value in vars(turns).items() if value is not None}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in {**given, "budget": f"{budget_s:.0f}"}.items()]
    return shlex.join(["segcore", "gate", *words, f"--max-slowdown={limit:g}"])


def _arms(turns: Turns, stack: ExitStack) -> tuple[Arm, Arm, tuple[str, str]]:
    """Return both arms and their names; worktrees live until the stack is closed."""
    from segcore.paired.arms import Arm, arms_of, repository_of, untracked, worktrees

    args = _bench_args(turns)
    base_args, head_args = _split("--base-args", turns.base_args or ""), _split("--head-args", turns.head_args or "")
    cwd = Path.cwd().resolve()
    base = Arm("base", (*args, *base_args), cwd, python=turns.base_python or sys.executable)
    head = Arm("head", (*args, *head_args), cwd)
    if turns.against is None:
        if base_args or head_args:
            return base, head, (shlex.join(base_args), shlex.join(head_args))
        return base, head, (turns.base_python or "base", sys.executable)
    repository = repository_of(cwd).resolve()
    trees = stack.enter_context(worktrees(repository, turns.against))
    _log(f"{turns.against} and the working tree are checked out, and started in turns")
    unknown = untracked(repository)
    if unknown:
        files = f"{len(unknown)} files unknown to git ({listed(unknown, 3)})"
        _log(f"{files} are in neither arm; `git add` what is to be measured")
    in_base, in_head = arms_of(head, base.args, trees, repository)
    return replace(in_base, python=base.python), in_head, (turns.against, "working tree")


def _audit(turns: Turns, limit: float, gates: int, as_json: bool) -> None:
    from segcore.cli.output import show_json
    from segcore.paired.audit import LEVELS, audit, describe
    from segcore.paired.session import BUDGET_S, PairedOptions

    args = _bench_args(turns)
    minutes = len(LEVELS) * gates * (turns.budget or BUDGET_S) / 60
    _log(f"{len(LEVELS) * gates} gates, at most {minutes:.0f} minutes{'' if turns.budget else ' for each item'}")
    result = audit(args, PairedOptions(limit, turns.budget), gates, _log)
    if as_json:
        show_json(asdict(result), "audit")
    else:
        click.echo(describe(result))


def _log(line: str) -> None:
    from segcore.report.escape import plain_text

    click.echo(plain_text(f"gate: {line}"), err=True)


def _bench_args(turns: Turns) -> list[str]:
    args = _split("--args", turns.args)
    if not args or args[0].startswith("-"):
        raise UsageError(f"--args {turns.args!r}: wanted the bench first, for example 'bench -k latency'")
    return args


def _split(option: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{option} {text!r}: {error}; quote as in a shell") from None
