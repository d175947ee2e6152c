"""Measure in turns what two run files leave undecided, at the commits that they name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segcore.core.errors import ArmError, UsageError
from segcore.core.files import sha256_file
from segcore.core.git import git
from segcore.core.limits import Limits
from segcore.core.records import MachineRecord, Run
from segcore.judgement.gate.settle import (
    BUDGET_S,
    arm_arguments,
    settle_command,
    settled,
    settlement,
    undecided,
    why_not,
)
from segcore.judgement.gate.verdict import GateResult
from segcore.paired.arms import WEIGHTS, Arm, arms_of, bench_note, commit_of, repository_of, worktrees
from segcore.paired.session import (
    PairedItem,
    PairedOptions,
    RunArms,
    as_gate,
    budget_needed,
    run_paired,
    run_revisions,
)

_FILES = ("--segcore-weights", "--segcore-model", "--segcore-calibration", "--segcore-cases", "--cases")
"""Options whose values may be files that git does not have."""
_SUFFIXES = (*WEIGHTS, ".yaml")
"""Of files named without a directory."""


class _CannotSettleError(UsageError):
    """Nothing of what is undecided can be measured again."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"--settle cannot measure this again: {problem}; or measure two revisions here (--against REV)"
        )


@dataclass(frozen=True)
class SettleOptions:
    """Limits and duration of a settlement."""

    defaults: Limits
    """For items whose case sets none."""
    budget_s: float | None = None
    """`BUDGET_S` if None."""
    accept_changed_limits: bool = False
    words: tuple[str, ...] = ()
    """Options of ``segcore gate`` that the runs were judged with."""


def settle(
    result: GateResult,
    baseline: Sequence[Run],
    current: Sequence[Run],
    here: MachineRecord,
    options: SettleOptions,
    report: Callable[[str], None],
    run: RunArms = run_paired,
) -> GateResult:
    """Return verdicts in which the undecided medians of speed are replaced by those of measuring in turns.

    Only these items are measured, in worktrees of the two commits, until decided or out of time. If that is not
    possible or fails, but something has regressed anyway, a note says why.

    Raises:
        UsageError: nothing of what is undecided can be measured on this machine (`here`).
        ArmError: an arm could not run its bench.
    """
    if not undecided(result):
        return result
    try:
        return _settle(result, baseline, current, here, options, report, run)
    except (_CannotSettleError, ArmError) as error:
        if result.exit_code != 1:
            raise
        return replace(result, notes=(*result.notes, str(error)))


def _settle(
    result: GateResult,
    baseline: Sequence[Run],
    current: Sequence[Run],
    here: MachineRecord,
    options: SettleOptions,
    report: Callable[[str], None],
    run: RunArms,
) -> GateResult:
    cwd, budget_s = Path.cwd().resolve(), options.budget_s or BUDGET_S
    if problem := why_not(baseline, current, here):
        raise _CannotSettleError(problem)
    repository = repository_of(cwd).resolve()
    commits = [_commit(repository, runs[0]) for runs in (baseline, current)]
    plan = settlement(
        result,
        baseline,
        current,
        options.defaults,
        lambda run, key: lost_file(run, key, cwd) or replaced_weights((baseline[0], current[0]), key, repository),
        accept=options.accept_changed_limits,
    )
    if not plan.items:
        raise _CannotSettleError(next(iter(plan.left.values())))
    report(f"{len(plan.items)} undecided items are measured in turns, for at most {budget_s:.0f} s")
    keys = {item.head_node: item.key for item in plan.items}
    with worktrees(repository, *commits) as trees:
        head = Arm("head", _arguments(current[0], tuple(keys), cwd), cwd)
        arms = arms_of(head, _arguments(baseline[0], tuple(keys), cwd), trees, repository)
        wanted = tuple(PairedItem(item.head_node, item.head_node, item.limit) for item in plan.items)
        note = bench_note(*arms)
        turns = run_revisions(*arms, PairedOptions(budget_s=budget_s, items=wanted), report, run)
    rows = {keys[row.item]: row for row in as_gate(turns, result.baseline, result.current).rows}
    how = (
        f"{len(rows)} items were measured in turns at {commits[0][:10]} and {commits[1][:10]}: {turns.blocks} blocks "
        f"of fresh process pairs in {turns.seconds:.0f} s"
    )
    found = settled(result, rows, plan.left, how)
    needed_s = budget_needed(turns)
    again = settle_command(baseline, current, options.words, budget_s=needed_s) if needed_s else ""
    others = [command for command in result.commands if command != settle_command(baseline, current, options.words)]
    notes = (*found.notes, note) if note else found.notes
    return replace(found, notes=notes, commands=tuple(filter(None, (again, *others))))


def _commit(repository: Path, run: Run) -> str:
    commit = run.record.git.commit if run.record.git else ""
    try:
        commit_of(repository, commit)
    except UsageError as error:
        raise _CannotSettleError(f"{run.name}: {error}") from None
    return commit


def lost_file(run: Run, key: str, cwd: Path) -> str:
    """Return which file that the item of a run needs is gone from `cwd` or has changed; empty if all are there."""
    info = next(benchmark.info for benchmark in run.benchmarks if benchmark.info.key == key)
    for option, value in _file_values(run.record.command):
        path = cwd / value
        if not path.exists() and ("/" in value or path.suffix in _SUFFIXES):
            return f"{value} of {run.name} ({option}) is lost"
        checked = option == "--segcore-weights" and info.weights.kind == "checkpoint" and path.is_file()
        if checked and not is_tracked(path) and sha256_file(path) != info.weights.sha256:
            return f"{value} of {run.name} ({option}) has changed since"
    return ""


def replaced_weights(runs: tuple[Run, Run], key: str, repository: Path) -> str:
    """Return which weights an item had in both runs under one name, although they differ and git has neither."""
    infos = [next((b.info for b in run.benchmarks if b.info.key == key), None) for run in runs]
    old, new = (info and info.model_file and info.weights for info in infos)
    if not old or not new or old.name != new.name or old.sha256 == new.sha256 or new.kind != "checkpoint":
        return ""
    tracked = git(repository, "ls-files", "--", f"*{new.name}")
    return "" if tracked else f"{new.name} has changed between the runs, and git has neither"


def is_tracked(path: Path) -> bool:
    """Return whether git has a file, so that a worktree has it too."""
    try:
        return bool(git(path.parent, "ls-files", "--", path.name))
    except UsageError:
        return False


def _file_values(words: Sequence[str]) -> list[tuple[str, str]]:
    """Return the options among words that may name files, each with its value."""
    found = []
    for word, following in zip(words, (*words[1:], ""), strict=True):
        name, equals, value = word.partition("=")
        if name in _FILES:
            found.append((name, value if equals else following))
    return found


def _arguments(run: Run, nodes: Sequence[str], cwd: Path) -> tuple[str, ...]:
    """Return an arm's arguments; files that git does not have are named by their absolute paths."""
    arguments = arm_arguments(run, nodes)
    outside = {value for _, value in _file_values(arguments) if (cwd / value).exists() and not is_tracked(cwd / value)}
    return tuple(_absolute(word, outside, cwd) for word in arguments)


def _absolute(word: str, outside: set[str], cwd: Path) -> str:
    name, equals, value = word.partition("=")
    if word in outside:
        return str(cwd / word)
    return f"{name}={cwd / value}" if equals and value in outside else word
